//! [`Scorer`]: whether a generated answer is right.

use std::collections::BTreeSet;

use crate::settings::Metric;

/// Compares generated answers with those of the data.
#[derive(Clone, Debug)]
pub struct Scorer {
    metric: Metric,
    /// The choices that occur in the data, for [`Metric::Choice`].
    choices: BTreeSet<String>,
}

impl Scorer {
    /// A scorer for data with these answers.
    pub fn new<'a>(metric: Metric, answers: impl IntoIterator<Item = &'a str>) -> Self {
        let mut scorer = Self {
            metric,
            choices: BTreeSet::new(),
        };
        answers.into_iter().for_each(|answer| scorer.see(answer));
        scorer
    }

    /// Adds an answer of the data.
    pub(crate) fn see(&mut self, answer: &str) {
        if self.metric == Metric::Choice {
            self.choices.extend(words(answer).next());
        }
    }

    /// The metric.
    #[must_use]
    pub(crate) fn metric(&self) -> Metric {
        self.metric
    }

    /// Whether `got` is right where `wanted` is the answer of the data.
    #[must_use]
    pub fn is_right(&self, wanted: &str, got: &str) -> bool {
        match self.metric {
            Metric::Exact => wanted.trim() == got.trim(),
            Metric::LastNumber => match (last_number(wanted), last_number(got)) {
                (Some(wanted), Some(got)) => wanted == got,
                _ => false,
            },
            Metric::Choice => {
                let found = words(got).find(|word| self.choices.contains(word));
                found.is_some() && found == words(wanted).next()
            }
            Metric::Contains => {
                let plain = |text: &str| {
                    let words: Vec<&str> = text.split_whitespace().collect();
                    words.join(" ").to_lowercase()
                };
                // Every text contains an empty one.
                let (wanted, got) = (plain(wanted), plain(got));
                got.contains(&wanted) && (!wanted.is_empty() || got.is_empty())
            }
        }
    }
}

/// The words of a text in lower case. A single letter keeps its case: `A` is a choice, `a` a word.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let words = text.split(|c: char| !c.is_alphanumeric());
    let words = words.filter(|word| !word.is_empty());
    words.map(|word| match word.chars().nth(1) {
        Some(_) => word.to_lowercase(),
        None => word.to_owned(),
    })
}

/// The last number of a text. Commas between digits are skipped: `1,080.50` is 1080.5.
fn last_number(text: &str) -> Option<f64> {
    let chars: Vec<char> = text.chars().collect();
    let digit = |at: usize| chars.get(at).is_some_and(char::is_ascii_digit);
    let end = chars.iter().rposition(char::is_ascii_digit)? + 1;
    let mut start = end;
    let mut point = false;
    while start > 0 {
        let is_point = chars[start - 1] == '.' && !point;
        let joins = chars[start - 1] == ',' || is_point;
        if digit(start - 1) || joins && start > 1 && digit(start - 2) {
            point |= is_point;
            start -= 1;
        } else {
            break;
        }
    }
    let is_fraction = start > 0 && chars[start - 1] == '.' && !point;
    let start = start - usize::from(is_fraction);
    let is_negative = start > 0
        && matches!(chars[start - 1], '-' | '\u{2212}')
        && (start < 2 || !chars[start - 2].is_alphanumeric());
    let number: String = chars[start..end].iter().filter(|c| **c != ',').collect();
    let number: f64 = number.parse().ok()?;
    Some(if is_negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_end() {
        for (text, number) in [
            ("She pays 3 + 4 = 7.\n#### 7", Some(7.0)),
            ("#### 1,080", Some(1080.0)),
            ("it costs $1,080.50.", Some(1080.5)),
            ("between 3-5", Some(5.0)),
            ("it is -5", Some(-5.0)),
            ("= .5", Some(0.5)),
            ("v1.2.3", Some(2.3)),
            ("none", None),
        ] {
            assert_eq!(last_number(text), number, "{text}");
        }
    }

    #[test]
    fn every_metric_has_answers_that_are_right_and_wrong() {
        let right = |metric, wanted: &str, got: &str| {
            Scorer::new(metric, ["yes", "no", "B) blue", "A", wanted]).is_right(wanted, got)
        };
        assert!(right(Metric::Exact, "four", " four\n"));
        assert!(!right(Metric::Exact, "four", "four."));
        assert!(right(
            Metric::LastNumber,
            "#### 1,000",
            "The answer is 1000."
        ));
        assert!(!right(Metric::LastNumber, "#### 10", "10 apples cost 5"));
        assert!(!right(Metric::LastNumber, "#### 10", "ten"));
        assert!(right(Metric::Choice, "yes", "Yes, because no study"));
        assert!(!right(Metric::Choice, "no", "Yes, and not no"));
        // `a` is a word and no choice, `A` and `B` are choices.
        assert!(right(Metric::Choice, "B) blue", "It is a (B)."));
        assert!(!right(Metric::Choice, "A", "It is a dog"));
        assert!(right(Metric::Contains, "New  York", "It is in new york."));
        assert!(!right(Metric::Contains, "New York", "newyork"));
        assert!(!right(Metric::Contains, " ", "anything"));
        assert!(right(Metric::Contains, "", " "));
    }
}
