//! [`Watch`]: the progress of a run, as a bar on a terminal and as lines elsewhere.

use anyhow::Result;
use indicatif::ProgressBar;

use crate::terminal::output::say;
use crate::terminal::progress::{bar, is_watched};
use crate::terminal::text::{counted, duration, size};
use crate::train::metrics::line::Line;

/// After this many steps of a session the remaining time is estimated.
const MEASURED: u64 = 3;

/// Prints the progress of a run.
#[derive(Debug)]
pub(crate) struct Watch {
    bar: ProgressBar,
    /// Steps between printed lines; `None` on a terminal, where the bar is enough.
    every: Option<u64>,
    steps: u64,
    pace: Pace,
    /// Losses, tokens and seconds since the last printed line.
    recent: (Vec<f64>, u64, f64),
}

impl Watch {
    /// A run of `steps` steps, of which `done` are complete.
    #[must_use]
    pub(crate) fn new(steps: u64, done: u64, every: usize) -> Self {
        Self {
            bar: bar(steps, done).with_message("training"),
            every: (!is_watched()).then_some(every.max(1) as u64),
            steps,
            pace: Pace::default(),
            recent: (Vec::new(), 0, 0.0),
        }
    }

    /// Shows a step that had this many tokens and took this many seconds. `disk` is what the run
    /// will have written at its end, in bytes.
    pub(crate) fn step(
        &mut self,
        line: &Line,
        tokens: u64,
        seconds: f64,
        disk: impl FnOnce() -> u64,
    ) -> Result<()> {
        self.pace.add(seconds);
        self.recent.0.extend(line.loss);
        self.recent.1 += tokens;
        self.recent.2 += seconds;
        let left = self.pace.left(self.steps.saturating_sub(line.step));
        self.bar.inc(1);
        let loss = line.loss.unwrap_or(f64::NAN);
        let (values, remaining) = (self.values(line), self.remaining(line, left));
        // A narrow terminal cuts the end.
        self.bar
            .set_message(format!("loss {loss:.3}{remaining}{values}"));
        if self.pace.steps == MEASURED && line.step < self.steps {
            let others = counted((self.steps - line.step) as usize, "more step");
            self.note(format!(
                "about {} for {others} without evaluation; {} on disk at the end",
                duration(left),
                size(disk())
            ))?;
        }
        if let Some(every) = self.every
            && (line.step.is_multiple_of(every) || line.step == self.steps)
        {
            let losses = &self.recent.0;
            let loss = losses.iter().sum::<f64>() / losses.len().max(1) as f64;
            let text = format!(
                "step {} of {}: loss {loss:.4}{values}{remaining}",
                line.step, self.steps
            );
            self.note(text)?;
            self.recent = (Vec::new(), 0, 0.0);
        }
        Ok(())
    }

    /// Learning rate, speed and memory.
    fn values(&self, line: &Line) -> String {
        let (_, tokens, seconds) = self.recent;
        let mut text = String::new();
        if let Some(lr) = line.lr {
            text += &format!(", lr {lr:.1e}");
        }
        text += &format!(", {:.0} tokens/s", tokens as f64 / seconds.max(1e-9));
        if let Some(memory) = line.memory_bytes {
            text += &format!(", {}", size(memory));
        }
        text
    }

    fn remaining(&self, line: &Line, left: f64) -> String {
        if line.step < self.steps {
            format!(", {} left", duration(left))
        } else {
            String::new()
        }
    }

    /// Prints a line above the bar.
    pub(crate) fn note(&self, text: impl std::fmt::Display) -> Result<()> {
        Ok(self.bar.suspend(|| say(text))?)
    }

    /// Says in the bar what happens now.
    pub(crate) fn busy(&self, text: &'static str) {
        self.bar.set_message(text);
    }

    /// Removes the bar.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// The seconds of a step: a mean that follows changes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Pace {
    steps: u64,
    seconds: f64,
}

impl Pace {
    fn add(&mut self, seconds: f64) {
        self.steps += 1;
        // The first step allocates, so it is not typical.
        let weight = match self.steps {
            1 | 2 => 1.0,
            steps => (1.0 / (steps as f64 - 1.0)).max(0.05),
        };
        self.seconds += weight * (seconds - self.seconds);
    }

    fn left(&self, steps: u64) -> f64 {
        self.seconds * steps as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_has_the_remaining_time_before_what_a_narrow_terminal_cuts() {
        let mut watch = Watch::new(10, 0, 10);
        let mut line = Line {
            step: 1,
            loss: Some(1.25),
            lr: Some(5e-5),
            memory_bytes: Some(1 << 30),
            ..Line::default()
        };
        watch.step(&line, 60, 2.0, || 0).unwrap();
        assert_eq!(
            watch.bar.message(),
            "loss 1.250, 18 s left, lr 5.0e-5, 30 tokens/s, 1.00 GiB"
        );
        line.step = 10;
        watch.step(&line, 60, 2.0, || 0).unwrap();
        assert_eq!(
            watch.bar.message(),
            "loss 1.250, lr 5.0e-5, 30 tokens/s, 1.00 GiB"
        );
    }

    #[test]
    fn the_estimate_leaves_the_first_step_out_and_follows_the_pace() {
        let mut pace = Pace::default();
        for seconds in [9.0, 2.0, 4.0, 3.0] {
            pace.add(seconds);
        }
        assert!((pace.left(10) - 30.0).abs() < 1e-9, "{pace:?}");
        (0..200).for_each(|_| pace.add(6.0));
        assert!((pace.left(1) - 6.0).abs() < 0.01, "{pace:?}");
    }
}
