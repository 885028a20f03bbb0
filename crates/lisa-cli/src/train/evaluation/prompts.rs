//! [`Prompts`]: the prompts that answers are generated for.

use anyhow::Result;
use lisa_lm::Tokenizer;
use lisa_lm::text::{BadLines, Example, encode_prompt};

use crate::settings::{OnBad, Settings};
use crate::terminal::output::warn;
use crate::train::data::bad_line::skippable;

/// The longest default of `--max-new-tokens`.
const LONGEST_ANSWER: usize = 512;

/// A prompt and the answer of the data.
#[derive(Clone, Debug)]
pub(crate) struct Prompt {
    /// The tokens of the prompt.
    pub(crate) ids: Vec<u32>,
    /// The answer of the data.
    pub(crate) wanted: String,
}

/// Prompts of held-out examples, and how many examples were left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prompts {
    /// The prompts.
    pub(crate) all: Vec<Prompt>,
    /// How many prompts were longer than the longest row or the model.
    pub(crate) too_long: usize,
    /// How many prompts had no tokens.
    pub(crate) empty: usize,
    /// How many prompts the chat template or the tokenizer refused.
    pub(crate) refused: usize,
    /// Longest generated answer in tokens.
    pub(crate) max_new_tokens: usize,
}

impl Prompts {
    /// The first prompts (`--eval-examples`) of the examples that have at most `--max-seq-length` tokens.
    /// An answer may have `--max-new-tokens`; 0: a little more than the longest answer of the examples.
    /// With `--on-bad-line skip`, prompts that are refused are left out, counted and warned about.
    pub(crate) fn new<'a>(
        examples: impl IntoIterator<Item = &'a Example>,
        tokenizer: &Tokenizer,
        settings: &Settings,
    ) -> Result<Self> {
        let (input, max_new_tokens) = (&settings.input, settings.output.max_new_tokens);
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
            if found.all.len() == settings.output.eval_examples {
                continue;
            }
            let ids = match encode_prompt(example, tokenizer) {
                Ok(Some(ids)) => ids,
                Ok(None) => continue,
                Err(error) if input.on_bad_line == OnBad::Skip => {
                    if found.refused < BadLines::SHOWN {
                        warn(format_args!("no answer is generated: {error}"));
                    }
                    found.refused += 1;
                    continue;
                }
                Err(error) => return Err(skippable(error).into()),
            };
            if ids.is_empty() {
                found.empty += 1;
            } else if ids.len() > input.max_seq_length {
                found.too_long += 1;
            } else {
                let wanted = without_end(wanted, tokenizer).to_owned();
                found.all.push(Prompt { ids, wanted });
            }
        }
        Ok(found)
    }
}

/// The answer without ends of sequence that are typed at its end: a generated answer stops before them.
fn without_end<'a>(answer: &'a str, tokenizer: &Tokenizer) -> &'a str {
    let ends = tokenizer.eos_ids().iter();
    let ends: Vec<String> = ends.filter_map(|id| tokenizer.id_to_token(*id)).collect();
    let mut answer = answer.trim();
    let cut = |answer: &'a str| {
        let mut ends = ends.iter().filter(|end| !end.is_empty());
        ends.find_map(|end| answer.strip_suffix(end.as_str()))
    };
    while let Some(before) = cut(answer) {
        answer = before.trim_end();
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundled;
    use crate::settings::{Flags, Metric};
    use crate::train::score::Scorer;

    #[test]
    fn an_answer_is_compared_without_the_end_that_is_typed_in_the_data() {
        let tokenizer = Tokenizer::from_dir(bundled::model().unwrap()).unwrap();
        let settings = Flags::default().resolve(None).unwrap();
        let wanted = |row: &str| {
            let example = Example::from_json(row).unwrap();
            let found = Prompts::new(&[example], &tokenizer, &settings).unwrap();
            found.all[0].wanted.clone()
        };
        for row in [
            r#"{"prompt": "Name it. ", "completion": "blue<|endoftext|>"}"#,
            r#"{"prompt": "Name it. ", "completion": " blue <|endoftext|>\n<|endoftext|>\n"}"#,
            r#"{"instruction": "Name it.", "output": "blue<|endoftext|>"}"#,
            r#"{"instruction": "Name it.", "output": "blue"}"#,
        ] {
            assert_eq!(wanted(row), "blue", "{row}");
            for metric in [Metric::Exact, Metric::Contains] {
                assert!(
                    Scorer::new(metric, []).is_right(&wanted(row), "blue"),
                    "{row}"
                );
            }
        }
        // Only at the end.
        let inside = r#"{"prompt": "a", "completion": "b<|endoftext|>c"}"#;
        assert_eq!(wanted(inside), "b<|endoftext|>c");
    }
}
