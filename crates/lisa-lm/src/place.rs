//! [`Place`]: where in the data an example is.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The place of an example: its file, and its line, or its row if the file has no lines (Parquet).
/// Lines and rows are counted from 1. A clone does not copy the path.
///
/// # Example
///
/// ```
/// use std::path::Path;
/// use lisa_lm::text::Place;
///
/// let place = Place::at_line(Path::new("train.jsonl"), 7);
/// assert_eq!((place.to_string().as_str(), place.line()), ("train.jsonl:7", Some(7)));
/// let place = Place::at_row(Path::new("train.parquet"), 7);
/// assert_eq!((place.to_string().as_str(), place.line()), ("train.parquet, row 7", None));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    file: Arc<Path>,
    number: usize,
    is_row: bool,
}

impl Place {
    /// A line of a text file. The lines of a compressed file are those of its content.
    pub fn at_line(file: impl Into<Arc<Path>>, line: usize) -> Self {
        Self {
            file: file.into(),
            number: line,
            is_row: false,
        }
    }

    /// A row of a file without lines.
    pub fn at_row(file: impl Into<Arc<Path>>, row: usize) -> Self {
        Self {
            file: file.into(),
            number: row,
            is_row: true,
        }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The line; `None` if the file has no lines.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        (!self.is_row).then_some(self.number)
    }

    /// The row; `None` if the file has lines.
    #[must_use]
    pub fn row(&self) -> Option<usize> {
        self.is_row.then_some(self.number)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.is_row { ", row " } else { ":" };
        write!(f, "{}{separator}{}", self.file.display(), self.number)
    }
}
