//! [`refuse`]: an error that a template causes.

use std::borrow::Cow;

use minijinja::{Error, ErrorKind};

/// An error with this message.
pub(super) fn refuse(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
