//! The messages of a chat: in the form of transformers (`role`, `content`), and in the form of
//! ShareGPT (`from`, `value`).

use minijinja::value::{Value, ValueKind};

use super::mapping::RowForm;
use super::object::Object;
use crate::files::shown;
use crate::text::chat::{Message, calls_of, part_types};

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
        let is_sharegpt = is_sharegpt || has(&value, "from");
        let message = if is_sharegpt {
            from_sharegpt(&value, form)
        } else {
            Message::from_value(&value)
        };
        messages.push(message.map_err(|what| format!("message {} {what}", at + 1))?);
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

fn has(value: &Value, key: &str) -> bool {
    let field = value.get_attr(key);
    field.is_ok_and(|field| !field.is_undefined() && !field.is_none())
}

/// The names of the roles in ShareGPT data, and what they are for a chat template.
const ROLES: [(&str, &str); 15] = [
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
    ("function_call", CALL),
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
        let calls = calls_of(text.ok_or("is a function_call without a text")?)?;
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
