//! [`Clock`]: where the time of a run goes.

use std::fmt;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::terminal::text::duration;

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Making batches.
    Data,
    /// Forward passes of training.
    Forward,
    /// Backward passes.
    Backward,
    /// Optimizer steps.
    Update,
    /// Held-out losses and generated answers.
    Evaluation,
    /// Checkpoints and the finished model.
    Saving,
}

const PARTS: [(Part, &str); 6] = [
    (Part::Data, "data"),
    (Part::Forward, "forward"),
    (Part::Backward, "backward"),
    (Part::Update, "update"),
    (Part::Evaluation, "evaluation"),
    (Part::Saving, "saving"),
];

/// The seconds of each part, over all sessions of a run.
///
/// A device that computes asynchronously is waited for only where the loss is read, so there the
/// forward pass includes the end of the step before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Clock([f64; PARTS.len()]);

impl Clock {
    /// Runs `work` and counts its time.
    pub(crate) fn time<T>(&mut self, part: Part, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        self.0[part as usize] += started.elapsed().as_secs_f64();
        result
    }

    /// The seconds of training: all parts except evaluation and saving.
    #[must_use]
    pub(crate) fn training(&self) -> f64 {
        self.0[..Part::Evaluation as usize].iter().sum()
    }

    /// The seconds of each part with its name.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        PARTS
            .iter()
            .map(|(part, name)| (*name, self.0[*part as usize]))
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: f64 = self.0.iter().sum();
        write!(f, "{}", duration(all))?;
        for (index, (name, seconds)) in self.parts().enumerate() {
            let comma = if index == 0 { ":" } else { "," };
            let share = 100.0 * seconds / all.max(1e-9);
            write!(f, "{comma} {name} {share:.0} %")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluation_and_saving_are_no_training() {
        let clock = Clock([1.0, 2.0, 3.0, 4.0, 20.0, 10.0]);
        assert_eq!(clock.training(), 10.0);
        assert_eq!(
            clock.to_string(),
            "40 s: data 2 %, forward 5 %, backward 8 %, update 10 %, evaluation 50 %, saving 25 %"
        );
    }
}
