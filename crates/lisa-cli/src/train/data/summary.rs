//! [`Summary`]: what the rows of the data are, before they are trained on.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use lisa_lm::text::{BadLines, EncodedSet, Place};

use super::measures::{Lengths, Quantiles, Roles};
use super::places::Places;
use super::visited::Visited;
use crate::terminal::text::{counted, one_line};

/// How many places of examples without a row are listed.
const PLACES: usize = 3;

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
    beyond_limit: usize,
    /// Rows without a trained token in their whole length.
    untrained: usize,
    /// Of these, those whose messages have a weight of 0.
    weightless: usize,
    /// Lines that cannot be read as an example.
    unreadable: usize,
    /// The first line that cannot be read, or else the first row that is refused, and why.
    first_bad: Option<String>,
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
            beyond_limit: set.dropped - lengths.untrained,
            untrained: lengths.untrained,
            weightless: set.weightless,
            unreadable: 0,
            first_bad: set.refusals.first().cloned(),
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

    /// With the lines of the files that cannot be used.
    pub(crate) fn with_bad_lines(mut self, bad: Option<&BadLines>) -> Self {
        if let Some(bad) = bad {
            self.unreadable = bad.count();
            let first = bad.shown().first().map(ToString::to_string);
            self.first_bad = first.or(self.first_bad);
        }
        self
    }

    /// Whether rows are left out since they cannot be read, or are refused.
    pub(crate) fn has_bad_rows(&self) -> bool {
        self.unreadable + self.refused > 0
    }

    /// The rows that are left out, by their reasons.
    fn left_out(&self) -> Vec<(usize, &'static str)> {
        let all = [
            (self.unreadable, "cannot be read (--on-bad-line)"),
            (
                self.refused,
                "refused by the chat template or the tokenizer (--on-bad-line)",
            ),
            (self.weightless, "all messages have a weight of 0"),
            (
                self.untrained.saturating_sub(self.weightless),
                "no trained token",
            ),
            (
                self.beyond_limit,
                "no answer before the limit (--max-seq-length)",
            ),
        ];
        all.into_iter().filter(|(count, _)| *count > 0).collect()
    }

    /// Sentences about rows that are cut, if these are more than one per cent, and about those that are left
    /// out.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let cut = self.cut_warning();
        let left_out = self.left_out();
        // The warning about cut rows counts those.
        let is_said = cut.is_some() && left_out.len() == 1 && self.beyond_limit > 0;
        let mut warnings = Vec::from_iter(cut);
        if !left_out.is_empty() && !is_said {
            let count: usize = left_out.iter().map(|(count, _)| count).sum();
            let verb = if count == 1 { "is" } else { "are" };
            let all = counted(self.rows + count, "row");
            let first = self
                .first_bad
                .as_ref()
                .map(|bad| format!("; the first: {bad}"));
            warnings.push(format!(
                "{count} of {all} {verb} left out: {}{}",
                in_words(&left_out),
                first.unwrap_or_default()
            ));
        }
        warnings
    }

    /// A sentence if more than one per cent of the rows are cut.
    fn cut_warning(&self) -> Option<String> {
        let all = self.rows + self.beyond_limit;
        if self.cut * 100 <= all {
            return None;
        }
        let share = 100.0 * self.cut as f64 / all as f64;
        let left_out = match self.beyond_limit {
            0 => String::new(),
            n => format!(
                "; {} left out, since the answers are after that",
                counted(n, "row")
            ),
        };
        let verb = if self.cut == 1 { "is" } else { "are" };
        Some(format!(
            "{} of {} ({share:.1} %) {verb} cut at {} tokens{left_out}; the longest row has {} \
             (--max-seq-length)",
            self.cut,
            counted(all, "row"),
            self.limit,
            self.lengths.longest
        ))
    }

    /// Trained tokens of all rows.
    pub(crate) fn trained(&self) -> usize {
        self.trained
    }

    /// Tokens of all rows.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }
}

/// The reasons, each with its count if there are several.
fn in_words(left_out: &[(usize, &str)]) -> String {
    match left_out {
        [(_, reason)] => (*reason).to_owned(),
        several => {
            let each = several.iter();
            let each: Vec<String> = each
                .map(|(count, reason)| format!("{reason}: {count}"))
                .collect();
            each.join("; ")
        }
    }
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
        let left_out = self.left_out();
        if !left_out.is_empty() {
            let count = left_out.iter().map(|(count, _)| count).sum();
            let rows = counted(count, "row");
            write!(f, "\n  left out: {rows}: {}", in_words(&left_out))?;
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
                 write; an answer of which it writes nothing is not trained"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
