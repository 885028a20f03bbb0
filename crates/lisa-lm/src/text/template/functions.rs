//! The functions that transformers adds to Jinja for chat templates.

use jiff::Zoned;
use jiff::tz::TimeZone;
use minijinja::Error;

use super::refusal::refuse;

/// `raise_exception(message)`: the template refuses the chat.
pub(super) fn raise_exception(message: String) -> Result<String, Error> {
    Err(refuse(message))
}

/// The name of the function that writes the time.
pub(super) const STRFTIME_NOW: &str = "strftime_now";

/// `strftime_now(format)`: the local time in a format of C's `strftime`.
pub(super) fn strftime_now(format: String) -> Result<String, Error> {
    strftime(&format, &Zoned::now())
}

/// As [`strftime_now`], with another time.
pub(super) fn strftime(format: &str, time: &Zoned) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, time).map_err(|e| refuse(e.to_string()))
}

/// The local time as text, with its distance to UTC.
pub(super) fn now() -> String {
    let now = Zoned::now();
    now.with_time_zone(TimeZone::fixed(now.offset()))
        .to_string()
}
