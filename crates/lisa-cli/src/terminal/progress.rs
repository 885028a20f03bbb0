//! Progress bars, on standard error if it is a terminal.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Whether progress bars are seen. Where they are not, such as in a pipe, lines say what happens.
#[must_use]
pub(crate) fn is_watched() -> bool {
    std::io::stdout().is_terminal() && std::io::stderr().is_terminal()
}

/// A progress bar of `length` steps, with `done` steps complete. It has one line: a message that
/// is too long for the terminal is cut.
#[must_use]
pub(crate) fn bar(length: u64, done: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    bar.set_style(style("{bar:12} {pos}/{len}  {wide_msg}"));
    bar.set_position(done);
    bar.reset_eta();
    bar
}

/// As [`bar`], with the time that is left.
#[must_use]
pub(crate) fn timed_bar(length: u64) -> ProgressBar {
    let bar = bar(length, 0);
    bar.set_style(style("{bar:12} {pos}/{len} {eta:>4}  {wide_msg}"));
    bar
}

/// A bar that appears after a second and disappears when it is dropped.
#[derive(Debug)]
pub(crate) struct Slow {
    bar: ProgressBar,
    since: Instant,
    shown: Mutex<bool>,
}

impl Slow {
    /// A bar that counts bytes.
    #[must_use]
    pub(crate) fn bytes(what: &str) -> Self {
        Self::new(what, "{bar:12} {bytes}/{total_bytes} {eta:>4}  {wide_msg}")
    }

    /// A bar that counts items.
    #[must_use]
    pub(crate) fn items(what: &str) -> Self {
        Self::new(what, "{bar:12} {pos}/{len} {eta:>4}  {wide_msg}")
    }

    /// A bar that counts items whose total is not known.
    #[must_use]
    pub(crate) fn count(what: &str) -> Self {
        Self::new(what, "{pos}  {wide_msg}")
    }

    fn new(what: &str, template: &str) -> Self {
        let bar = ProgressBar::hidden();
        bar.set_style(style(template));
        bar.set_message(what.to_owned());
        Self {
            bar,
            since: Instant::now(),
            shown: Mutex::new(false),
        }
    }

    /// Sets the number of completed items and the total.
    pub(crate) fn set(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        let Ok(mut shown) = self.shown.lock() else {
            return;
        };
        if !*shown && self.since.elapsed() > Duration::from_secs(1) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            *shown = true;
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
