//! Features of Python that the engine lacks: methods of strings and lists, and the printed form of
//! values.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, State};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::refusal::refuse;
use super::strings;

/// The maximum depth of nested lists and maps that are printed.
pub(super) const DEPTH: usize = 100;

/// The test `number`: in Python, true and false are numbers.
pub(super) fn is_number(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
}

/// The test `sequence`: in Jinja, strings and maps pass it too.
pub(super) fn is_sequence(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Seq | ValueKind::String | ValueKind::Map
    )
}

/// The test `iterable`: in the engine, `none` passes it too.
pub(super) fn is_iterable(value: &Value) -> bool {
    is_sequence(value) || matches!(value.kind(), ValueKind::Iterable | ValueKind::Undefined)
}

/// The methods that `pycompat` does not have or implements incorrectly. Other methods come from
/// `pycompat`.
pub(super) fn method(
    state: &State,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        if let Some(result) = text_method(text, name, args)? {
            return Ok(result);
        }
    } else if value.kind() == ValueKind::Seq && name == "index" {
        let (wanted,): (&Value,) = from_args(args)?;
        let place = value.try_iter()?.position(|element| element == *wanted);
        return place
            .map(Value::from)
            .ok_or_else(|| refuse(format!("{wanted} is not in the list")));
    }
    unknown_method_callback(state, value, name, args)
}

fn text_method(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    // Python counts characters, not bytes.
    let place = |at: usize| text[..at].chars().count() as i64;
    let separates = ["split", "rsplit", "partition", "rpartition"].contains(&name);
    if separates && args.first().and_then(Value::as_str) == Some("") {
        return Err(refuse("empty separator"));
    }
    Ok(Some(match name {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let parts = match name {
                "partition" => text.split_once(separator),
                _ => text.rsplit_once(separator),
            };
            let parts = match (parts, name) {
                (Some((before, after)), _) => [before, separator, after],
                (None, "partition") => [text, "", ""],
                (None, _) => ["", "", text],
            };
            parts.map(Value::from).into_iter().collect()
        }
        "rsplit" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
            let most = most.and_then(|most| usize::try_from(most).ok());
            Value::from(rsplit(text, separator, most.unwrap_or(usize::MAX)))
        }
        "find" | "index" => {
            let (wanted,): (&str,) = from_args(args)?;
            found(text.find(wanted).map(place), name == "index")?
        }
        "rfind" | "rindex" => {
            let (wanted,): (&str,) = from_args(args)?;
            found(text.rfind(wanted).map(place), name == "rindex")?
        }
        // `pycompat` does not terminate on this input.
        "count" if args.first().and_then(Value::as_str) == Some("") => {
            Value::from(text.chars().count() + 1)
        }
        // `pycompat` returns true for all of these.
        _ if text.is_empty() && name.starts_with("is") && name != "isascii" => {
            let () = from_args(args)?;
            Value::from(false)
        }
        _ => return strings::method(text, name, args),
    }))
}

fn found(place: Option<i64>, must_be: bool) -> Result<Value, Error> {
    match place {
        None if must_be => Err(refuse("substring not found")),
        place => Ok(Value::from(place.unwrap_or(-1))),
    }
}

/// Splits from the right, at most `most` times.
fn rsplit(text: &str, separator: Option<&str>, most: usize) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = if separator.is_none() {
        text.trim_end()
    } else {
        text
    };
    while parts.len() < most {
        let cut = match separator {
            Some(separator) => rest.rsplit_once(separator),
            None => rest.rsplit_once(char::is_whitespace),
        };
        let Some((before, after)) = cut else {
            break;
        };
        parts.push(after.to_owned());
        rest = if separator.is_none() {
            before.trim_end()
        } else {
            before
        };
    }
    if separator.is_some() || !rest.is_empty() {
        parts.push(rest.to_owned());
    }
    parts.reverse();
    parts
}

/// The filter `string`: Python's `str`.
pub(super) fn to_string(value: &Value) -> Result<String, Error> {
    text_of(value)
}

/// A value as Python's `str` writes it.
pub(super) fn text_of(value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let mut out = String::new();
    write_repr(value, 0, &mut out)?;
    Ok(out)
}

/// A number as Python writes it: the exponent of a float has a sign and at least two digits.
pub(super) fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(float) = f64::try_from(value.clone()) else {
        return value.to_string();
    };
    let text = format!("{float:?}").to_lowercase();
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    match exponent.strip_prefix('-') {
        Some(exponent) => format!("{digits}e-{exponent:0>2}"),
        None => format!("{digits}e+{exponent:0>2}"),
    }
}

fn write_repr(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > DEPTH {
        return Err(refuse(format!("values are nested more than {DEPTH} deep")));
    }
    match value.kind() {
        ValueKind::Undefined => {}
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => write_quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (at, element) in value.try_iter()?.enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                write_repr(&element, depth + 1, out)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (at, key) in value.try_iter()?.enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                write_repr(&key, depth + 1, out)?;
                out.push_str(": ");
                write_repr(&value.get_item(&key)?, depth + 1, out)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// Writes text in single quotes, or in double quotes if these need no escapes.
fn write_quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if character == quote => out.extend(['\\', quote]),
            _ if is_printable(character) => out.push(character),
            _ => out.push_str(&match u32::from(character) {
                code @ ..=0xff => format!("\\x{code:02x}"),
                code @ ..=0xffff => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            }),
        }
    }
    out.push(quote);
}

/// Whether Python's `repr` writes a character as it is: no control, format, private or unassigned
/// character, and of separators only the space. Rust's `Debug` has the same rule, but for accents at the
/// start of a text. Characters that stand for an answer here are written as they are, to be found.
fn is_printable(character: char) -> bool {
    let text = String::from_iter(['x', character]);
    matches!(character, '"' | '\'' | '\\' | '\u{fdd0}'..='\u{fdef}')
        || text.escape_debug().eq(text.chars())
}
