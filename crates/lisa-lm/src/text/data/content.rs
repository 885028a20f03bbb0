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
    },
    /// Plain text.
    Text(String),
}
