//! Content that is a list of parts, and tool calls that are JSON text.

use minijinja::value::{Value, ValueKind};

use crate::files::shown;
use crate::text::json;

/// The parts of a content, by what they are.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) text: String,
    pub(super) reasoning: String,
    pub(super) calls: Vec<Value>,
    /// Whether each part is a text in the form of transformers.
    pub(super) is_plain: bool,
    /// The field of a part that has another weight than 1, as in the data of Axolotl.
    pub(super) weight: Option<&'static str>,
}

/// The types of parts with text: of transformers and OpenAI, and of OpenAI's newer interface.
const TEXT: [&str; 3] = ["text", "input_text", "output_text"];
const REASONING: [&str; 2] = ["reasoning", "thinking"];
/// The fields of a part with its weight in the loss.
const WEIGHTS: [&str; 2] = ["train", "weight"];
const MEDIA: [&str; 8] = [
    "image",
    "image_url",
    "input_image",
    "video",
    "video_url",
    "audio",
    "audio_url",
    "input_audio",
];

impl Parts {
    /// Joins `[{"type": "text", "text": "a"}, ..]`. The error is the second part of a sentence
    /// about the message.
    pub(super) fn new(list: &Value) -> Result<Self, String> {
        let mut parts = Self {
            is_plain: list.len() > Some(0),
            ..Self::default()
        };
        for part in list.try_iter().map_err(|e| e.to_string())? {
            if let Some(text) = part.as_str() {
                parts.text.push_str(text);
                parts.is_plain = false;
                continue;
            }
            let kind = type_of(&part);
            parts.is_plain &= is_plain(&part);
            parts.weight = parts.weight.or(weight_in(&part));
            let text = text_in(&part, &kind);
            let missing = || format!("has a part of type {:?} without a text", shown(&kind));
            match kind.as_str() {
                kind if TEXT.contains(&kind) => parts.text.push_str(&text.ok_or_else(missing)?),
                kind if REASONING.contains(&kind) => {
                    parts.reasoning.push_str(&text.ok_or_else(missing)?);
                }
                "tool_call" => parts.calls.extend(calls_of(&text.ok_or_else(missing)?)?),
                kind if MEDIA.contains(&kind) => {
                    return Err(format!(
                        "has a part of type {kind:?}, and the models that are trained here take \
                         only text"
                    ));
                }
                kind => {
                    let kind = shown(&kind);
                    return Err(format!("has a part of the unknown type {kind:?}"));
                }
            }
        }
        Ok(parts)
    }
}

/// Whether a part is `{"type": "text", "text": ".."}`, perhaps with more.
fn is_plain(part: &Value) -> bool {
    let field = |key| part.get_attr(key).unwrap_or_default();
    field("type").as_str() == Some("text") && field("text").as_str().is_some()
}

/// The field of a part with another weight than 1.
fn weight_in(part: &Value) -> Option<&'static str> {
    let is_other = |key: &&str| {
        let weight = part.get_attr(key).unwrap_or_default();
        let is_given = !weight.is_undefined() && !weight.is_none();
        is_given && weight != Value::from(true) && weight != Value::from(1)
    };
    WEIGHTS.into_iter().find(is_other)
}

/// The type of a part. A part with a text and no type is a text.
fn type_of(part: &Value) -> String {
    let kind = part.get_attr("type").unwrap_or_default();
    match kind.as_str() {
        Some(kind) => kind.to_owned(),
        None if text_in(part, "text").is_some() => "text".to_owned(),
        None => kind.to_string(),
    }
}

fn text_in(part: &Value, kind: &str) -> Option<String> {
    let keys = ["text", "value", kind];
    keys.iter()
        .find_map(|key| Some(part.get_attr(key).ok()?.as_str()?.to_owned()))
}

/// What the parts of a content are read as, where that is not its text.
pub(crate) fn part_types(content: &Value) -> Vec<(&'static str, &'static str)> {
    let mut types = Vec::new();
    if content.kind() != ValueKind::Seq {
        return types;
    }
    for part in content.try_iter().into_iter().flatten() {
        let kind = type_of(&part);
        if let Some(name) = REASONING.iter().find(|name| **name == kind) {
            types.push((*name, "reasoning_content"));
        } else if kind == "tool_call" {
            types.push(("tool_call", "tool_calls"));
        }
    }
    types
}

/// The calls in JSON text, an object with `name` and `arguments` or a list of them, as
/// `tool_calls` has them. The error is the second part of a sentence about the message.
pub(crate) fn calls_of(text: &str) -> Result<Vec<Value>, String> {
    let value = json::value_of(text.trim()).map_err(|e| {
        let text = shown(&text.trim());
        format!("has a tool call that is not JSON ({e}): {text:?}")
    })?;
    let list = match value.kind() {
        ValueKind::Seq => value.try_iter().map_err(|e| e.to_string())?.collect(),
        _ => vec![value],
    };
    list.iter().map(as_function).collect()
}

/// A call or the description of a tool, inside of `{"type": "function", "function": ..}`.
pub(crate) fn as_function(value: &Value) -> Result<Value, String> {
    let has = |value: &Value, key: &str| {
        let field = value.get_attr(key);
        field.is_ok_and(|field| !field.is_undefined() && !field.is_none())
    };
    if has(value, "function") {
        return Ok(value.clone());
    }
    if !has(value, "name") {
        return Err("has a tool or tool call without a `name`".to_owned());
    }
    let fields = [
        ("type", Value::from("function")),
        ("function", value.clone()),
    ];
    Ok(fields.into_iter().collect())
}

/// The tool calls of a message, with arguments that are the JSON text of an object as this object.
/// `None` if there are no such arguments, or if the template does not take objects, which is asked only
/// where arguments are a text.
pub(super) fn with_objects(calls: &Value, takes_objects: impl Fn() -> bool) -> Option<Value> {
    if calls.kind() != ValueKind::Seq {
        return None;
    }
    let mut is_changed = false;
    let calls = calls.try_iter().ok()?.map(|call| {
        let changed = with_object(&call, &takes_objects);
        is_changed |= changed.is_some();
        changed.unwrap_or(call)
    });
    let calls: Vec<Value> = calls.collect();
    is_changed.then(|| calls.into())
}

fn with_object(call: &Value, takes_objects: &impl Fn() -> bool) -> Option<Value> {
    let function = call.get_attr("function").unwrap_or_default();
    if function.kind() == ValueKind::Map {
        return replaced(call, "function", with_object(&function, takes_objects)?);
    }
    let arguments = call.get_attr("arguments").ok()?;
    let text = arguments.as_str()?;
    if !takes_objects() {
        return None;
    }
    let object = json::value_of(text).ok()?;
    (object.kind() == ValueKind::Map).then(|| replaced(call, "arguments", object))?
}

/// A map with another value of a key.
fn replaced(map: &Value, key: &str, value: Value) -> Option<Value> {
    let mut fields = Vec::new();
    for name in map.try_iter().ok()? {
        let field = if name.as_str() == Some(key) {
            value.clone()
        } else {
            map.get_item(&name).ok()?
        };
        fields.push((name.to_string(), field));
    }
    Some(fields.into_iter().collect())
}

/// Whether a value is a list without elements.
pub(super) fn is_empty(value: &Value) -> bool {
    value.kind() == ValueKind::Seq && value.len() == Some(0)
}
