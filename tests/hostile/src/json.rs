//! Mutations of JSON that stay JSON most of the time, and of files with JSON in them.

use serde_json::{Map, Value, json};

use crate::rng::{Rng, mutate_bytes};

/// A value that a reader may not expect.
fn odd(rng: &mut Rng) -> Value {
    match rng.below(20) {
        0 => json!(rng.below(300)),
        1 => json!("a".repeat(1 + rng.below(5000))),
        2 => (0..rng.below(200)).fold(json!(1), |value, _| json!([value])),
        3 => json!(rng.bits()),
        _ => rng
            .pick(&[
                json!(null),
                json!(0),
                json!(-1),
                json!(1),
                json!(3),
                json!(i64::MIN),
                json!(1_000_000_000_000_u64),
                json!(1_u64 << 32),
                json!(1e308),
                json!(1e-320),
                json!(0.5),
                json!(true),
                json!(""),
                json!("../x"),
                json!("/etc/passwd"),
                json!("\u{0}\u{1F600}e\u{301}\u{200D}\u{FEFF}"),
                json!("(a+)+$"),
                json!([[], [[]], {}]),
                json!({}),
                json!({"content": "x", "type": "Sequence", "id": 7}),
            ])
            .clone(),
    }
}

/// The JSON pointers of a value and of all values in it.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(item, &format!("{at}/{index}"), out);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers(item, &format!("{at}/{key}"), out);
            }
        }
        _ => {}
    }
}

fn any<'a>(rng: &mut Rng, value: &'a mut Value) -> &'a mut Value {
    let mut all = Vec::new();
    pointers(value, "", &mut all);
    let pointer = rng.pick(&all);
    value
        .pointer_mut(pointer)
        .unwrap_or_else(|| panic!("{pointer} was found"))
}

/// Changes some values, keys and lists of it. `others` are values to copy from.
pub fn mutate_value(rng: &mut Rng, value: &mut Value, others: &[Value]) {
    for _ in 0..=rng.below(3) {
        let mut new = if others.is_empty() || rng.once_in(2) {
            odd(rng)
        } else {
            let mut other = rng.pick(others).clone();
            any(rng, &mut other).clone()
        };
        match (rng.below(5), any(rng, value)) {
            (kind @ (0 | 1), Value::Object(map)) if !map.is_empty() => {
                let keys: Vec<String> = map.keys().cloned().collect();
                let removed = map.remove(rng.pick(&keys)).unwrap_or_default();
                if kind == 1 {
                    map.insert(rng.pick(&keys).clone(), removed);
                }
            }
            (2, Value::Object(map)) => {
                let key = odd(rng);
                let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                map.insert(key, new);
            }
            (3, Value::Array(items)) => {
                let at = rng.below(items.len() + 1);
                items.insert(at, new);
            }
            (4, Value::Array(items)) if !items.is_empty() => {
                items.truncate(rng.below(items.len()));
            }
            (_, target) => std::mem::swap(target, &mut new),
        }
    }
}

/// Mutates a JSON text.
#[must_use]
pub fn mutate(rng: &mut Rng, input: &[u8], corpus: &[Vec<u8>]) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<Value>(input) else {
        return mutate_bytes(rng, input);
    };
    let parsed = corpus.iter().map(|input| serde_json::from_slice(input));
    let others: Vec<Value> = match rng.below(4) {
        0 => parsed.filter_map(Result::ok).take(4).collect(),
        _ => Vec::new(),
    };
    mutate_value(rng, &mut value, &others);
    let text = value.to_string().into_bytes();
    match rng.below(8) {
        0 => mutate_bytes(rng, &text),
        1 => mutate_bytes(rng, input),
        _ => text,
    }
}

/// Mutates lines of JSON.
#[must_use]
pub fn mutate_lines(rng: &mut Rng, input: &[u8], corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in input.split(|byte| *byte == b'\n') {
        match rng.below(4) {
            0 => out.extend(mutate(rng, line, &[])),
            1 => {
                let other = rng.pick(corpus);
                let others: Vec<&[u8]> = other.split(|byte| *byte == b'\n').collect();
                out.extend_from_slice(rng.pick::<&[u8]>(&others));
            }
            _ => out.extend_from_slice(line),
        }
        let end: &[u8] = rng.pick::<&[u8]>(&[b"\n", b"\n", b"\n", b"\r\n", b"\n\n", b"\0"]);
        out.extend_from_slice(end);
    }
    out
}

/// Mutates a safetensors file: its header as JSON, the header's length, the data.
#[must_use]
pub fn mutate_safetensors(rng: &mut Rng, input: &[u8], _corpus: &[Vec<u8>]) -> Vec<u8> {
    let Some((header, data)) = header(input).filter(|_| !rng.once_in(6)) else {
        return mutate_bytes(rng, input);
    };
    let mut value = Value::Object(header);
    let others = [value.clone()];
    mutate_value(rng, &mut value, &others);
    let text = value.to_string();
    let length = text.len() as u64;
    let length = match rng.below(10) {
        0 => *rng.pick(&[0, 1, u64::MAX, length + 1, length - 1, 1 << 40, 99_000_000]),
        _ => length,
    };
    let kept = match rng.below(6) {
        0 => rng.below(data.len() + 1),
        _ => data.len(),
    };
    [&length.to_le_bytes(), text.as_bytes(), &data[..kept]].concat()
}

fn header(input: &[u8]) -> Option<(Map<String, Value>, &[u8])> {
    let (length, rest) = input.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let header = serde_json::from_slice(rest.get(..length)?).ok()?;
    Some((header, &rest[length..]))
}
