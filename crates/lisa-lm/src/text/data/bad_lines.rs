//! [`BadLines`]: the lines that cannot be used.

use std::fmt;

use crate::place::Place;

/// What to do with a line that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBadLine {
    /// Return an error that names it.
    #[default]
    Stop,
    /// Leave it out and count it.
    Skip,
}

/// A line, or a row of a file without lines, that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Where it is.
    pub place: Place,
    /// Why it cannot be used.
    pub reason: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

/// The lines that were left out: the first ones and the number of all.
///
/// # Example
///
/// ```
/// use std::path::Path;
/// use lisa_lm::text::{BadLine, BadLines, Place};
///
/// let mut bad = BadLines::default();
/// for line in 1..=12 {
///     let place = Place::at_line(Path::new("train.jsonl"), line);
///     bad.push(BadLine { place, reason: "not JSON".to_owned() });
/// }
/// assert_eq!((bad.shown().len(), bad.count()), (10, 12));
/// assert!(bad.to_string().ends_with("train.jsonl:10: not JSON\nand 2 more lines"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BadLines {
    shown: Vec<BadLine>,
    count: usize,
}

impl BadLines {
    /// How many lines are kept. Further ones are counted.
    pub const SHOWN: usize = 10;

    /// Adds a line.
    pub fn push(&mut self, bad: BadLine) {
        self.count += 1;
        if self.shown.len() < Self::SHOWN {
            self.shown.push(bad);
        }
    }

    /// The first lines, at most [`SHOWN`](Self::SHOWN).
    #[must_use]
    pub fn shown(&self) -> &[BadLine] {
        &self.shown
    }

    /// The number of lines.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}

impl fmt::Display for BadLines {
    /// One line for each of the first lines, and one with the number of others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.shown.iter().map(BadLine::to_string).collect();
        f.write_str(&lines.join("\n"))?;
        match self.count - self.shown.len() {
            0 => Ok(()),
            1 => f.write_str("\nand 1 more line"),
            more => write!(f, "\nand {more} more lines"),
        }
    }
}
