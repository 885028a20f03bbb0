//! [`roles`]: for which roles a template writes content that is a list of texts.
//!
//! transformers gives the list to every template. A template without a loop over it then fails, or
//! writes the list as Python prints it, so such a template gets the joined text.

use std::collections::BTreeMap;

use minijinja::value::{Value, merge_maps};
use minijinja::{Environment, context};

use super::engine;
use crate::text::chat::{Chat, Message};

/// The texts of the list that is tried.
const TEXTS: [&str; 2] = ["lisa first text", "lisa second text"];

/// The roles whose content may be a list: the template writes both texts of one, and not the list
/// itself. Renders a short chat for each role.
pub(super) fn roles(
    environment: &Environment<'_>,
    special: &BTreeMap<String, String>,
) -> Vec<&'static str> {
    let user = || Message::user("a");
    let assistant = || Message::assistant("b");
    let chats = [
        ("system", vec![list("system"), user(), assistant()]),
        ("developer", vec![list("developer"), user(), assistant()]),
        ("user", vec![list("user"), assistant()]),
        ("assistant", vec![user(), list("assistant")]),
        ("tool", vec![user(), assistant(), list("tool")]),
    ];
    let writes = |messages: Vec<Message>| {
        let chat = Chat::from(messages).context(|_| true, || false);
        let end = context! { add_generation_prompt => false };
        let arguments = merge_maps([Value::from_serialize(special), chat, end]);
        let text = engine::render(environment, arguments).unwrap_or_default();
        let is_printed = ["'type'", "\"type\""].iter().any(|key| text.contains(key));
        !is_printed && TEXTS.iter().all(|part| text.contains(part))
    };
    let mut roles = Vec::new();
    for (role, messages) in chats {
        if writes(messages) {
            roles.push(role);
        }
    }
    roles
}

/// A message of this role whose content is a list of texts.
fn list(role: &str) -> Message {
    let part =
        |text: &str| BTreeMap::from([("type", "text".to_owned()), ("text", text.to_owned())]);
    Message::new(role, "").with("content", TEXTS.map(part))
}
