//! [`Evaluation`]: the result of an evaluation.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::number;
use crate::settings::Metric;
use crate::terminal::text::{counted, one_line};

/// How many characters of a prompt and of an answer are printed.
const SHOWN: usize = 200;
/// What stands for the characters between the beginning and the end.
const LEFT_OUT: &str = " .. ";

/// The result of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean held-out loss per token, in nats.
    #[serde(with = "number")]
    pub loss: f64,
    /// `exp(loss)`, which is infinite from a loss of 709 on.
    #[serde(with = "number")]
    pub perplexity: f64,
    /// The number of held-out rows.
    #[serde(default)]
    pub rows: usize,
    /// The loss of the rows that were evaluated before training.
    #[serde(with = "number")]
    pub first_rows_loss: f64,
    /// How many generated answers are right.
    #[serde(default)]
    pub answers: Option<Answers>,
    /// The first few answers.
    pub samples: Vec<Sample>,
}

/// Numbers of generated answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// What right means.
    pub metric: Metric,
    /// Right answers.
    pub right: usize,
    /// All answers.
    pub asked: usize,
    /// Answers without an end: they were cut at the largest number of tokens.
    pub cut: usize,
    /// Prompts that were left out since they are longer than the longest row.
    pub too_long: usize,
    /// Prompts that were left out since they have no tokens.
    pub empty: usize,
    /// Prompts that were left out since the chat template or the tokenizer refuses them.
    #[serde(default)]
    pub refused: usize,
}

/// A generated answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The prompt.
    pub prompt: String,
    /// The answer in the data.
    pub wanted: String,
    /// The generated answer.
    pub got: String,
    /// Whether it was cut at the largest number of tokens.
    #[serde(default)]
    pub cut: bool,
}

/// `exp(loss)` in few digits.
fn perplexity(loss: f64) -> String {
    match loss.exp() {
        _ if loss == f64::INFINITY => "infinite (a token has the probability 0)".to_owned(),
        f64::INFINITY => "above 1e308".to_owned(),
        large if large >= 1e6 => format!("{large:.2e}"),
        value => format!("{value:.3}"),
    }
}

/// With `{:#}`, without the word held-out.
impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held_out = if f.alternate() { "" } else { "held-out " };
        write!(
            f,
            "{held_out}loss {:.4}, perplexity {}, {}",
            self.loss,
            perplexity(self.loss),
            counted(self.rows, "row")
        )?;
        if let Some(answers) = &self.answers {
            write!(f, ", {answers}")?;
        }
        for sample in &self.samples {
            let cut = if sample.cut { " [cut]" } else { "" };
            write!(f, "\n  prompt:    {}", shortened(&sample.prompt))?;
            write!(f, "\n  expected:  {}", shortened(&sample.wanted))?;
            write!(f, "\n  generated: {}{cut}", shortened(&sample.got))?;
        }
        Ok(())
    }
}

/// A text on one line: whole, or its beginning and its end, where the question of a prompt and the
/// result of an answer are.
fn shortened(text: &str) -> String {
    let line: Vec<char> = one_line(text).chars().collect();
    let of = |part: &[char]| part.iter().collect::<String>();
    if line.len() <= SHOWN {
        return of(&line);
    }
    let (first, last) = (&line[..SHOWN / 2], &line[line.len() - SHOWN / 2..]);
    format!(
        "{}{LEFT_OUT}{}",
        of(first).trim_end(),
        of(last).trim_start()
    )
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.metric {
            Metric::Exact => "exact match",
            Metric::LastNumber => "last number right",
            Metric::Choice => "choice right",
            Metric::Contains => "answer contained",
        };
        write!(f, "{name} {} of {}", self.right, self.asked)?;
        if self.cut > 0 {
            write!(f, ", {} cut at --max-new-tokens", self.cut)?;
        }
        if self.too_long > 0 {
            let prompts = counted(self.too_long, "prompt");
            write!(f, ", {prompts} left out as longer than the longest row")?;
        }
        if self.empty > 0 {
            write!(f, ", {} left out", counted(self.empty, "empty prompt"))?;
        }
        if self.refused > 0 {
            write!(f, ", {} left out", counted(self.refused, "refused prompt"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_shown_with_its_beginning_and_its_end() {
        assert_eq!(shortened(" a\nb "), "a / b");
        assert_eq!(shortened(&"é".repeat(SHOWN)), "é".repeat(SHOWN));
        let text = format!("{}\n#### 72", "x ".repeat(SHOWN));
        let shown = shortened(&text);
        let longest = SHOWN + LEFT_OUT.len();
        assert!(
            (longest - 2..=longest).contains(&shown.chars().count()),
            "{shown}"
        );
        assert!(
            shown.starts_with("x x ") && shown.ends_with("x  / #### 72"),
            "{shown}"
        );
    }

    #[test]
    fn large_and_infinite_losses_are_said_and_stored() {
        let of = |loss: f64| Evaluation {
            loss,
            perplexity: loss.exp(),
            rows: 2,
            first_rows_loss: loss,
            answers: None,
            samples: Vec::new(),
        };
        for (loss, said) in [
            (0.5, "held-out loss 0.5000, perplexity 1.649, 2 rows"),
            (20.0, "held-out loss 20.0000, perplexity 4.85e8, 2 rows"),
            (
                710.0,
                "held-out loss 710.0000, perplexity above 1e308, 2 rows",
            ),
            (
                f64::INFINITY,
                "held-out loss inf, perplexity infinite (a token has the probability 0), 2 rows",
            ),
        ] {
            let evaluation = of(loss);
            assert_eq!(evaluation.to_string(), said);
            assert_eq!(
                Some(&*format!("{evaluation:#}")),
                said.strip_prefix("held-out ")
            );
            let text = serde_json::to_string(&evaluation).unwrap();
            let again: Evaluation = serde_json::from_str(&text).unwrap();
            assert_eq!(again, evaluation, "{text}");
        }
    }
}
