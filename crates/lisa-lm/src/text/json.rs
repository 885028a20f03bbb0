//! [`value_of`]: JSON text as a value, with all digits of whole numbers of up to 128 bits.
//!
//! serde_json reads a whole number that needs more than 64 bits as a float. Those of at most 128 bits are
//! read as texts with a mark, and then converted.

use minijinja::value::{Value, ValueKind};
use serde_json::Error;

/// Stands before the digits of a large number. Unicode reserves it for the inside of programs.
const MARK: char = '\u{FDD5}';
/// The number of digits that 64 bits always hold.
const SHORT: usize = 18;

/// The value of JSON text. A whole number that needs more than 128 bits is a float.
pub(super) fn value_of(text: &str) -> Result<Value, Error> {
    let large = large_numbers(text);
    if large.is_empty() {
        return serde_json::from_str(text);
    }
    let mut marked = String::with_capacity(text.len() + 8 * large.len());
    let mut at = 0;
    for (start, end) in large {
        marked.push_str(&text[at..start]);
        marked.extend(['"', MARK]);
        marked.push_str(&text[start..end]);
        marked.push('"');
        at = end;
    }
    marked.push_str(&text[at..]);
    match serde_json::from_str(&marked) {
        Ok(value) => Ok(unmarked(value)),
        // It has the place in the text as it was given.
        Err(_) => serde_json::from_str(text),
    }
}

/// Where the whole numbers are that need more than 64 bits, and at most 128.
fn large_numbers(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let (mut at, mut in_string) = (0, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'-' | b'0'..=b'9' if !in_string => {
                let is_part =
                    |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                let length = bytes[at..].iter().take_while(|byte| is_part(byte)).count();
                let end = at + length;
                if is_large(&text[at..end]) && !text[end..].trim_start().starts_with(':') {
                    found.push((at, end));
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

fn is_large(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    digits.len() > SHORT
        && !digits.starts_with('0')
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && number.parse::<i64>().is_err()
        && number.parse::<u64>().is_err()
        && (number.parse::<i128>().is_ok() || number.parse::<u128>().is_ok())
}

/// The value with numbers in place of marked texts.
fn unmarked(value: Value) -> Value {
    match value.kind() {
        ValueKind::String => {
            let digits = value.as_str().and_then(|text| text.strip_prefix(MARK));
            let digits = digits.filter(|digits| is_large(digits));
            digits.and_then(number).unwrap_or(value)
        }
        ValueKind::Seq => match value.try_iter() {
            Ok(elements) => elements.map(unmarked).collect::<Vec<Value>>().into(),
            Err(_) => value,
        },
        ValueKind::Map => match value.try_iter() {
            Ok(keys) => {
                let field = |key: &Value| unmarked(value.get_item(key).unwrap_or_default());
                keys.map(|key| (key.to_string(), field(&key))).collect()
            }
            Err(_) => value,
        },
        _ => value,
    }
}

/// A whole number of at most 128 bits.
fn number(digits: &str) -> Option<Value> {
    let signed = digits.parse::<i128>().ok().map(Value::from);
    signed.or_else(|| digits.parse::<u128>().ok().map(Value::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_keep_their_digits() {
        let text = r#"{"b": [18446744073709551616, -9223372036854775809, 18446744073709551615],
            "a": {"x": 340282366920938463463374607431768211455, "y": 1e30, "z": 0.12345678901234567890},
            "12345678901234567890123": "12345678901234567890123 \" 12345678901234567890123"}"#;
        let value = value_of(text).unwrap();
        let written = serde_json::to_string(&value).unwrap();
        assert_eq!(
            written,
            "{\"b\":[18446744073709551616,-9223372036854775809,18446744073709551615],\
             \"a\":{\"x\":340282366920938463463374607431768211455,\"y\":1e+30,\"z\":0.12345678901234568},\
             \"12345678901234567890123\":\"12345678901234567890123 \\\" 12345678901234567890123\"}"
        );
    }

    #[test]
    fn what_is_no_json_stays_an_error() {
        let number = "12345678901234567890123";
        for text in [
            format!("{{{number}: 1}}"),
            format!("[0{number}]"),
            format!("[{number}"),
            format!("[-{number}-]"),
            format!("[{number} {number}]"),
        ] {
            assert!(value_of(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_whole_number_of_more_than_128_bits_is_a_float() {
        let zeros = "0".repeat(39);
        let value = value_of(&format!("[1{zeros}, -1{zeros}, 12345678901234567890123]")).unwrap();
        let written = serde_json::to_string(&value).unwrap();
        assert_eq!(written, "[1e+39,-1e+39,12345678901234567890123]");
    }
}
