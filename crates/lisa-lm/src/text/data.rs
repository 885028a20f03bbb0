//! [`read_examples`]: training data with one JSON object per line.
//!
//! The keys of a line determine which of four formats it has ([`Example::from_json`]), so a file
//! may mix formats.

use std::fmt;
use std::fs;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::files;
use crate::place::Place;

mod example;

pub use example::{Content, Example};

/// What to do with a line that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBadLine {
    /// Return an error that names it.
    #[default]
    Stop,
    /// Log it and list it in [`Examples::skipped`].
    Skip,
}

/// A line that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// Why it cannot be used.
    pub reason: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.reason)
    }
}

/// The examples of a file or a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examples {
    /// The examples, in the order of the files and their lines.
    pub examples: Vec<Example>,
    /// The skipped lines; empty with [`OnBadLine::Stop`].
    pub skipped: Vec<BadLine>,
}

/// The largest size of a line, 64 MiB. A longer line cannot be used.
pub const LINE_BYTES: usize = 64 << 20;

/// Reads a file, or all `.jsonl` files of a folder in the order of their names.
///
/// Empty lines are skipped, and unknown keys are ignored. All examples are kept in memory, and
/// during reading also one line with its JSON.
///
/// # Errors
///
/// The path is missing, cannot be read, or is a pipe or device; a folder has no `.jsonl` file;
/// there is no example; or, with [`OnBadLine::Stop`], a line cannot be used. The error then has the
/// place of that line.
///
/// # Example
///
/// ```
/// use lisa_lm::text::{OnBadLine, read_examples};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("train.jsonl");
/// std::fs::write(&path, "{\"text\": \"a\"}\n{\"prompt\": \"b\"}\n").unwrap();
/// let error = read_examples(&path, OnBadLine::Stop).unwrap_err();
/// assert_eq!(error.message(), "`completion` is missing");
/// assert_eq!(error.place(), Some((path.as_path(), Some(2))));
///
/// let read = read_examples(&path, OnBadLine::Skip)?;
/// assert_eq!((read.examples.len(), read.skipped[0].line), (1, 2));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
pub fn read_examples(path: impl AsRef<Path>, on_bad: OnBadLine) -> Result<Examples, Error> {
    let path = path.as_ref();
    let mut read = Examples::default();
    for file in files_of(path)? {
        read_file(&file, on_bad, &mut read)?;
    }
    if read.examples.is_empty() {
        let message = match read.skipped.len() {
            0 => format!("{} has no example", path.display()),
            bad => format!(
                "{} has no example, only {bad} skipped lines",
                path.display()
            ),
        };
        return Err(Error::new(ErrorKind::Data, message).with_help("give a file of JSON lines"));
    }
    Ok(read)
}

fn read_file(file: &Path, on_bad: OnBadLine, read: &mut Examples) -> Result<(), Error> {
    let mut reader = files::open(file).map_err(|e| unreadable(file, e))?;
    let shared: Arc<Path> = Arc::from(file);
    let mut line = Vec::new();
    for number in 1.. {
        let whole = next_line(&mut reader, &mut line, LINE_BYTES);
        let found = match whole.map_err(|e| unreadable(file, e))? {
            None => break,
            Some(true) => example_in(&line, number == 1),
            Some(false) => Err(format!("longer than {LINE_BYTES} bytes")),
        };
        match (found, on_bad) {
            (Ok(example), _) => read.examples.extend(example.map(|mut example| {
                example.place = Some(Place::at_line(Arc::clone(&shared), number));
                example
            })),
            (Err(reason), OnBadLine::Stop) => {
                return Err(Error::new(ErrorKind::Data, reason)
                    .with_place(file, Some(number))
                    .with_help("correct the line, or skip bad lines"));
            }
            (Err(reason), OnBadLine::Skip) => {
                let bad = BadLine {
                    file: file.to_owned(),
                    line: number,
                    reason,
                };
                log::warn!("skipped {bad}");
                read.skipped.push(bad);
            }
        }
    }
    Ok(())
}

/// Reads the next line into `line`, without its line break; none at the end of the file. It is
/// false if the line is longer than `limit`; the rest of the line is then skipped.
fn next_line(
    reader: &mut impl BufRead,
    line: &mut Vec<u8>,
    limit: usize,
) -> io::Result<Option<bool>> {
    line.clear();
    if reader
        .by_ref()
        .take(limit as u64 + 1)
        .read_until(b'\n', line)?
        == 0
    {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Some(true));
    }
    if line.len() <= limit {
        return Ok(Some(true));
    }
    line.clear();
    reader.skip_until(b'\n')?;
    Ok(Some(false))
}

fn example_in(line: &[u8], first: bool) -> Result<Option<Example>, String> {
    let text = std::str::from_utf8(line).map_err(|e| format!("not UTF-8: {e}"))?;
    let text = if first {
        text.trim_start_matches('\u{feff}')
    } else {
        text
    }
    .trim();
    if text.is_empty() {
        return Ok(None);
    }
    Example::from_json(text).map(Some)
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| unreadable(path, e))? {
        let file = entry.map_err(|e| unreadable(path, e))?.path();
        if file.is_file() && file.extension().is_some_and(|e| e == "jsonl") {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Error::new(
            ErrorKind::Data,
            format!("the folder {} has no .jsonl file", path.display()),
        ));
    }
    Ok(files)
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    let message = format!("the data {} cannot be read ({error})", path.display());
    Error::new(ErrorKind::Io, message)
        .with_help("give a JSONL file or a folder of them")
        .with_source(error)
}

#[cfg(test)]
mod tests;
