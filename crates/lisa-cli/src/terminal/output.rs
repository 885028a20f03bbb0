//! `say`: prints to standard output, without the control characters of files and models.

use std::fmt::Display;
use std::io::{Error, ErrorKind, IsTerminal, Result, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstyle::AnsiColor;

use super::text::printable;

static DIRECT: AtomicBool = AtomicBool::new(false);
/// Whether standard output was a terminal when the program began.
static TERMINAL: AtomicBool = AtomicBool::new(false);
/// The error of a terminal that is closed (EIO).
const CLOSED: i32 = 5;

/// Lets `say` write to standard output itself. Without it, `println!` prints, whose text tests
/// capture, and which panics at a closed pipe.
pub fn write_directly() {
    DIRECT.store(true, Ordering::Relaxed);
    TERMINAL.store(std::io::stdout().is_terminal(), Ordering::Relaxed);
}

/// Prints text and a line break. Control characters are [escaped](printable).
///
/// After [`write_directly`] a closed pipe or terminal is no error: `lisa show | head -1` ends quietly, and
/// a training run continues when nobody reads its output.
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
    if DIRECT.load(Ordering::Relaxed) {
        // A terminal may be closed.
        let _ = writeln!(anstream::stderr(), "{style}warning{style:#}: {text}");
    } else {
        anstream::eprintln!("{style}warning{style:#}: {text}");
    }
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
        Err(error) if is_unread(&error, TERMINAL.load(Ordering::Relaxed)) => Ok(()),
        written => written,
    }
}

/// Whether standard output, perhaps a terminal, was closed by its reader.
fn is_unread(error: &Error, is_terminal: bool) -> bool {
    let is_hung_up = cfg!(unix) && is_terminal && error.raw_os_error() == Some(CLOSED);
    error.kind() == ErrorKind::BrokenPipe || is_hung_up
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_or_terminal_is_not_read_and_a_broken_disk_is_an_error() {
        let closed = || Error::from_raw_os_error(CLOSED);
        assert!(is_unread(&ErrorKind::BrokenPipe.into(), false));
        assert_eq!(is_unread(&closed(), true), cfg!(unix));
        assert!(!is_unread(&closed(), false));
        assert!(!is_unread(&ErrorKind::StorageFull.into(), true));
    }
}
