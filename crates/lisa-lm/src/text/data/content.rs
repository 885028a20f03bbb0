//! [`Content`]: what an example is trained on.

use crate::text::chat::Chat;

/// The content of an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A chat, which is rendered with the chat template.
    Chat(Chat),
    /// A prompt and its completion, concatenated unchanged, without the system message.
    Pair {
        /// The text before the completion.
        prompt: String,
        /// The text to learn.
        completion: String,
        /// The first message if the pair is rendered as a chat
        /// ([`into_chat`](crate::text::Example::into_chat)).
        system: Option<String>,
    },
    /// Plain text.
    Text(String),
}
