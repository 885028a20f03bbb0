//! The value of a setting as text.

use serde::Serialize;
use serde_json::Value;

/// The value of a setting as it is given on the command line; `None` if it is empty.
pub(super) fn as_given(value: &impl Serialize) -> Option<String> {
    let value = serde_json::to_value(value).ok()?;
    Some(shown(&value)).filter(|text| !text.is_empty())
}

/// A sentence that says that a resumed run and its checkpoint have different values of a setting.
pub(super) fn difference(name: &str, new: &impl Serialize, saved: &impl Serialize) -> String {
    let absent = || "not given".to_owned();
    match (as_given(new), as_given(saved)) {
        (Some(new), Some(saved)) => {
            format!("--{name} is {new}, and the checkpoint was made with {saved}")
        }
        (new, saved) => format!(
            "--{name} is {}, and in the checkpoint it is {}",
            new.unwrap_or_else(absent),
            saved.unwrap_or_else(absent)
        ),
    }
}

/// The value of a setting as it is given on the command line: a number without `.0`, and with an exponent
/// if it is small; the elements of a list with commas.
pub(super) fn shown(value: &Value) -> String {
    let number = match value {
        Value::String(text) => return text.clone(),
        Value::Number(number) => number,
        Value::Array(list) => return list.iter().map(shown).collect::<Vec<_>>().join(","),
        other => return other.to_string(),
    };
    match number.as_f64() {
        Some(value) if number.is_f64() && value != 0.0 && value.abs() < 1e-3 => {
            format!("{value:e}")
        }
        Some(value) if number.is_f64() => value.to_string(),
        _ => number.to_string(),
    }
}
