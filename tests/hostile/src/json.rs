//! Mutations of JSON that stay JSON most of the time, and of what has JSON inside.

use serde_json::{Map, Value, json};

use crate::rng::{Rng, mutate_bytes};

/// A value that somebody might not have thought of.
fn odd(rng: &mut Rng) -> Value {
    match rng.below(28) {
        0 => Value::Null,
        1 => json!(0),
        2 => json!(-1),
        3 => json!(1),
        4 => json!(3),
        5 => json!(u64::MAX),
        6 => json!(i64::MIN),
        7 => json!(1_000_000_000_000_u64),
        8 => json!(1_u64 << 32),
        9 => json!(1e308),
        10 => json!(-0.0),
        11 => json!(1e-320),
        12 => json!(0.5),
        13 => json!(true),
        14 => json!(""),
        15 => json!("\u{0}"),
        16 => json!("../x"),
        17 => json!("/etc/passwd"),
        18 => json!("a".repeat(1 + rng.below(5000))),
        19 => json!("\u{1F600}e\u{301}\u{200D}\u{FEFF}"),
        20 => json!([]),
        21 => json!({}),
        22 => json!([[], [[]], {}]),
        23 => {
            let mut value = json!(1);
            for _ in 0..rng.below(200) {
                value = json!([value]);
            }
            value
        }
        24 => json!({"content": "x", "type": "Sequence", "id": 7}),
        25 => json!(rng.below(300)),
        26 => json!("(a+)+$"),
        _ => json!(rng.bits()),
    }
}

/// How many values there are in it.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

/// The value with this number, in the order of [`count`].
fn at<'a>(value: &'a mut Value, number: &mut usize) -> Option<&'a mut Value> {
    if *number == 0 {
        return Some(value);
    }
    *number -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| at(item, number)),
        Value::Object(map) => map.values_mut().find_map(|item| at(item, number)),
        _ => None,
    }
}

fn any<'a>(rng: &mut Rng, value: &'a mut Value) -> &'a mut Value {
    let mut number = rng.below(count(value));
    if at(value, &mut number.clone()).is_none() {
        number = 0;
    }
    at(value, &mut number).unwrap_or_else(|| unreachable!("0 is the value itself"))
}

/// Changes some values, keys and lists of it. `others` are values to take parts from.
pub fn mutate_value(rng: &mut Rng, value: &mut Value, others: &[Value]) {
    for _ in 0..=rng.below(3) {
        let mut part = if others.is_empty() || rng.once_in(2) {
            odd(rng)
        } else {
            let mut other = rng.pick(others).clone();
            any(rng, &mut other).clone()
        };
        let target = any(rng, value);
        match (rng.below(6), target) {
            (0, Value::Object(map)) => {
                let keys: Vec<String> = map.keys().cloned().collect();
                if !keys.is_empty() {
                    map.remove(rng.pick(&keys));
                }
            }
            (1, Value::Object(map)) => {
                let keys: Vec<String> = map.keys().cloned().collect();
                if !keys.is_empty() {
                    let key = rng.pick(&keys).clone();
                    let inner = map.remove(&key).unwrap_or_default();
                    map.insert(rng.pick(&keys).clone(), inner);
                }
            }
            (2, Value::Object(map)) => {
                let key = match odd(rng) {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                map.insert(key, part);
            }
            (3, Value::Array(items)) => {
                let at = rng.below(items.len() + 1);
                items.insert(at, part);
            }
            (4, Value::Array(items)) if !items.is_empty() => {
                let from = rng.below(items.len());
                drop(items.drain(from..(from + 1 + rng.below(3)).min(items.len())));
            }
            (_, target) => std::mem::swap(target, &mut part),
        }
    }
}

fn parse(corpus: &[Vec<u8>]) -> Vec<Value> {
    let values = corpus.iter().map(|input| serde_json::from_slice(input));
    values.filter_map(Result::ok).take(4).collect()
}

/// Mutates a JSON text.
#[must_use]
pub fn mutate(rng: &mut Rng, input: &[u8], corpus: &[Vec<u8>]) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<Value>(input) else {
        return mutate_bytes(rng, input);
    };
    if rng.once_in(8) {
        return mutate_bytes(rng, input);
    }
    let others = if rng.once_in(4) {
        parse(corpus)
    } else {
        Vec::new()
    };
    mutate_value(rng, &mut value, &others);
    let text = value.to_string().into_bytes();
    if rng.once_in(8) {
        mutate_bytes(rng, &text)
    } else {
        text
    }
}

/// Mutates lines of JSON.
#[must_use]
pub fn mutate_lines(rng: &mut Rng, input: &[u8], corpus: &[Vec<u8>]) -> Vec<u8> {
    let lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let mut out = Vec::new();
    for line in &lines {
        match rng.below(4) {
            0 => out.extend(mutate(rng, line, &[])),
            1 => {
                let other = rng.pick(corpus);
                let others: Vec<&[u8]> = other.split(|byte| *byte == b'\n').collect();
                let other: &[u8] = rng.pick::<&[u8]>(&others);
                out.extend_from_slice(other);
            }
            _ => out.extend_from_slice(line),
        }
        let end: &[u8] = rng.pick::<&[u8]>(&[&b"\n"[..], b"\n", b"\n", b"\r\n", b"\n\n", b"\0"]);
        out.extend_from_slice(end);
    }
    out
}

/// Mutates a safetensors file: its header as JSON, its header's length, its data.
#[must_use]
pub fn mutate_safetensors(rng: &mut Rng, input: &[u8], corpus: &[Vec<u8>]) -> Vec<u8> {
    let Some((header, data)) = header(input).filter(|_| !rng.once_in(6)) else {
        return mutate_bytes(rng, input);
    };
    let mut value = Value::Object(header);
    let others: Vec<Value> = if rng.once_in(4) {
        let headers = corpus.iter().filter_map(|input| header_of(input));
        headers.collect()
    } else {
        Vec::new()
    };
    mutate_value(rng, &mut value, &others);
    let text = value.to_string();
    let mut length = text.len() as u64;
    if rng.once_in(10) {
        length = *rng.pick(&[0, 1, u64::MAX, length + 1, length - 1, 1 << 40, 99_000_000]);
    }
    let mut out = length.to_le_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    let kept = if rng.once_in(6) {
        rng.below(data.len() + 1)
    } else {
        data.len()
    };
    out.extend_from_slice(&data[..kept]);
    out
}

fn header_of(input: &[u8]) -> Option<Value> {
    header(input).map(|(map, _)| Value::Object(map))
}

fn header(input: &[u8]) -> Option<(Map<String, Value>, &[u8])> {
    let (length, rest) = input.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let header = serde_json::from_slice(rest.get(..length)?).ok()?;
    Some((header, &rest[length..]))
}
