//! [`say`]: prints to standard output.

use std::fmt::Display;
use std::io::{ErrorKind, Result, Write};

/// Prints text and a line break, without colours where they are not wanted.
///
/// A closed pipe is no error, so `lisa show | head -1` ends quietly, and a training run goes on
/// although nobody reads what it prints.
///
/// # Errors
///
/// Standard output cannot be written, such as to a file on a full disk.
pub fn say(text: impl Display) -> Result<()> {
    match writeln!(anstream::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
