//! [`Example`]: one line of training data. The keys of the line determine its form.

use minijinja::value::{Value, ValueKind};

use crate::files::shown;
use crate::place::Place;
use crate::text::chat::{Chat, Message};

/// The content of an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A chat, which is rendered with the chat template.
    Chat(Chat),
    /// A prompt and its completion, concatenated unchanged.
    Pair {
        /// The text before the completion.
        prompt: String,
        /// The text to learn.
        completion: String,
    },
    /// Plain text.
    Text(String),
}

/// One example, and, if it has one, the answer to compare a generated answer with.
///
/// # Example
///
/// ```
/// use lisa_lm::text::{Chat, Content, Example, Message};
///
/// let example = Example::from_json(r#"{"instruction": "Add.", "input": "1 2", "output": "3"}"#)?;
/// let chat = Chat::from([Message::user("Add.\n\n1 2"), Message::assistant("3")]);
/// assert_eq!(example.content, Content::Chat(chat));
/// assert_eq!(example.answer.as_deref(), Some("3"));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// What to train on.
    pub content: Content,
    /// The last message of a chat if it is the assistant's, the `output` or the `completion`,
    /// without leading and trailing whitespace; `None` for plain text.
    pub answer: Option<String>,
    /// Where it was read; `None` if it is not from a file.
    pub place: Option<Place>,
}

impl Example {
    /// Reads the JSON object of one line.
    ///
    /// | keys | content |
    /// |---|---|
    /// | `messages`, perhaps `tools`, `documents` | a chat |
    /// | `instruction`, `output`, perhaps `input`, `system` | a chat of one turn |
    /// | `prompt`, `completion` | a pair |
    /// | `text` | text |
    ///
    /// # Errors
    ///
    /// The reason, in words: not an object, no known keys, a missing key, a value of the wrong
    /// type, an empty answer or text, a chat without a message of the assistant.
    pub fn from_json(line: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(line).map_err(|e| format!("not JSON: {e}"))?;
        if value.kind() != ValueKind::Map {
            return Err(format!("{} and not an object", kind_of(&value)));
        }
        let line = Line(value);
        if line.has("messages") {
            let messages = messages_of(&line.get("messages"))?;
            let chat = Chat::from(messages)
                .with_tools(line.get("tools"))
                .with_documents(line.get("documents"));
            return Self::chat(chat);
        }
        if line.has("instruction") {
            let mut user = line.required("instruction")?;
            let input = line.optional("input")?.unwrap_or_default();
            if !input.is_empty() {
                user.push_str("\n\n");
                user.push_str(&input);
            }
            let system = line.optional("system")?.filter(|text| !text.is_empty());
            let system = system.map(|text| Message::new("system", text));
            let turn = [
                Message::user(user),
                Message::assistant(line.required("output")?),
            ];
            return Self::chat(system.into_iter().chain(turn).collect());
        }
        if line.has("prompt") {
            let prompt = line.required("prompt")?;
            let completion = line.required("completion")?;
            if completion.is_empty() {
                return Err("the completion is empty".to_owned());
            }
            let answer = Some(completion.trim().to_owned());
            return Ok(Self {
                content: Content::Pair { prompt, completion },
                answer,
                place: None,
            });
        }
        if line.has("text") {
            let text = line.required("text")?;
            if text.is_empty() {
                return Err("the text is empty".to_owned());
            }
            return Ok(Self {
                content: Content::Text(text),
                answer: None,
                place: None,
            });
        }
        let keys = line.0.try_iter().into_iter().flatten();
        let keys: Vec<String> = keys.map(|key| key.to_string()).take(20).collect();
        let keys = shown(&format!("{keys:?}"));
        Err(format!(
            "the keys are {keys}, but `messages`, `instruction` and `output`, `prompt` and \
             `completion`, or `text` are expected"
        ))
    }

    fn chat(chat: Chat) -> Result<Self, String> {
        if !chat.messages.iter().any(Message::is_answer) {
            return Err("the chat has no answer of the assistant to train on".to_owned());
        }
        let last = chat.messages.last().filter(|message| message.is_answer());
        let answer = last.and_then(Message::content);
        Ok(Self {
            answer: answer.map(|text| text.trim().to_owned()),
            content: Content::Chat(chat),
            place: None,
        })
    }
}

/// The object of a line.
struct Line(Value);

impl Line {
    fn get(&self, key: &str) -> Value {
        self.0.get_attr(key).unwrap_or_default()
    }

    fn has(&self, key: &str) -> bool {
        !self.get(key).is_undefined()
    }

    fn optional(&self, key: &str) -> Result<Option<String>, String> {
        let value = self.get(key);
        match value.as_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None if value.is_none() || value.is_undefined() => Ok(None),
            None => Err(format!("`{key}` is {} and not a string", kind_of(&value))),
        }
    }

    fn required(&self, key: &str) -> Result<String, String> {
        self.optional(key)?
            .ok_or_else(|| format!("`{key}` is missing"))
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Bool => "a boolean",
        ValueKind::Number => "a number",
        ValueKind::String => "a string",
        ValueKind::Seq => "a list",
        ValueKind::Map => "an object",
        _ => "null",
    }
}

fn messages_of(value: &Value) -> Result<Vec<Message>, String> {
    if value.kind() != ValueKind::Seq {
        return Err(format!("`messages` is {} and not a list", kind_of(value)));
    }
    let list = value.try_iter().map_err(|e| e.to_string())?;
    let message = |(at, value): (usize, Value)| {
        Message::from_value(&value).map_err(|what| format!("message {at} {what}"))
    };
    list.enumerate().map(message).collect()
}
