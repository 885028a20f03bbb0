//! [`Cause`]: why a record was not read or written.

use std::error::Error;
use std::io;

use burn::store::RecordError;

use crate::{ErrorKind, LisaError};

/// Why a record was not read or written, before its path is known.
#[derive(Debug)]
pub(super) struct Cause {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Cause {
    fn of<E: Error + Send + Sync + 'static>(kind: ErrorKind, source: E) -> Self {
        Self {
            kind,
            message: source.to_string(),
            source: Some(Box::new(source)),
        }
    }

    /// The error, which says in `what` and with which file.
    pub(super) fn error(self, what: String) -> LisaError {
        let error = LisaError::new(self.kind, format!("{what}: {}", self.message));
        match self.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

/// The content is wrong.
impl From<String> for Cause {
    fn from(message: String) -> Self {
        Self {
            kind: ErrorKind::Record,
            message,
            source: None,
        }
    }
}

impl From<&str> for Cause {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            // The file is too short.
            io::ErrorKind::UnexpectedEof => ErrorKind::Record,
            _ => ErrorKind::Io,
        };
        Self::of(kind, error)
    }
}

impl From<burn_pack::Error> for Cause {
    fn from(error: burn_pack::Error) -> Self {
        Self::of(ErrorKind::of_pack(&error), error)
    }
}

/// Of a record in memory: no file is involved.
impl From<RecordError> for Cause {
    fn from(error: RecordError) -> Self {
        Self::of(ErrorKind::Record, error)
    }
}

impl From<serde_json::Error> for Cause {
    fn from(error: serde_json::Error) -> Self {
        Self::of(ErrorKind::Record, error)
    }
}
