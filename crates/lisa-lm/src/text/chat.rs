//! [`Message`] and [`Chat`]: the input of a chat template.
//!
//! A message keeps its whole JSON object, in the order of its keys, so that a template sees every
//! field: `tool_calls`, `reasoning_content`, and fields that this crate does not know.

use minijinja::value::{Value, ValueKind};
use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
}

impl Message {
    /// A message with a role: `system`, `user`, `assistant`, or another one that the template
    /// knows.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let field = |name: &str, text: String| (name.to_owned(), Value::from(text));
        Self {
            fields: vec![field("role", role.into()), field("content", content.into())],
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
        self.set(name, Value::from_serialize(value));
        self
    }

    /// The role of the speaker.
    #[must_use]
    pub fn role(&self) -> &str {
        self.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// The text of the message; `None` if the field is absent or null, as in a message with tool
    /// calls.
    #[must_use]
    pub fn content(&self) -> Option<&str> {
        self.get("content").and_then(Value::as_str)
    }

    /// Whether this is a message of the assistant that has a text or a tool call.
    pub(super) fn is_answer(&self) -> bool {
        let says = self.content().is_some_and(|text| !text.trim().is_empty());
        self.role() == "assistant" && (says || self.calls())
    }

    fn calls(&self) -> bool {
        self.get("tool_calls").is_some_and(Value::is_true)
    }

    /// Converts a JSON value to a message. A list of text parts becomes one text; only a message
    /// with tool calls may be without content. The error is the second part of a sentence about the
    /// message.
    pub(super) fn from_value(value: &Value) -> Result<Self, &'static str> {
        if value.kind() != ValueKind::Map {
            return Err("is not an object");
        }
        let mut message = Self { fields: Vec::new() };
        for key in value.try_iter().map_err(|_| "is not an object")? {
            let field = value.get_item(&key).unwrap_or_default();
            message.fields.push((key.to_string(), field));
        }
        if message.get("role").and_then(Value::as_str).is_none() {
            return Err("has no `role`");
        }
        match message.get("content") {
            Some(content) if content.kind() == ValueKind::Seq => {
                let text = text_of_parts(content).ok_or("has parts that are not text")?;
                message.set("content", Value::from(text));
            }
            Some(content) if content.as_str().is_some() => {}
            None if message.calls() => {}
            Some(content) if content.is_none() && message.calls() => {}
            Some(content) if !content.is_none() => {
                return Err("has a `content` that is not a string");
            }
            _ => return Err("has no `content`"),
        }
        Ok(message)
    }

    fn get(&self, name: &str) -> Option<&Value> {
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

/// Joins `[{"type": "text", "text": "a"}, ..]` into one text.
fn text_of_parts(parts: &Value) -> Option<String> {
    let mut all = String::new();
    for part in parts.try_iter().ok()? {
        all.push_str(part.get_attr("text").ok()?.as_str()?);
    }
    Some(all)
}

/// The names of the field with the assistant's reasoning. Most templates read the first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

impl From<&Message> for Value {
    /// The fields that a template sees. Reasoning is given under the names of all templates, as in
    /// transformers.
    fn from(message: &Message) -> Self {
        let mut message = message.clone();
        let mut given = REASONING.iter().filter_map(|name| message.get(name));
        if let Some(reasoning) = given.find(|value| !value.is_none()).cloned() {
            if message.get("thinking").is_none() {
                message.set("thinking", reasoning.clone());
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

/// Messages, with the tools and documents that are given to the template.
///
/// # Example
///
/// ```
/// use lisa_lm::text::{Chat, Message};
///
/// let chat = Chat::from([Message::user("Two and two?"), Message::assistant("four")]);
/// assert_eq!(chat.before(1).messages, [Message::user("Two and two?")]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chat {
    /// The messages, in order.
    pub messages: Vec<Message>,
    tools: Option<Value>,
    documents: Option<Value>,
}

impl Chat {
    /// Sets the descriptions of the tools, a list of JSON schemas.
    #[must_use]
    pub fn with_tools(mut self, tools: impl Serialize) -> Self {
        self.tools = present(Value::from_serialize(tools));
        self
    }

    /// Sets the documents to answer from, a list of objects with `title` and `text`.
    #[must_use]
    pub fn with_documents(mut self, documents: impl Serialize) -> Self {
        self.documents = present(Value::from_serialize(documents));
        self
    }

    /// The chat with its first `count` messages only.
    ///
    /// # Panics
    ///
    /// If there are fewer messages than `count`.
    #[must_use]
    pub fn before(&self, count: usize) -> Self {
        Self {
            messages: self.messages[..count].to_vec(),
            tools: self.tools.clone(),
            documents: self.documents.clone(),
        }
    }

    /// The variables of a template: `messages`, `tools` and `documents`.
    pub(super) fn context(&self) -> Value {
        let messages: Vec<Value> = self.messages.iter().map(Value::from).collect();
        minijinja::context! { messages, tools => &self.tools, documents => &self.documents }
    }
}

fn present(value: Value) -> Option<Value> {
    (!value.is_none() && !value.is_undefined()).then_some(value)
}

impl From<Vec<Message>> for Chat {
    fn from(messages: Vec<Message>) -> Self {
        Self {
            messages,
            ..Self::default()
        }
    }
}

impl<const N: usize> From<[Message; N]> for Chat {
    fn from(messages: [Message; N]) -> Self {
        Self::from(Vec::from(messages))
    }
}

impl FromIterator<Message> for Chat {
    fn from_iter<I: IntoIterator<Item = Message>>(messages: I) -> Self {
        Self::from(Vec::from_iter(messages))
    }
}
