//! [`Summary`]: what the rows of the data are, before they are trained on.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use lisa_lm::Tokenizer;
use lisa_lm::text::{EncodedSet, Example, Place, role_tokens};

use super::places::Places;
use super::visited::Visited;
use crate::terminal::text::{counted, one_line};

/// How many places of dropped rows are listed.
const PLACES: usize = 3;
/// How many examples the shares of the roles are measured on. Each costs several renderings.
const MEASURED: usize = 200;

/// Counts of rows and tokens. `Display` has a line for each subject, with the flag that changes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Summary {
    rows: usize,
    tokens: usize,
    trained: usize,
    /// Tokens of each role in the first examples, without truncation.
    roles: BTreeMap<String, usize>,
    measured: usize,
    /// Of all rows before truncation.
    lengths: Quantiles,
    limit: usize,
    cut: usize,
    /// Tokens after the limit, of the rows that are cut and kept.
    beyond: usize,
    /// Rows whose trained tokens are all after the limit.
    dropped: usize,
    /// Rows without a trained token in their whole length.
    untrained: usize,
    /// The places of the first examples without a row.
    without_row: Vec<Place>,
    split: usize,
    empty_answers: usize,
    unwritten_answers: usize,
    refused: usize,
}

impl Summary {
    /// A summary of `set`: rows of `lengths` tokens that were truncated to `limit` tokens.
    pub(crate) fn of<R>(
        places: &Places,
        roles: Roles,
        lengths: &Lengths,
        set: &EncodedSet<R>,
        visited: &Visited,
        limit: usize,
    ) -> Self {
        let tokens = visited.rows.tokens;
        let mut has_row = vec![false; places.len()];
        for &source in &set.sources {
            has_row[source] = true;
        }
        let without_row = has_row.iter().enumerate().filter(|(_, has)| !**has);
        Self {
            rows: visited.rows.count,
            tokens,
            trained: visited.trained,
            roles: roles.tokens,
            measured: roles.measured,
            lengths: lengths.quantiles(),
            limit,
            cut: set.truncated,
            beyond: set.lengths.iter().sum::<usize>() - tokens,
            dropped: set.dropped - lengths.untrained,
            untrained: lengths.untrained,
            without_row: without_row
                .filter_map(|(index, _)| places.get(index))
                .take(PLACES)
                .collect(),
            split: set.split,
            empty_answers: set.empty_answers,
            unwritten_answers: set.unwritten_answers,
            refused: set.refused,
        }
    }

    /// A sentence if more than one per cent of the rows are cut.
    pub(crate) fn warning(&self) -> Option<String> {
        let all = self.rows + self.dropped;
        if self.cut * 100 <= all {
            return None;
        }
        let share = 100.0 * self.cut as f64 / all as f64;
        let dropped = match self.dropped {
            0 => String::new(),
            n => format!(
                "; {} left out, since the answers are after that",
                counted(n, "row")
            ),
        };
        Some(format!(
            "{} of {all} rows ({share:.1} %) are cut at {} tokens{dropped}; the longest row has {} \
             (--max-seq-length)",
            self.cut, self.limit, self.lengths.longest
        ))
    }

    /// Tokens of all rows.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }
}

/// Tokens of the roles in the first examples.
#[derive(Debug, Default)]
pub(crate) struct Roles {
    tokens: BTreeMap<String, usize>,
    measured: usize,
}

impl Roles {
    /// Measures an example, if it is one of the first.
    pub(crate) fn see(&mut self, example: &Example, tokenizer: &Tokenizer) {
        if self.measured == MEASURED {
            return;
        }
        self.measured += 1;
        // An example that is refused has no row.
        for (role, count) in role_tokens(example, tokenizer).unwrap_or_default() {
            *self.tokens.entry(role).or_insert(0) += count;
        }
    }
}

/// What is known of rows before they are truncated.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Lengths {
    lengths: Vec<usize>,
    untrained: usize,
}

impl Lengths {
    /// Of rows with these numbers of tokens, and the number of other rows, which have no token in the
    /// loss.
    pub(crate) fn new(mut lengths: Vec<usize>, untrained: usize) -> Self {
        lengths.sort_unstable();
        Self { lengths, untrained }
    }

    /// Tokens of the longest row.
    pub(crate) fn longest(&self) -> usize {
        self.quantile(1.0)
    }

    fn quantiles(&self) -> Quantiles {
        Quantiles {
            median: self.quantile(0.5),
            most: [0.95, 0.99].map(|share| self.quantile(share)),
            longest: self.longest(),
        }
    }

    /// The smallest length that this share of the rows does not exceed.
    fn quantile(&self, share: f64) -> usize {
        let index = (share * self.lengths.len() as f64).ceil() as usize;
        let at = index.saturating_sub(1);
        self.lengths.get(at).copied().unwrap_or_default()
    }
}

/// Lengths that a half, 95 %, 99 % and all of the rows do not exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Quantiles {
    median: usize,
    most: [usize; 2],
    longest: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.trained as f64 / self.tokens.max(1) as f64;
        write!(
            f,
            "{}, {}, {} trained ({share:.1} %)",
            counted(self.rows, "row"),
            counted(self.tokens, "token"),
            self.trained
        )?;
        if self.roles.len() > 1 {
            let all: usize = self.roles.values().sum();
            let share = |count: &usize| 100.0 * *count as f64 / all.max(1) as f64;
            let roles = self.roles.iter();
            let roles: Vec<String> = roles
                .map(|(role, count)| format!("{} {:.1} %", one_line(role), share(count)))
                .collect();
            let measured = counted(self.measured, "example");
            write!(f, "\n  by role, in {measured}: {}", roles.join(", "))?;
        }
        write!(
            f,
            "\n  lengths: median {}, 95 % up to {}, 99 % up to {}, longest {}",
            self.lengths.median, self.lengths.most[0], self.lengths.most[1], self.lengths.longest
        )?;
        if self.cut == 0 {
            write!(f, "; none above {} (--max-seq-length)", self.limit)?;
        } else {
            let (rows, limit) = (counted(self.cut, "row"), self.limit);
            write!(f, "\n  cut: {rows} at {limit} tokens (--max-seq-length)")?;
            if self.beyond > 0 {
                write!(f, ", {} left out", counted(self.beyond, "token"))?;
            }
        }
        let mut places = String::new();
        for place in &self.without_row {
            write!(places, ", {place}")?;
        }
        for (count, what) in [
            (
                self.dropped,
                "no answer before the limit (--max-seq-length)",
            ),
            (self.untrained, "no trained token"),
            (
                self.refused,
                "refused by the chat template or the tokenizer (--on-bad-line)",
            ),
        ] {
            if count > 0 {
                write!(f, "\n  left out: {}: {what}", counted(count, "row"))?;
            }
        }
        if !places.is_empty() {
            write!(f, "\n  first without a row: {}", &places[2..])?;
        }
        if self.split > 0 {
            let (chats, give) = (
                counted(self.split, "chat"),
                if self.split == 1 { "gives" } else { "give" },
            );
            write!(
                f,
                "\n  split: {chats} {give} a row for each answer (--turns)"
            )?;
        }
        if self.empty_answers > 0 {
            let answers = counted(self.empty_answers, "empty answer");
            write!(
                f,
                "\n  {answers} trained as an end of turn (--empty-answers)"
            )?;
        }
        if self.unwritten_answers > 0 {
            let answers = counted(self.unwritten_answers, "answer");
            write!(
                f,
                "\n  {answers} with text, tool calls or reasoning that the chat template does not \
                 write; those of which it writes nothing are not trained"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use lisa_lm::text::{Encoded, IGNORED};

    use super::*;

    /// Examples of these lengths, whose last two tokens are trained, cut at `limit`.
    fn summary(lengths: &[usize], limit: usize) -> Summary {
        let mut places = Places::default();
        let mut set = EncodedSet::default();
        for (source, &length) in lengths.iter().enumerate() {
            let place = Place::at_line(std::path::Path::new("a.jsonl"), source + 1);
            places.push(Some(&place));
            let mut row = Encoded::all_trained(vec![7; length]);
            row.labels[..length - 2].fill(IGNORED);
            row.truncate(limit);
            set.truncated += usize::from(length > limit);
            if row.trained() == 0 {
                set.dropped += 1;
                continue;
            }
            set.examples.push(row);
            set.sources.push(source);
            set.lengths.push(length);
        }
        let lengths = Lengths::new(lengths.to_vec(), 0);
        let visited = Visited::of(&set.examples.clone().into()).unwrap();
        Summary::of(&places, Roles::default(), &lengths, &set, &visited, limit)
    }

    #[test]
    fn rows_that_are_cut_and_dropped_are_counted() {
        let text = summary(&[4, 6, 7, 9, 5], 6).to_string();
        assert_eq!(
            text,
            "4 rows, 21 tokens, 7 trained (33.3 %)\n  lengths: median 6, 95 % up to 9, 99 % up to \
             9, longest 9\n  cut: 2 rows at 6 tokens (--max-seq-length), 1 token left out\n  left \
             out: 1 row: no answer before the limit (--max-seq-length)\n  first without a row: \
             a.jsonl:4"
        );
        let text = summary(&[4, 6], 6).to_string();
        assert!(
            text.ends_with("longest 6; none above 6 (--max-seq-length)"),
            "{text}"
        );
    }

    #[test]
    fn more_than_one_per_cent_of_cut_rows_is_a_warning() {
        let mut lengths = vec![4; 99];
        lengths.push(9);
        assert_eq!(summary(&lengths, 8).warning(), None);
        lengths.pop();
        lengths.pop();
        lengths.push(9);
        assert_eq!(
            summary(&lengths, 8).warning().unwrap(),
            "1 of 99 rows (1.0 %) are cut at 8 tokens; the longest row has 9 (--max-seq-length)"
        );
        let warning = summary(&[4, 9], 6).warning().unwrap();
        assert!(
            warning.contains("; 1 row left out, since the answers are after that; "),
            "{warning}"
        );
    }
}
