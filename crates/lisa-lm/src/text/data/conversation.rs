//! The messages of a chat: in the form of transformers (`role`, `content`), and in the form of
//! ShareGPT (`from`, `value`).

use minijinja::value::{Value, ValueKind};

use super::mapping::RowForm;
use super::object::Object;
use crate::files::shown;
use crate::text::chat::{Message, calls_of, part_types};
use crate::text::weight::{is_like_weight, weight_of};

/// The messages of a key.
pub(super) fn messages(
    row: &mut Object,
    key: &str,
    form: &mut RowForm,
) -> Result<Vec<Message>, String> {
    let list = row.list(key)?;
    let list = list.ok_or_else(|| format!("`{key}` is missing"))?;
    let is_sharegpt = form.name == "ShareGPT";
    let mut messages = Vec::new();
    for (at, value) in list.try_iter().map_err(|e| e.to_string())?.enumerate() {
        let role = value.get_attr("role").unwrap_or_default();
        let is_call = role.as_str().is_some_and(|role| CALLS.contains(&role));
        let message = if is_sharegpt || is_call || has(&value, "from") {
            from_sharegpt(&value, form)
        } else {
            Message::from_value(&value)
        };
        let message = message.map_err(|what| format!("message {} {what}", at + 1))?;
        for field in message.fields().filter(|field| is_like_weight(field)) {
            form.ignores(field);
        }
        if role_of(&value).as_deref() == Some(SWIFT_CALL) {
            add_call(&mut messages, message);
        } else {
            messages.push(message);
        }
        for (from, to) in part_types(&value.get_attr("content").unwrap_or_default()) {
            form.reads(from, to);
        }
    }
    // The role of a result, where calls have this field.
    let is_call = |message: &Message| message.get("function_call").is_some_and(Value::is_true);
    if messages.iter().any(is_call) {
        for message in messages.iter_mut().filter(|m| m.role() == "function") {
            *message = message.clone().with("role", "tool");
            form.reads("function", "tool");
        }
    }
    Ok(messages)
}

/// The role of a call in the data of ms-swift, where calls that follow each other are one message.
const SWIFT_CALL: &str = "tool_call";
/// The roles of calls and their results that no chat template knows: they are read as in ShareGPT,
/// also with `role` and `content`.
const CALLS: [&str; 3] = [SWIFT_CALL, "tool_response", "function_call"];

/// The role of a message in either form.
fn role_of(value: &Value) -> Option<String> {
    let roles = ["from", "role"].map(|key| value.get_attr(key).unwrap_or_default());
    roles
        .iter()
        .find_map(|role| Some(role.as_str()?.to_owned()))
}

/// Adds a call of ms-swift. It belongs to the call before it, whose weight is that of both, or to
/// the text of the assistant before it if neither has a weight.
fn add_call(messages: &mut Vec<Message>, call: Message) {
    let has_none = |message: &Message| weight_of(message) == Ok(None);
    let last = messages
        .last_mut()
        .filter(|last| last.role() == "assistant");
    let last = last.filter(|last| last.calls() || has_none(last) && has_none(&call));
    match last {
        Some(last) => {
            let own = last.get("tool_calls").into_iter();
            let calls = own.chain(call.get("tool_calls"));
            let calls: Vec<Value> = calls
                .filter_map(|list| list.try_iter().ok())
                .flatten()
                .collect();
            *last = last.clone().with("tool_calls", calls);
        }
        None => messages.push(call),
    }
}

fn has(value: &Value, key: &str) -> bool {
    let field = value.get_attr(key);
    field.is_ok_and(|field| !field.is_undefined() && !field.is_none())
}

/// The names of the roles in the data of ShareGPT and of ms-swift, and what they are for a chat
/// template.
const ROLES: [(&str, &str); 17] = [
    ("human", "user"),
    ("user", "user"),
    ("gpt", "assistant"),
    ("chatgpt", "assistant"),
    ("bing", "assistant"),
    ("bard", "assistant"),
    ("model", "assistant"),
    ("bot", "assistant"),
    ("assistant", "assistant"),
    ("system", "system"),
    ("developer", "developer"),
    ("observation", "tool"),
    ("tool", "tool"),
    ("function", "tool"),
    ("tool_response", "tool"),
    ("function_call", CALL),
    (SWIFT_CALL, CALL),
];
const CALL: &str = "assistant with tool_calls";

/// The error is the second part of a sentence about the message.
fn from_sharegpt(value: &Value, form: &mut RowForm) -> Result<Message, String> {
    if value.kind() != ValueKind::Map {
        return Err("is not an object".to_owned());
    }
    let mut fields = Vec::new();
    let (mut role, mut content) = (None, None);
    for key in value.try_iter().map_err(|e| e.to_string())? {
        let field = value.get_item(&key).unwrap_or_default();
        let (names, own) = match key.as_str().unwrap_or_default() {
            "from" | "role" => ("`from` and `role`", &mut role),
            "value" | "content" => ("`value` and `content`", &mut content),
            other => {
                fields.push((other.to_owned(), field));
                continue;
            }
        };
        if field.is_none() {
            continue;
        }
        if own
            .replace(field.clone())
            .is_some_and(|other| other != field)
        {
            return Err(format!("has both {names}, and they differ"));
        }
    }
    let Some(role) = role.as_ref().and_then(Value::as_str) else {
        return Err("has no `from`".to_owned());
    };
    let known = ROLES.iter().find(|(name, _)| *name == role);
    let Some((name, mapped)) = known else {
        return Err(format!(
            "is from {:?}, which is no known role",
            shown(&role)
        ));
    };
    if name != mapped {
        form.reads(name, mapped);
    }
    let (role, content) = if *mapped == CALL {
        let text = content.as_ref().and_then(Value::as_str);
        let missing = || format!("is a {name} without a text");
        let calls = calls_of(text.ok_or_else(missing)?)?;
        fields.push(("tool_calls".to_owned(), calls.into()));
        ("assistant", Some(Value::from("")))
    } else {
        (*mapped, content)
    };
    let own = [("role", Some(Value::from(role))), ("content", content)];
    let own = own
        .into_iter()
        .filter_map(|(key, field)| Some((key.to_owned(), field?)));
    Message::from_fields(own.chain(fields).collect())
}
