//! `say`: prints to standard output, without the control characters of files and models.

use std::fmt::Display;
use std::io::{ErrorKind, Result, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstyle::AnsiColor;

use super::text::printable;

static DIRECT: AtomicBool = AtomicBool::new(false);

/// Lets `say` write to standard output itself. Without it, `println!` prints, whose text tests
/// capture, and which panics at a closed pipe.
pub fn write_directly() {
    DIRECT.store(true, Ordering::Relaxed);
}

/// Prints text and a line break. Control characters are [escaped](printable).
///
/// After [`write_directly`] a closed pipe is no error: `lisa show | head -1` ends quietly, and a
/// training run continues when nobody reads its output.
///
/// # Errors
///
/// Standard output cannot be written, such as to a file on a full disk.
pub(crate) fn say(text: impl Display) -> Result<()> {
    say_styled(printable(&text.to_string()))
}

/// Prints a warning to standard error. Control characters are escaped.
pub(crate) fn warn(text: impl Display) {
    let style = AnsiColor::BrightYellow.on_default().bold();
    let text = printable(&text.to_string());
    anstream::eprintln!("{style}warning{style:#}: {text}");
}

/// As [`say`], for text with the styles of this program, which are left out where colours are not
/// wanted. Text of files and of models in it must be [`printable`] already.
///
/// # Errors
///
/// As [`say`].
pub(crate) fn say_styled(text: impl Display) -> Result<()> {
    if !DIRECT.load(Ordering::Relaxed) {
        println!("{text}");
        return Ok(());
    }
    match writeln!(anstream::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
