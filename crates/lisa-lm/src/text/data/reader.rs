//! [`ExampleReader`]: reads examples one after the other.

use std::fmt;
use std::path::{Path, PathBuf};
use std::vec;

use super::advice::advice;
use super::bad_lines::{BadLine, BadLines, OnBadLine};
use super::columns::Columns;
use super::example::Example;
use super::find::data_files;
use super::mapping::Mapping;
use super::object::has_key;
use super::rows::{Row, Rows, rows};
use crate::error::{Error, ErrorKind};

/// How data is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// What to do with a line that cannot be used.
    pub on_bad: OnBadLine,
    /// Other names for the keys of rows.
    pub columns: Columns,
}

/// An iterator over the examples of files. It reads one row when it is advanced, so use it for data
/// that is larger than memory: it keeps one row and its JSON, and for Parquet a page of each
/// column.
///
/// # Example
///
/// ```
/// use lisa_lm::text::{ExampleReader, ReadOptions};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("train.jsonl");
/// std::fs::write(&path, "{\"text\": \"a\"}\n{\"text\": \"b\"}\n").unwrap();
/// let mut reader = ExampleReader::open(&[path], &ReadOptions::default())?;
/// let first = reader.next().unwrap()?;
/// assert_eq!(first.place.unwrap().line(), Some(1));
/// assert_eq!((reader.count(), 1), (1, 1));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
pub struct ExampleReader {
    files: Vec<PathBuf>,
    unread: vec::IntoIter<PathBuf>,
    rows: Option<Rows>,
    options: ReadOptions,
    /// For each of the columns, whether a row had it.
    seen: Vec<bool>,
    read: usize,
    mapping: Mapping,
    skipped: BadLines,
    /// Whether skipped lines are logged.
    logs: bool,
    is_done: bool,
}

impl ExampleReader {
    /// Finds the files, as [`data_files`] does for training data. Opens none of them.
    ///
    /// # Errors
    ///
    /// As [`data_files`].
    pub fn open<P: AsRef<Path>>(paths: &[P], options: &ReadOptions) -> Result<Self, Error> {
        Ok(Self::of(data_files(paths)?.train, options.clone(), true))
    }

    fn of(files: Vec<PathBuf>, options: ReadOptions, logs: bool) -> Self {
        Self {
            unread: files.clone().into_iter(),
            files,
            rows: None,
            seen: vec![false; options.columns.iter().count()],
            options,
            read: 0,
            mapping: Mapping::default(),
            skipped: BadLines::default(),
            logs,
            is_done: false,
        }
    }

    /// A reader of the same files from their beginning. It does not log skipped lines, because the
    /// first reader logs them.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::of(self.files.clone(), self.options.clone(), false)
    }

    /// The files, in the order in which they are read.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// In which forms the rows so far were read.
    #[must_use]
    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// The lines that were skipped so far.
    #[must_use]
    pub fn skipped(&self) -> &BadLines {
        &self.skipped
    }

    pub(super) fn into_parts(self) -> (Vec<PathBuf>, Mapping, BadLines) {
        (self.files, self.mapping, self.skipped)
    }

    fn next_example(&mut self) -> Result<Option<Example>, Error> {
        loop {
            let Some(rows) = &mut self.rows else {
                let Some(file) = self.unread.next() else {
                    return self.check_end().map(|()| None);
                };
                self.rows = Some(rows(&file)?);
                continue;
            };
            let Some(row) = rows.next().transpose()? else {
                self.rows = None;
                continue;
            };
            if let Some(example) = self.example_in(row)? {
                self.read += 1;
                return Ok(Some(example));
            }
        }
    }

    fn example_in(&mut self, row: Row) -> Result<Option<Example>, Error> {
        let Row { place, value } = row;
        let columns = &self.options.columns;
        if let Ok(row) = &value {
            for (seen, (from, _)) in self.seen.iter_mut().zip(columns.iter()) {
                *seen = *seen || has_key(row, from);
            }
        }
        let read = value.and_then(|row| Example::from_row(&row, columns, &mut self.mapping));
        match (read, self.options.on_bad) {
            (Ok(example), _) => Ok(Some(Example {
                place: Some(place),
                ..example
            })),
            (Err(reason), OnBadLine::Stop) => {
                let help = advice(&reason, place.file(), columns);
                let help = help.unwrap_or_else(|| "correct the line, or skip bad lines".to_owned());
                Err(Error::new(ErrorKind::Data, reason)
                    .at(&place)
                    .with_help(help))
            }
            (Err(reason), OnBadLine::Skip) => {
                let bad = BadLine { place, reason };
                if self.logs && self.skipped.count() < BadLines::SHOWN {
                    log::warn!("left out: {bad}");
                }
                self.skipped.push(bad);
                Ok(None)
            }
        }
    }

    fn check_end(&self) -> Result<(), Error> {
        let files: Vec<String> = self.files.iter().map(|f| f.display().to_string()).collect();
        let files = match files.as_slice() {
            [one, another, _, ..] => format!("{one}, {another} and {} more", files.len() - 2),
            few => few.join(", "),
        };
        let mut columns = self.seen.iter().zip(self.options.columns.iter());
        if let Some((_, (from, _))) = columns.find(|(seen, _)| !**seen) {
            let message = format!("no row of {files} has the column `{from}`");
            return Err(Error::new(ErrorKind::Data, message)
                .with_help("give the columns as they are in the file, NAME IN THE FILE=NAME"));
        }
        if self.read > 0 {
            return Ok(());
        }
        let (message, help) = match self.skipped.shown() {
            [] => (format!("{files} has no example"), None),
            [first, ..] => (
                format!(
                    "{files} has no example, only {} lines that cannot be used; the first: {first}",
                    self.skipped.count()
                ),
                advice(&first.reason, first.place.file(), &self.options.columns),
            ),
        };
        let help = help.unwrap_or_else(|| "give a file of rows".to_owned());
        Err(Error::new(ErrorKind::Data, message).with_help(help))
    }
}

impl fmt::Debug for ExampleReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExampleReader")
            .field("files", &self.files)
            .field("read", &self.read)
            .finish_non_exhaustive()
    }
}

impl Iterator for ExampleReader {
    type Item = Result<Example, Error>;

    /// The next example. An error ends the iterator: a file cannot be read, a line cannot be used
    /// with [`OnBadLine::Stop`], or at the end there was no example, or no row with one of the
    /// [columns](ReadOptions::columns).
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let next = self.next_example().transpose();
        self.is_done = !matches!(next, Some(Ok(_)));
        next
    }
}
