//! [`Example`]: one row of training data. The keys of the row determine its form.

use minijinja::value::Value;

use super::columns::Columns;
use super::content::Content;
use super::form::content_of;
use super::mapping::Mapping;
use super::object::Object;
use crate::files::shown;
use crate::place::Place;
use crate::text::chat::{Chat, Message};
use crate::text::json;

/// One example, and its answer if it has one, to compare a generated answer with.
///
/// The keys of a row determine its form, in this order:
///
/// | keys | content |
/// |---|---|
/// | `messages` | a chat, as for transformers |
/// | `conversations` or `conversation` | a chat in the form of ShareGPT |
/// | a request and an answer, perhaps `history` | a chat of one turn, after those of `history` |
/// | `prompt` and `completion`: texts | a pair |
/// | `prompt` and `completion`: lists of messages | a chat; only the completion is in the loss |
/// | `text` | text |
///
/// All rows except text may also have `system` (or `system_prompt`), `tools`, `documents` and
/// `chat_template_kwargs`. A pair may have `history`, too. A pair uses these keys only if it is
/// rendered as a chat ([`into_chat`](Self::into_chat)).
///
/// A request is `instruction`, `question`, `query`, `prompt` or `input`, perhaps with `question`,
/// `query`, `input` or `context`, which follow it after an empty line. An answer is `output`,
/// `response`, `answer` or `completion`. So the forms of Alpaca, Dolly, GSM8K and MetaMathQA are read.
///
/// - A **message** is its JSON object with all fields, and is given to the chat template. If
///   `content` is a list of parts of the type `text`, a template that writes lists gets the list,
///   and another template gets the joined texts. In other lists, texts (`text` or `value`) are
///   joined, parts of the type `reasoning` become `reasoning_content`, and parts of the type
///   `tool_call` become `tool_calls`.
/// - In the form of **ShareGPT**, `from` and `value` are role and content. `human` becomes `user`,
///   `gpt` becomes `assistant`, `observation` becomes `tool`, and `function_call`, whose value is
///   JSON text, becomes a message of the assistant with `tool_calls`. Tools without `function` are
///   put into `{"type": "function", "function": ..}`.
/// - The roles of **ms-swift**, `tool_call` and `tool_response`, are read as `function_call` and
///   `observation`, in both forms. Calls that follow each other, or a text of the assistant, are one
///   message with it.
/// - In a chat with the field **`function_call`**, which becomes `tool_calls`, the role `function`
///   becomes `tool`. Arguments of tool calls may be JSON text. A template that would encode the text
///   once more gets the object.
/// - `system` is the first message if the chat has none. `tools`, `documents` and lists of messages
///   may be JSON text. `chat_template_kwargs` are variables for the template. A null counts as an
///   absent key, and so does an empty list of tools or documents.
/// - Rows with `chosen` and `rejected`, or with a boolean `label`, are refused: they are for
///   preference training.
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
    /// The last message of a chat if it is the assistant's, or the completion, without leading and
    /// trailing whitespace; `None` for plain text and for an empty answer.
    pub answer: Option<String>,
    /// Where it was read; `None` if it is not from a file.
    pub place: Option<Place>,
}

impl Example {
    /// Reads the JSON object of one row.
    ///
    /// # Errors
    ///
    /// The reason, in words: not an object, no known keys, a missing key, a value of the wrong
    /// type, an empty text, a chat without a message of the assistant. An empty answer is read;
    /// [`EmptyAnswers`](crate::text::EmptyAnswers) says what becomes of it when it is encoded.
    pub fn from_json(row: &str) -> Result<Self, String> {
        let row = json::value_of(row).map_err(|e| format!("not JSON: {e}"))?;
        Self::from_row(&row, &Columns::default(), &mut Mapping::default())
    }

    /// Converts a pair to a chat of one turn, which the chat template renders. The chat begins with
    /// the system message and the history of the row, and has its tools, documents and variables.
    /// Other examples are unchanged.
    #[must_use]
    pub fn into_chat(mut self) -> Self {
        if let Content::Pair {
            prompt,
            completion,
            before: mut chat,
        } = self.content
        {
            chat.messages.extend([
                Message::user(prompt.trim()),
                Message::assistant(completion.trim()),
            ]);
            self.content = Content::Chat(chat);
        }
        self
    }

    /// Reads a row whose keys have other names, and counts it in `mapping`.
    pub(super) fn from_row(
        row: &Value,
        columns: &Columns,
        mapping: &mut Mapping,
    ) -> Result<Self, String> {
        let mut row = Object::new(row, columns)?;
        let (content, form) = content_of(&mut row)?;
        let answer = match &content {
            Content::Chat(chat) => answer_of(chat)?,
            Content::Pair { completion, .. } => Some(completion.as_str()),
            Content::Text(_) => None,
        };
        let answer = answer.map(str::trim).filter(|text| !text.is_empty());
        let answer = answer.map(str::to_owned);
        mapping.count(&form, row.unused());
        Ok(Self {
            content,
            answer,
            place: None,
        })
    }
}

fn answer_of(chat: &Chat) -> Result<Option<&str>, String> {
    let is_assistant = |message: &&Message| message.role() == "assistant";
    if chat.messages.is_empty() {
        return Err("the chat has no messages".to_owned());
    }
    if !chat.messages.iter().any(|message| is_assistant(&message)) {
        let mut roles: Vec<&str> = chat.messages.iter().map(Message::role).collect();
        roles.dedup();
        return Err(format!(
            "the chat has no answer of the assistant to train on; its roles are {}",
            shown(&roles.join(", "))
        ));
    }
    let last = chat.messages.last().filter(is_assistant);
    Ok(last.and_then(Message::content))
}
