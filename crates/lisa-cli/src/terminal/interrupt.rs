//! Ctrl-C and other signals, and the points at which a run can stop.

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

/// A place in a run where it can stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Model and data are read. Nothing is trained and nothing is written yet.
    Prepare,
    /// Before a batch of an evaluation.
    Evaluate,
    /// Before a generated token.
    Generate,
    /// Before a batch of a step.
    Batch,
    /// Between the forward and the backward pass of a batch.
    Backward,
    /// After a step.
    Step,
}

/// Whether a run stops at this point.
pub type Stop<'a> = &'a (dyn Fn(Point) -> bool + Sync);

/// Returns the error [`Stopped`] if the run stops at this point.
pub(crate) fn check(stop: Stop<'_>, point: Point) -> Result<()> {
    if stop(point) {
        return Err(Stopped.into());
    }
    Ok(())
}

/// The run was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Stopped {}

const STOPPING: &str =
    "stopping after the current batch, token or step; the steps taken are saved.";
const AGAIN: &str = "Press Ctrl-C again to end now";

/// What happens at Ctrl-C or another signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The program ends at once.
    End,
    /// The program ends, and there is nothing to save.
    EndBefore,
    /// The run is asked to stop.
    Stop,
    /// The run is asked to stop already.
    Stopping,
}

/// What Ctrl-C or another signal asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
    pressed: Arc<AtomicBool>,
    begun: Arc<AtomicBool>,
}

impl Interrupt {
    /// Handles Ctrl-C from now on, and on Unix the [signals](on_termination) that end a program. Call this
    /// function only once.
    ///
    /// While model and data are read, each of them ends the program at once: there is nothing to save.
    /// Later the first one makes [`asked`](Self::asked) true. The second Ctrl-C ends the program, with
    /// exit code 130 as usual; files are replaced by renaming, so saved files are complete. `at_end` is
    /// called before the first one ends the program. The second Ctrl-C leaves the lock: the run may still
    /// write.
    pub(crate) fn on_ctrl_c(at_end: fn()) -> Result<Self> {
        let interrupt = Self::default();
        #[cfg(unix)]
        {
            let state = interrupt.clone();
            on_termination(move || state.ask(at_end, false))?;
        }
        let state = interrupt.clone();
        ctrlc::set_handler(move || state.ask(at_end, true))?;
        Ok(interrupt)
    }

    /// Asks the run to stop. Ends the program if it has nothing to save, or at the second Ctrl-C.
    fn ask(&self, at_end: fn(), is_ctrl_c: bool) {
        match self.answer(is_ctrl_c) {
            Answer::End => std::process::exit(130),
            Answer::EndBefore => {
                say("stopped before training: there is nothing to save");
                at_end();
                std::process::exit(130);
            }
            Answer::Stop if is_ctrl_c => say(&format!("{STOPPING}\n{AGAIN}")),
            Answer::Stop => say(STOPPING),
            Answer::Stopping if is_ctrl_c => say(AGAIN),
            Answer::Stopping => {}
        }
    }

    /// Takes note of a signal. Another signal than Ctrl-C does not count as the first Ctrl-C: closing a
    /// terminal or stopping a container may send both.
    fn answer(&self, is_ctrl_c: bool) -> Answer {
        let is_asked = self.asked.swap(true, Ordering::SeqCst);
        if is_ctrl_c && self.pressed.swap(true, Ordering::SeqCst) {
            Answer::End
        } else if is_asked {
            Answer::Stopping
        } else if self.begun.load(Ordering::SeqCst) {
            Answer::Stop
        } else {
            Answer::EndBefore
        }
    }

    /// Whether the run is asked to stop.
    #[must_use]
    pub(crate) fn asked(&self, point: Point) -> bool {
        if point != Point::Prepare {
            self.begun.store(true, Ordering::SeqCst);
        }
        self.asked.load(Ordering::SeqCst)
    }
}

/// Prints to standard error, which may be a terminal that is closed.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "\n{text}");
}

/// Calls `handle` at each SIGTERM, which batch systems and containers send, and at each SIGHUP, which comes
/// when the terminal is closed. Both may come more than once.
#[cfg(unix)]
fn on_termination(handle: impl Fn() + Send + 'static) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGTERM};
    use signal_hook::iterator::Signals;

    let mut signals = Signals::new([SIGTERM])?;
    if !ignores_hangup() {
        signals.add_signal(SIGHUP)?;
    }
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(move || {
        for _ in signals.forever() {
            handle();
        }
    })?;
    Ok(())
}

/// Whether SIGHUP is ignored, as under `nohup`, or whether that is not known: then it is left as it is.
#[cfg(unix)]
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let ignored = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The lowest bit is that of signal 1.
    ignored.is_none_or(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_second_ctrl_c_ends_a_run_that_has_begun() {
        let interrupt = Interrupt::default();
        assert!(!interrupt.asked(Point::Step));
        for (is_ctrl_c, answer) in [
            (false, Answer::Stop),
            (false, Answer::Stopping),
            (true, Answer::Stopping),
            (false, Answer::Stopping),
            (true, Answer::End),
        ] {
            assert_eq!(interrupt.answer(is_ctrl_c), answer);
            assert!(interrupt.asked(Point::Step));
        }
        let interrupt = Interrupt::default();
        assert!(!interrupt.asked(Point::Prepare));
        assert_eq!(interrupt.answer(true), Answer::EndBefore);
        assert_eq!(interrupt.answer(true), Answer::End);
    }
}
