//! [`takes_objects`]: whether a template needs the arguments of tool calls as an object.
//!
//! OpenAI's interface has the arguments as JSON text. transformers gives the text to every template.
//! A template that writes arguments with `tojson` then encodes the text once more, so such a template
//! gets the object. A template that writes the text as it is, or tests for a text, gets the text.

use std::collections::BTreeMap;

use minijinja::value::{Value, merge_maps};
use minijinja::{Environment, context};

use super::engine;
use crate::text::chat::{Chat, Message};

/// The only key of the arguments that are tried.
const KEY: &str = "lisa_argument";

/// Whether arguments that are the JSON text of an object are given to this template as the object: the
/// template encodes the text once more, or writes the object and no text. Renders a short chat, at
/// most eight times.
pub(super) fn takes_objects(
    environment: &Environment<'_>,
    special: &BTreeMap<String, String>,
) -> bool {
    let written = |arguments: &Value| {
        let mut chats = chats(arguments).into_iter();
        chats.find_map(|chat| {
            let chat = chat.context(|_| true, || false);
            let end = context! { add_generation_prompt => false };
            let arguments = merge_maps([Value::from_serialize(special), chat, end]);
            let text = engine::render(environment, arguments).ok()?;
            text.contains(KEY).then_some(text)
        })
    };
    let text = Value::from(format!("{{\"{KEY}\": 1}}"));
    match written(&text) {
        Some(text) => text.contains(&format!("\\\"{KEY}")),
        None => written(&Value::from_serialize(BTreeMap::from([(KEY, 1)]))).is_some(),
    }
}

/// Chats with a tool call that has these arguments: the message has an empty text or none, and the
/// chat has no tools or one.
fn chats(arguments: &Value) -> Vec<Chat> {
    let object = |fields: Vec<(&'static str, Value)>| Value::from_iter(fields);
    let call = object(vec![
        // Mistral's templates need an id of nine characters.
        ("id", Value::from("lisacall1")),
        ("type", Value::from("function")),
        (
            "function",
            object(vec![
                ("name", Value::from("f")),
                ("arguments", arguments.clone()),
            ]),
        ),
    ]);
    let tool = object(vec![
        ("type", Value::from("function")),
        (
            "function",
            object(vec![
                ("name", Value::from("f")),
                ("description", Value::from("a")),
            ]),
        ),
    ]);
    let answer = Message::assistant("").with("tool_calls", vec![call]);
    let mut chats = Vec::new();
    for answer in [answer.clone(), answer.with("content", ())] {
        let chat = Chat::from([Message::user("a"), answer]);
        chats.extend([chat.clone(), chat.with_tools(vec![tool.clone()])]);
    }
    chats
}
