//! [`Prompts`]: the prompts that answers are generated for.

use anyhow::Result;
use lisa_lm::Tokenizer;
use lisa_lm::text::{BadLines, Example, OnBadLine, encode_prompt};

use crate::terminal::output::warn;
use crate::train::data::examples;

/// The longest default of `--max-new-tokens`.
const LONGEST_ANSWER: usize = 512;

/// A prompt and the answer of the data.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// The tokens of the prompt.
    pub ids: Vec<u32>,
    /// The answer of the data.
    pub wanted: String,
}

/// Prompts of held-out examples, and how many examples were left out.
#[derive(Clone, Debug, Default)]
pub struct Prompts {
    /// The prompts.
    pub prompts: Vec<Prompt>,
    /// How many prompts were longer than the longest row or the model.
    pub too_long: usize,
    /// How many prompts had no tokens.
    pub empty: usize,
    /// How many prompts the chat template or the tokenizer refused.
    pub refused: usize,
    /// Longest generated answer in tokens.
    pub max_new_tokens: usize,
}

impl Prompts {
    /// The first `count` prompts of the examples that have at most `longest` tokens. An answer may
    /// have `max_new_tokens`; 0: a little more than the longest answer of the examples. With
    /// [`OnBadLine::Skip`], prompts that are refused are left out, counted and warned about.
    pub fn new<'a>(
        examples: impl IntoIterator<Item = &'a Example>,
        tokenizer: &Tokenizer,
        count: usize,
        longest: usize,
        max_new_tokens: usize,
        on_bad: OnBadLine,
    ) -> Result<Self> {
        let mut found = Self {
            max_new_tokens,
            ..Self::default()
        };
        for example in examples {
            let Some(wanted) = &example.answer else {
                continue;
            };
            if max_new_tokens == 0 {
                let answer = tokenizer.encode_with_offsets(wanted, false)?.ids.len();
                let enough = (answer + answer / 8 + 8).min(LONGEST_ANSWER);
                found.max_new_tokens = found.max_new_tokens.max(enough);
            }
            if found.prompts.len() == count {
                continue;
            }
            let ids = match encode_prompt(example, tokenizer) {
                Ok(Some(ids)) => ids,
                Ok(None) => continue,
                Err(error) if on_bad == OnBadLine::Skip => {
                    if found.refused < BadLines::SHOWN {
                        warn(format_args!("no answer is generated: {error}"));
                    }
                    found.refused += 1;
                    continue;
                }
                Err(error) => return Err(examples::skippable(error).into()),
            };
            if ids.is_empty() {
                found.empty += 1;
            } else if ids.len() > longest {
                found.too_long += 1;
            } else {
                let wanted = wanted.trim().to_owned();
                found.prompts.push(Prompt { ids, wanted });
            }
        }
        Ok(found)
    }
}
