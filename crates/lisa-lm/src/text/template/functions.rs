//! The functions that transformers adds to Jinja for chat templates.

use minijinja::Error;

use super::refusal::refuse;

/// `raise_exception(message)`: the template refuses the chat.
pub(super) fn raise_exception(message: String) -> Result<String, Error> {
    Err(refuse(message))
}

/// `strftime_now(format)`: the local time in a format of C's `strftime`.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, &jiff::Zoned::now()).map_err(|e| refuse(e.to_string()))
}
