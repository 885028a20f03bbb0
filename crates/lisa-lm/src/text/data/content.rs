//! [`Content`]: what an example is trained on.

use crate::text::chat::Chat;

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
        /// What comes before the prompt if the pair is rendered as a chat
        /// ([`into_chat`](crate::text::Example::into_chat)): the system message and earlier turns,
        /// with tools, documents and variables for the template.
        before: Chat,
    },
    /// Plain text.
    Text(String),
}
