//! [`read_examples`]: training data, one JSON object a line.
//!
//! Four formats are told apart by their keys, so one file may mix them:
//!
//! | keys | what it is |
//! |---|---|
//! | `messages` | a chat: a list of `{"role": .., "content": ..}` |
//! | `instruction`, `input` (may be missing or empty), `output` | Alpaca: a question and its answer; `system` may be there too |
//! | `prompt`, `completion` | two texts that follow each other as they stand, with no chat template |
//! | `text` | plain text, all of it trained on |
//!
//! Other keys are ignored. Empty lines are skipped. Tests: `data/tests.rs`.

use std::fmt;
use std::fs;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind};

use crate::files;

mod example;

pub use example::{Content, Example};

/// What to do with a line that cannot be used.
///
/// # Example
///
/// ```
/// use lisa_lm::{OnBadLine, read_examples};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("train.jsonl");
/// # std::fs::write(&path, "{\"text\": \"a\"}\n{\"prompt\": \"b\"}\n{\"text\": \"c\"}\n").unwrap();
/// // Three lines, of which the second has a prompt without a completion.
/// assert_eq!(OnBadLine::default(), OnBadLine::Stop);
/// let error = read_examples(&path, OnBadLine::Stop).unwrap_err();
/// assert_eq!(error.message(), "`completion` is missing");
/// assert_eq!(error.place(), Some((path.as_path(), Some(2))));
///
/// let read = read_examples(&path, OnBadLine::Skip)?;
/// assert_eq!((read.examples.len(), read.skipped.len()), (2, 1));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBadLine {
    /// Stop with an error that names it.
    #[default]
    Stop,
    /// Leave it out, warn, and list it in [`Examples::skipped`].
    Skip,
}

/// A line that cannot be used.
///
/// # Example
///
/// ```
/// use lisa_lm::{OnBadLine, read_examples};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("train.jsonl");
/// # std::fs::write(&path, "{\"text\": \"a\"}\n{\"prompt\": \"b\"}\n{\"text\": \"c\"}\n").unwrap();
/// // Three lines, of which the second has a prompt without a completion.
/// let read = read_examples(&path, OnBadLine::Skip)?;
/// let bad = &read.skipped[0];
/// assert_eq!((&bad.file, bad.line), (&path, 2));
/// assert_eq!(bad.reason, "`completion` is missing");
/// assert!(bad.to_string().ends_with("train.jsonl, line 2: `completion` is missing"));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The file it is in.
    pub file: PathBuf,
    /// Its number, the first line being 1.
    pub line: usize,
    /// Why.
    pub reason: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, line {}: {}",
            self.file.display(),
            self.line,
            self.reason
        )
    }
}

/// What was read.
///
/// # Example
///
/// ```
/// use lisa_lm::{Content, Examples, OnBadLine, read_examples};
///
/// # let folder = tempfile::tempdir()?;
/// # std::fs::write(folder.path().join("b.jsonl"), "{\"text\": \"three\"}\n")?;
/// # let two = "{\"text\": \"one\"}\n\n{\"text\": \"two\"}\n";
/// # std::fs::write(folder.path().join("a.jsonl"), two)?;
/// // Two lines in `a.jsonl`, one in `b.jsonl`.
/// let Examples { examples, skipped } = read_examples(&folder, OnBadLine::Stop)?;
/// let expected = ["one", "two", "three"].map(|text| Content::Text(text.into()));
/// assert!(examples.iter().map(|example| &example.content).eq(&expected));
/// assert!(skipped.is_empty());
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examples {
    /// The examples, in the order of the files and their lines.
    pub examples: Vec<Example>,
    /// The lines left out; empty unless told to [skip](OnBadLine::Skip).
    pub skipped: Vec<BadLine>,
}

/// The most bytes of a line, 64 MiB: a longer one is bad.
pub const LINE_BYTES: usize = 64 << 20;

/// Reads a file, or every `.jsonl` file of a folder in the order of their names.
///
/// Files are read line by line; the examples are held in memory, and beside them one line of at most
/// [`LINE_BYTES`] and its JSON.
///
/// # Errors
///
/// A path that is not there, is not a regular file (a pipe would wait, a device would not end) or
/// cannot be read, a folder without `.jsonl` files, no example at all, and, with [`OnBadLine::Stop`],
/// the first bad line, by file, line and reason.
///
/// # Example
///
/// ```
/// use lisa_lm::{OnBadLine, read_examples};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("train.jsonl");
/// # std::fs::write(&path, "{\"text\": \"a\"}\n{\"txt\": \"b\"}\n").unwrap();
/// // One good line and one bad.
/// let read = read_examples(&path, OnBadLine::Skip)?;
/// assert_eq!(read.examples.len(), 1);
/// assert_eq!(read.skipped[0].line, 2);
///
/// let error = read_examples(&path, OnBadLine::Stop).unwrap_err();
/// assert_eq!(error.place(), Some((path.as_path(), Some(2))));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
pub fn read_examples(path: impl AsRef<Path>, on_bad: OnBadLine) -> Result<Examples, Error> {
    let path = path.as_ref();
    let mut read = Examples::default();
    for file in files_of(path)? {
        let mut reader = files::open(&file).map_err(|e| unreadable(&file, e))?;
        let mut line = Vec::new();
        for index in 0.. {
            let whole = match next_line(&mut reader, &mut line, LINE_BYTES) {
                Ok(None) => break,
                Ok(Some(whole)) => whole,
                Err(e) => return Err(unreadable(&file, e)),
            };
            let found = if whole {
                example_in(&line, index == 0)
            } else {
                Err(format!("longer than {LINE_BYTES} bytes"))
            };
            let reason = match found {
                Ok(None) => continue,
                Ok(Some(example)) => {
                    read.examples.push(example);
                    continue;
                }
                Err(reason) => reason,
            };
            let bad = BadLine {
                file: file.clone(),
                line: index + 1,
                reason,
            };
            if on_bad == OnBadLine::Stop {
                return Err(Error::new(ErrorKind::Data, bad.reason)
                    .with_help("correct the line, or skip bad lines")
                    .with_place(bad.file, Some(bad.line)));
            }
            log::warn!("left out: {bad}");
            read.skipped.push(bad);
        }
    }
    if read.examples.is_empty() {
        return Err(Error::new(
            ErrorKind::Data,
            format!(
                "{} has no example ({} bad lines were skipped)",
                path.display(),
                read.skipped.len()
            ),
        )
        .with_help("give a file of JSON lines"));
    }
    Ok(read)
}

/// Puts the next line into `line`, without its end; none at the end of the file. False where it is
/// longer than `limit`: the rest of it is passed over.
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

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Io,
        format!("the data {} cannot be read ({error})", path.display()),
    )
    .with_help("give a JSONL file or a folder of them")
    .with_source(error)
}

#[cfg(test)]
mod tests;
