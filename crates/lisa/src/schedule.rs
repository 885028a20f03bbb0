//! [`Schedule`]: counts steps and periods.

/// Counts optimizer steps and says when a new period begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    step: u64,
    sampling_period: u64,
}

impl Schedule {
    /// Step 0 of period 0. A sampling period of 0 counts as 1.
    #[must_use]
    pub(crate) fn new(sampling_period: usize) -> Self {
        Self::at(0, sampling_period)
    }

    /// The schedule of a run that has taken `step` optimizer steps.
    #[must_use]
    pub(crate) fn at(step: u64, sampling_period: usize) -> Self {
        Self {
            step,
            sampling_period: (sampling_period as u64).max(1),
        }
    }

    /// Counts one optimizer step. Returns true if the next step begins a new period.
    pub(crate) fn advance(&mut self) -> bool {
        self.step += 1;
        self.step.is_multiple_of(self.sampling_period)
    }

    /// Optimizer steps taken.
    #[must_use]
    pub(crate) fn step(&self) -> u64 {
        self.step
    }

    /// The step of its period that the next step is, counted from 0.
    #[must_use]
    pub(crate) fn step_of_period(&self) -> u64 {
        self.step % self.sampling_period
    }

    /// The period of the next step, counted from 0.
    #[must_use]
    pub(crate) fn period(&self) -> u64 {
        self.step / self.sampling_period
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_begins_after_as_many_steps_as_it_has() {
        let mut schedule = Schedule::new(2);
        let begins: Vec<bool> = (0..4).map(|_| schedule.advance()).collect();
        assert_eq!(begins, [false, true, false, true]);
        assert_eq!((schedule.step(), schedule.period()), (4, 2));
        assert_eq!(Schedule::at(4, 2), schedule);
    }
}
