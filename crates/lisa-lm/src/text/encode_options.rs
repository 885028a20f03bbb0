//! [`EncodeOptions`]: how examples are converted to tokens.

use crate::text::answers::Turns;
use crate::text::data::OnBadLine;

/// Which tokens are in the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LossOn {
    /// The answers: in a chat, each message of the assistant and the end of its turn; in a pair,
    /// the completion; in a plain text, every token.
    #[default]
    Answer,
    /// Every token.
    All,
}

/// What to do with an answer that has no text, no reasoning and no tool calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyAnswers {
    /// Count it and log a warning. It trains the model to end its turn at once.
    #[default]
    Warn,
    /// Refuse the example. An answer without text is refused also if the chat template writes none
    /// of its tool calls and reasoning.
    Refuse,
}

/// How examples are converted to tokens.
///
/// # Example
///
/// ```
/// use lisa_lm::text::{EncodeOptions, LossOn};
///
/// let options = EncodeOptions { max_length: 512, ..EncodeOptions::default() };
/// assert_eq!(options.loss_on, LossOn::Answer);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// The largest number of tokens of a row; longer rows are truncated. `usize::MAX`, the default,
    /// truncates none.
    pub max_length: usize,
    /// Which tokens are in the loss.
    pub loss_on: LossOn,
    /// Which answers of a chat are in the loss, and in how many rows.
    pub turns: Turns,
    /// What to do with empty answers.
    pub empty_answers: EmptyAnswers,
    /// What to do with an example that the chat template or the tokenizer refuses.
    pub on_bad: OnBadLine,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            max_length: usize::MAX,
            loss_on: LossOn::default(),
            turns: Turns::default(),
            empty_answers: EmptyAnswers::default(),
            on_bad: OnBadLine::default(),
        }
    }
}
