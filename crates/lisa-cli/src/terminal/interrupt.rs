//! Ctrl-C and SIGTERM, and the points at which a run can stop.

use std::fmt;
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

/// What Ctrl-C or SIGTERM asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
    begun: Arc<AtomicBool>,
}

impl Interrupt {
    /// Handles Ctrl-C from now on, and on Unix SIGTERM in the same way: batch systems and containers send
    /// it. Call this function only once.
    ///
    /// While model and data are read, Ctrl-C ends the program at once: there is nothing to save.
    /// Later the first one makes [`asked`](Self::asked) true. The second one ends the program, with
    /// exit code 130 as usual; files are replaced by renaming, so saved files are complete. `at_end` is
    /// called before the first Ctrl-C ends the program. The second one leaves the lock: the run may still
    /// write.
    pub(crate) fn on_ctrl_c(at_end: fn()) -> Result<Self> {
        let interrupt = Self::default();
        let state = interrupt.clone();
        let handle = move || state.handle(at_end);
        #[cfg(unix)]
        on_termination(handle.clone())?;
        ctrlc::set_handler(handle)?;
        Ok(interrupt)
    }

    /// Asks the run to stop, or ends the program.
    fn handle(&self, at_end: fn()) {
        if self.asked.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        if !self.begun.load(Ordering::SeqCst) {
            eprintln!("\nstopped before training: there is nothing to save");
            at_end();
            std::process::exit(130);
        }
        eprintln!(
            "\nstopping after the current batch, token or step; the steps taken are saved.\n\
             Press Ctrl-C again to end now"
        );
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

/// Calls `handle` at each SIGTERM. SIGHUP is left as it is: `nohup` ignores it, and after it the terminal,
/// to which a run prints, is gone.
#[cfg(unix)]
fn on_termination(handle: impl Fn() + Send + 'static) -> std::io::Result<()> {
    use signal_hook::consts::SIGTERM;
    use signal_hook::iterator::Signals;

    let mut signals = Signals::new([SIGTERM])?;
    let thread = std::thread::Builder::new().name("sigterm".to_owned());
    thread.spawn(move || {
        for _ in signals.forever() {
            handle();
        }
    })?;
    Ok(())
}
