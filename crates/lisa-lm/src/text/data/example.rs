//! [`Example`]: one line of training data, told apart by its keys.

use serde_json::{Map, Value};

use crate::files::shown;
use crate::text::chat::Message;

/// What an example holds.
///
/// # Example
///
/// ```
/// use lisa_lm::{Content, Example, Message};
///
/// let content = |line| Example::from_json(line).map(|example| example.content);
/// let chat = content(r#"{"instruction": "Add.", "input": "1 2", "output": "3"}"#)?;
/// let messages = vec![Message::user("Add.\n\n1 2"), Message::assistant("3")];
/// assert_eq!(chat, Content::Chat(messages));
/// let pair = content(r#"{"prompt": "1 + 1 =", "completion": " 2"}"#)?;
/// assert_eq!(pair, Content::Pair { prompt: "1 + 1 =".into(), completion: " 2".into() });
/// assert_eq!(content(r#"{"text": "1 2 3"}"#)?, Content::Text("1 2 3".into()));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A chat, written down with the chat template.
    Chat(Vec<Message>),
    /// Two texts that follow each other as they stand.
    Pair {
        /// What comes before the answer.
        prompt: String,
        /// The answer.
        completion: String,
    },
    /// Plain text.
    Text(String),
}

/// One example: its content and, where there is one, the answer to compare a generation with.
///
/// # Example
///
/// ```
/// use lisa_lm::Example;
///
/// let example = Example::from_json(r#"{"prompt": "1 + 1 =", "completion": " 2"}"#)?;
/// assert_eq!(example.answer.as_deref(), Some("2"));
/// assert!(Example::from_json(r#"{"question": "?"}"#).unwrap_err().contains("question"));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// What to train on.
    pub content: Content,
    /// The last message of a chat if it is the assistant's, the `output` or the `completion`; none
    /// for plain text.
    pub answer: Option<String>,
}

impl Example {
    /// The example in one line's JSON object.
    ///
    /// # Errors
    ///
    /// The reason, in words: not an object, no known keys, a key that is missing beside another, a
    /// value of the wrong type, an empty answer or text, a chat in which the assistant says nothing.
    pub fn from_json(line: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(line).map_err(|e| format!("not JSON: {e}"))?;
        let Value::Object(object) = value else {
            return Err(format!("{} and not an object", kind_of(&value)));
        };
        if let Some(messages) = object.get("messages") {
            return Self::chat(messages_of(messages)?);
        }
        if object.contains_key("instruction") {
            let mut user = required(&object, "instruction")?.to_owned();
            let input = optional(&object, "input")?.unwrap_or_default();
            if !input.is_empty() {
                user.push_str("\n\n");
                user.push_str(input);
            }
            let system = optional(&object, "system")?.filter(|s| !s.is_empty());
            let mut messages: Vec<_> = system
                .map(|s| Message::new("system", s))
                .into_iter()
                .collect();
            messages.push(Message::user(user));
            messages.push(Message::assistant(required(&object, "output")?));
            return Self::chat(messages);
        }
        if object.contains_key("prompt") {
            let prompt = required(&object, "prompt")?.to_owned();
            let completion = required(&object, "completion")?.to_owned();
            if completion.is_empty() {
                return Err("the completion is empty".to_owned());
            }
            let answer = Some(completion.trim().to_owned());
            return Ok(Self {
                content: Content::Pair { prompt, completion },
                answer,
            });
        }
        if object.contains_key("text") {
            let text = required(&object, "text")?.to_owned();
            if text.is_empty() {
                return Err("the text is empty".to_owned());
            }
            return Ok(Self {
                content: Content::Text(text),
                answer: None,
            });
        }
        let keys: Vec<&str> = object.keys().map(String::as_str).take(20).collect();
        let keys = shown(&format!("{keys:?}"));
        Err(format!(
            "the keys are {keys}, but `messages`, `instruction` and `output`, `prompt` and \
             `completion`, or `text` are expected"
        ))
    }

    fn chat(messages: Vec<Message>) -> Result<Self, String> {
        let says = |m: &Message| m.role == "assistant" && !m.content.trim().is_empty();
        if !messages.iter().any(says) {
            return Err("the assistant says nothing, so there is no answer to learn".to_owned());
        }
        let last = messages.last().filter(|m| says(m));
        let answer = last.map(|m| m.content.trim().to_owned());
        Ok(Self {
            content: Content::Chat(messages),
            answer,
        })
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn optional<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("`{key}` is {} and not a string", kind_of(other))),
    }
}

fn required<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    optional(object, key)?.ok_or_else(|| format!("`{key}` is missing"))
}

fn messages_of(value: &Value) -> Result<Vec<Message>, String> {
    let Value::Array(list) = value else {
        return Err(format!("`messages` is {} and not a list", kind_of(value)));
    };
    let message = |(i, value): (usize, &Value)| {
        let role = value["role"]
            .as_str()
            .ok_or_else(|| format!("message {i} has no `role`"))?;
        let content = match &value["content"] {
            Value::String(text) => text.clone(),
            Value::Array(parts) => parts
                .iter()
                .map(|part| part["text"].as_str())
                .collect::<Option<String>>()
                .ok_or_else(|| format!("message {i} has parts that are not text"))?,
            other => {
                return Err(format!(
                    "the `content` of message {i} is {} and not a string",
                    kind_of(other)
                ));
            }
        };
        Ok(Message::new(role, content))
    };
    list.iter().enumerate().map(message).collect()
}
