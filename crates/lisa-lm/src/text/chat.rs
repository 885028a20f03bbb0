//! [`Message`] and [`Chat`]: the input of a chat template.

use std::collections::BTreeSet;

use minijinja::value::{Value, merge_maps};
use serde::Serialize;

mod message;
mod parts;

pub use message::Message;
use parts::is_empty;
pub(super) use parts::{as_function, calls_of, part_types};

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
    variables: Option<Value>,
    /// The number of first messages whose answers are not learned.
    prompt: usize,
}

impl Chat {
    /// Sets the descriptions of the tools, a list of JSON schemas. With an empty list, the chat has no
    /// tools: the template sees none.
    #[must_use]
    pub fn with_tools(mut self, tools: impl Serialize) -> Self {
        self.tools = present(Value::from_serialize(tools)).filter(|tools| !is_empty(tools));
        self
    }

    /// Sets the documents to answer from, a list of objects with `title` and `text`. With an empty
    /// list, the chat has no documents.
    #[must_use]
    pub fn with_documents(mut self, documents: impl Serialize) -> Self {
        let documents = present(Value::from_serialize(documents));
        self.documents = documents.filter(|documents| !is_empty(documents));
        self
    }

    /// Sets further variables of the template, such as `enable_thinking`: a map, or an object with
    /// fields.
    #[must_use]
    pub fn with_variables(mut self, variables: impl Serialize) -> Self {
        self.variables = present(Value::from_serialize(variables));
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
            variables: self.variables.clone(),
            prompt: self.prompt,
        }
    }

    /// The chat with its first `count` messages as a prompt: their answers are not in the loss, unless
    /// all tokens are.
    #[must_use]
    pub fn with_prompt(mut self, count: usize) -> Self {
        self.prompt = count;
        self
    }

    /// The number of first messages whose answers are not learned.
    pub(super) fn prompt(&self) -> usize {
        self.prompt
    }

    /// What a template may write besides answers: `tools`, `documents`, and the messages of each role
    /// that have text.
    pub(super) fn context_names(&self) -> BTreeSet<String> {
        let asked = self.messages.iter().filter(|message| is_context(message));
        let mut names: BTreeSet<String> = asked.map(|message| named(message.role())).collect();
        let fields = [("tools", &self.tools), ("documents", &self.documents)];
        let given = fields.into_iter().filter(|(_, field)| field.is_some());
        names.extend(given.map(|(name, _)| name.to_owned()));
        names
    }

    /// A chat that differs in one of [`context_names`](Self::context_names) only.
    pub(super) fn with_other(mut self, name: &str) -> Self {
        match name {
            "tools" => self.tools = None,
            "documents" => self.documents = None,
            _ => {
                for message in &mut self.messages {
                    if is_context(message) && named(message.role()) == name {
                        let text = format!("{} ..", message.content().unwrap_or_default());
                        *message = message.clone().with("content", text);
                    }
                }
            }
        }
        self
    }

    /// Whether there are descriptions of tools.
    pub(super) fn has_tools(&self) -> bool {
        self.tools.is_some()
    }

    /// The variables of a template: `messages`, `tools`, `documents`, and further ones.
    /// `takes_list` says of a role whether its content may be a list, and `takes_objects` whether
    /// arguments of tool calls that are JSON text become an object.
    pub(super) fn context(
        &self,
        takes_list: impl Fn(&str) -> bool,
        takes_objects: impl Fn() -> bool,
    ) -> Value {
        let seen = |message: &Message| {
            let takes_list = message.has_list() && takes_list(message.role());
            message.for_template(takes_list, &takes_objects)
        };
        let messages: Vec<Value> = self.messages.iter().map(seen).collect();
        let own =
            minijinja::context! { messages, tools => &self.tools, documents => &self.documents };
        match &self.variables {
            Some(variables) => merge_maps([variables.clone(), own]),
            None => own,
        }
    }
}

/// Whether a message is text that is not the assistant's.
fn is_context(message: &Message) -> bool {
    message.role() != "assistant" && message.has_text()
}

fn named(role: &str) -> String {
    format!("messages of {role}")
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
