//! [`UserError`]: an error of the program itself, with what to do about it.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

/// What was asked and what was found; the help says what to do.
///
/// `Display` prints the message alone. [`report`](crate::terminal::report::report) prints the rest.
#[derive(Debug, Default)]
pub(crate) struct UserError {
    message: String,
    help: Option<String>,
    place: Option<(PathBuf, Option<usize>)>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl UserError {
    /// An error with this message.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            ..Self::default()
        }
    }

    /// Adds what to do.
    #[must_use]
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the file, and the line, that is at fault. The first line is 1.
    #[must_use]
    pub(crate) fn with_place(mut self, file: impl Into<PathBuf>, line: Option<usize>) -> Self {
        self.place = Some((file.into(), line));
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What to do.
    #[must_use]
    pub(crate) fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The file and the line that are at fault.
    #[must_use]
    pub(crate) fn place(&self) -> Option<(&Path, Option<usize>)> {
        let (file, line) = self.place.as_ref()?;
        Some((file, *line))
    }
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for UserError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

/// Returns a [`UserError`] unless the condition holds: the condition, the help, the message.
macro_rules! require {
    ($condition:expr, $help:expr, $($message:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return Err(crate::user_error::UserError::new(format!($($message)+))
                .with_help($help)
                .into());
        }
    };
}

pub(crate) use require;
