//! [`Message`]: one message of a chat.
//!
//! A message keeps its whole JSON object, in the order of its keys, so that a template sees every
//! field: `tool_calls`, `reasoning_content`, and fields that this crate does not know.

use minijinja::value::{Value, ValueKind};
use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::parts::{Parts, as_function, is_empty, with_objects};

/// One message of a chat: a JSON object with a `role` and usually a `content`.
///
/// # Example
///
/// ```
/// use lisa_lm::text::Message;
///
/// let message = Message::user("Two and two?");
/// assert_eq!((message.role(), message.content()), ("user", Some("Two and two?")));
///
/// let line = r#"{"role":"assistant","content":null,"tool_calls":[{"name":"add"}]}"#;
/// let call: Message = serde_json::from_str(line)?;
/// assert_eq!(call.content(), None);
/// assert_eq!(serde_json::to_string(&call)?, line);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    fields: Vec<(String, Value)>,
    /// The text of a content that is a list of texts.
    text: Option<String>,
}

impl Message {
    /// A message with a role: `system`, `user`, `assistant`, or another one that the template
    /// knows.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let field = |name: &str, text: String| (name.to_owned(), Value::from(text));
        Self {
            fields: vec![field("role", role.into()), field("content", content.into())],
            text: None,
        }
    }

    /// A message of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// A message of the assistant.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }

    /// Sets a field, such as `reasoning_content`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.text.take_if(|_| name == "content");
        self.set(name, Value::from_serialize(value));
        self
    }

    /// The role of the speaker.
    #[must_use]
    pub fn role(&self) -> &str {
        self.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// The text of the message; `None` if the field is absent or null, as in a message with tool
    /// calls. Of a list of texts, all of them, joined.
    #[must_use]
    pub fn content(&self) -> Option<&str> {
        let text = self.get("content").and_then(Value::as_str);
        text.or(self.text.as_deref())
    }

    /// Whether the content is a list of texts.
    pub(in crate::text) fn has_list(&self) -> bool {
        self.text.is_some()
    }

    /// Whether the message has text.
    pub(in crate::text) fn has_text(&self) -> bool {
        let content = self.content();
        content.is_some_and(|text| !text.trim().is_empty())
    }

    /// Whether the message has reasoning.
    pub(in crate::text) fn has_reasoning(&self) -> bool {
        let reasoning = self.reasoning().and_then(Value::as_str);
        reasoning.is_some_and(|text| !text.trim().is_empty())
    }

    /// The message without its reasoning.
    pub(in crate::text) fn without_reasoning(&self) -> Self {
        self.without(&REASONING)
    }

    /// The message without its tool calls.
    pub(in crate::text) fn without_calls(&self) -> Self {
        self.without(&CALLS)
    }

    /// The message without these fields. If it has no tool calls then, it has a text, if only an empty
    /// one, because templates need one.
    fn without(&self, fields: &[&str]) -> Self {
        let mut message = self.clone();
        let is_kept = |(key, _): &(String, Value)| !fields.contains(&key.as_str());
        message.fields.retain(is_kept);
        if !self.has_list() && !message.calls() {
            message.set("content", Value::from(self.content().unwrap_or_default()));
        }
        message
    }

    /// Whether the message has tool calls.
    pub(in crate::text) fn calls(&self) -> bool {
        self.get("tool_calls").is_some_and(Value::is_true)
    }

    fn reasoning(&self) -> Option<&Value> {
        let mut given = REASONING.iter().filter_map(|name| self.get(name));
        given.find(|value| !value.is_none())
    }

    /// Converts a JSON object to a message. The error is the second part of a sentence about the
    /// message.
    pub(in crate::text) fn from_value(value: &Value) -> Result<Self, String> {
        if value.kind() != ValueKind::Map {
            return Err("is not an object".to_owned());
        }
        let mut fields = Vec::new();
        for key in value.try_iter().map_err(|e| e.to_string())? {
            let field = value.get_item(&key).unwrap_or_default();
            fields.push((key.to_string(), field));
        }
        Self::from_fields(fields)
    }

    /// A message with these fields. A list of texts stays a list. Of a list with other parts, the
    /// texts become one text, reasoning becomes `reasoning_content`, and tool calls become
    /// `tool_calls`. Content may be absent or null if there is another field.
    pub(in crate::text) fn from_fields(fields: Vec<(String, Value)>) -> Result<Self, String> {
        let mut message = Self { fields, text: None };
        if message.get("role").and_then(Value::as_str).is_none() {
            return Err("has no `role`".to_owned());
        }
        let content = message.get("content").filter(|content| !content.is_none());
        let parts = match content {
            Some(content) if content.kind() == ValueKind::Seq => Some(Parts::new(content)?),
            Some(content) if content.as_str().is_some() => None,
            Some(_) => return Err("has a `content` that is not a string".to_owned()),
            None if message.has_more() => None,
            None => return Err("has no `content`".to_owned()),
        };
        if let Some(parts) = parts {
            if let Some(key) = parts.weight.filter(|_| message.role() == "assistant") {
                return Err(format!(
                    "has a part with a `{key}` of its own, but a weight is that of a whole message"
                ));
            }
            if parts.is_plain {
                message.text = Some(parts.text);
            } else {
                message.set("content", Value::from(parts.text));
            }
            if !parts.reasoning.is_empty() && message.reasoning().is_none() {
                message.set("reasoning_content", Value::from(parts.reasoning));
            }
            if !parts.calls.is_empty() && !message.calls() {
                message.set("tool_calls", parts.calls.into());
            }
        }
        if let Some(call) = message.get("function_call").filter(|call| call.is_true())
            && !message.calls()
        {
            // The name of the field in the first version of OpenAI's interface.
            let call = as_function(call)?;
            message.set("tool_calls", vec![call].into());
        }
        Ok(message)
    }

    /// Whether a field other than role and content has a value.
    fn has_more(&self) -> bool {
        let is_own = |key: &str| matches!(key, "role" | "content");
        let mut fields = self.fields.iter();
        fields.any(|(key, value)| !is_own(key) && !value.is_none())
    }

    /// The names of the fields that are not null.
    pub(in crate::text) fn fields(&self) -> impl Iterator<Item = &str> {
        let given = self.fields.iter().filter(|(_, value)| !value.is_none());
        given.map(|(key, _)| key.as_str())
    }

    pub(in crate::text) fn get(&self, name: &str) -> Option<&Value> {
        let mut fields = self.fields.iter();
        fields.find(|(key, _)| key == name).map(|(_, value)| value)
    }

    fn set(&mut self, name: &str, value: Value) {
        match self.fields.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = value,
            None => self.fields.push((name.to_owned(), value)),
        }
    }
}

/// The names of the field with the assistant's reasoning. Most templates read the first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
/// The names of the field with tool calls. The second is that of the first version of OpenAI's
/// interface.
const CALLS: [&str; 2] = ["tool_calls", "function_call"];

impl Message {
    /// The fields that a template sees, as in transformers: those that are not null, with the
    /// reasoning under the names of all templates. An empty list of tool calls is left out. A list of
    /// texts is joined unless the template `takes_list`. Arguments of tool calls that are JSON text
    /// become an object if the template `takes_objects`.
    pub(super) fn for_template(&self, takes_list: bool, takes_objects: impl Fn() -> bool) -> Value {
        let mut message = self.clone();
        if let Some(text) = message.text.take_if(|_| !takes_list) {
            message.set("content", Value::from(text));
        }
        let is_given = |key: &str, value: &Value| {
            !value.is_none() && (key != "tool_calls" || !is_empty(value))
        };
        message.fields.retain(|(key, value)| is_given(key, value));
        let calls = message.get("tool_calls");
        if let Some(calls) = calls.and_then(|calls| with_objects(calls, takes_objects)) {
            message.set("tool_calls", calls);
        }
        if let Some(reasoning) = message.reasoning().cloned() {
            if message.get("thinking").is_none() {
                let thinking = ("thinking".to_owned(), reasoning.clone());
                message.fields.insert(0, thinking);
            }
            message.set("reasoning_content", reasoning);
        }
        message.fields.into_iter().collect()
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len()))?;
        for (key, value) in &self.fields {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_value(&value).map_err(|what| D::Error::custom(format!("the message {what}")))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// How often the template is asked whether it takes objects, with these arguments.
    fn asked(arguments: &str) -> usize {
        let calls = format!(r#"[{{"function": {{"name": "f", "arguments": {arguments}}}}}]"#);
        let calls: Value = serde_json::from_str(&calls).unwrap();
        let count = Cell::new(0);
        let message = Message::assistant("").with("tool_calls", calls);
        message.for_template(false, || {
            count.set(count.get() + 1);
            false
        });
        count.get()
    }

    #[test]
    fn arguments_are_parsed_only_if_the_template_takes_objects() {
        // It is asked before the text is known to be no JSON.
        assert_eq!(asked(r#""no JSON""#), 1);
        assert_eq!(asked(r#""{}""#), 1);
        assert_eq!(asked("{}"), 0);
    }
}
