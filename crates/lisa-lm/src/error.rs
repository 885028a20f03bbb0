//! [`Error`]: what this crate returns when a file, a setting or a text cannot be used.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::place::Place;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option is out of range or contradicts another one.
    Config,
    /// Training data cannot be read or used.
    Data,
    /// A chat template does not parse, or refuses a chat.
    Template,
    /// A tokenizer cannot be read or used.
    Tokenizer,
    /// A model's configuration is invalid or not supported, or the model cannot run the input.
    Model,
    /// A checkpoint's weights cannot be read.
    Checkpoint,
    /// The operating system refused a file operation.
    Io,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "configuration",
            Self::Data => "data",
            Self::Template => "chat template",
            Self::Tokenizer => "tokenizer",
            Self::Model => "model",
            Self::Checkpoint => "checkpoint",
            Self::Io => "file",
        })
    }
}

/// An error: what was expected and found, in which file, and how to correct it.
///
/// `Display` writes everything on one line; a program that formats errors itself reads the fields.
///
/// # Example
///
/// ```
/// use lisa_lm::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Data, "`completion` is missing")
///     .with_place("train.jsonl", Some(7))
///     .with_help("correct the line, or skip bad lines");
/// assert_eq!(error.message(), "`completion` is missing");
/// assert_eq!(error.help(), Some("correct the line, or skip bad lines"));
/// assert_eq!(
///     error.to_string(),
///     "data: train.jsonl:7: `completion` is missing; correct the line, or skip bad lines"
/// );
/// ```
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    help: Option<String>,
    // On the heap, because a `Result` is as large as its error.
    place: Option<Box<(PathBuf, Option<usize>)>>,
    row: Option<usize>,
    source: Option<Source>,
}

impl Error {
    /// An error whose message says what was expected and what was found.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            help: None,
            place: None,
            row: None,
            source: None,
        }
    }

    /// Adds how to correct the error.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the file that caused the error and, if known, the line; the first line is 1.
    #[must_use]
    pub fn with_place(mut self, file: impl Into<PathBuf>, line: Option<usize>) -> Self {
        self.place = Some(Box::new((file.into(), line)));
        self
    }

    /// Adds the place of an example. The message names the row if the file has no lines.
    #[must_use]
    pub fn at(mut self, place: &Place) -> Self {
        if let Some(row) = place.row() {
            self.message = format!("row {row}: {}", self.message);
        }
        self.row = place.row();
        self.with_place(place.file(), place.line())
    }

    /// Stores the error that caused this one, for [`source`](std::error::Error::source).
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts a context before the message, such as the number of the example.
    #[must_use]
    pub(crate) fn within(mut self, context: &str) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// What the error is about.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was expected and what was found, without kind, place and help.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How to correct the error.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The file that caused the error, and the line if it is known.
    #[must_use]
    pub fn place(&self) -> Option<(&Path, Option<usize>)> {
        let (file, line) = self.place.as_deref()?;
        Some((file, *line))
    }

    /// The row that caused the error, if it is in a file without lines (Parquet).
    #[must_use]
    pub fn row(&self) -> Option<usize> {
        self.row
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.kind)?;
        match self.place.as_deref() {
            Some((file, Some(line))) => write!(f, "{}:{line}: ", file.display())?,
            Some((file, None)) => write!(f, "{}: ", file.display())?,
            None => {}
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
