//! [`say`]: prints to standard output.

use std::fmt::Display;
use std::io::{ErrorKind, Result, Write};
use std::sync::atomic::{AtomicBool, Ordering};

static DIRECT: AtomicBool = AtomicBool::new(false);

/// Lets [`say`] write to standard output itself. Without it, `println!` prints, whose text tests
/// capture, and which panics at a closed pipe.
pub fn write_directly() {
    DIRECT.store(true, Ordering::Relaxed);
}

/// Prints text and a line break, without colours where they are not wanted.
///
/// After [`write_directly`] a closed pipe is no error: `lisa show | head -1` ends quietly, and a
/// training run continues when nobody reads its output.
///
/// # Errors
///
/// Standard output cannot be written, such as to a file on a full disk.
pub fn say(text: impl Display) -> Result<()> {
    if !DIRECT.load(Ordering::Relaxed) {
        println!("{text}");
        return Ok(());
    }
    match writeln!(anstream::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
