//! [`Results`]: the finished runs of the plan, by task and arm.

use std::path::Path;

use super::arm::Arm;
use super::job::{Outcome, Point};
use super::log::Log;
use super::plan::Plan;
use crate::stats::{Interval, Mean, bootstrap};

/// The runs of an arm on a task.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs {
    /// By ascending seed.
    pub(crate) tests: Vec<Outcome>,
    pub(crate) seeds: Vec<u64>,
    pub(crate) learning_rate: Option<f64>,
}

impl Runs {
    /// A run of which memory and CPU time were measured.
    pub(crate) fn cost(&self) -> Option<&Outcome> {
        self.tests.iter().find(|test| test.peak > 0)
    }

    /// The mean of a value over the seeds.
    pub(crate) fn mean(&self, of: impl Fn(&Outcome) -> f64) -> Option<Mean> {
        Mean::of(&self.tests.iter().map(of).collect::<Vec<_>>())
    }

    /// The held-out loss.
    pub(crate) fn loss(&self) -> Option<Mean> {
        self.mean(|outcome| outcome.scores.loss())
    }

    /// The percentage of right choices; none for a task without choices.
    pub(crate) fn accuracy(&self) -> Option<Mean> {
        let has = self.tests.iter().any(|test| !test.scores.right.is_empty());
        has.then(|| self.mean(|outcome| 100.0 * right(outcome)))?
    }

    /// The held-out loss minus that of another arm, over the seeds that both have and the rows.
    pub(crate) fn minus(&self, other: &Self) -> Option<Interval> {
        self.differences(other, |mine, other| {
            let count: u32 = mine.scores.counts.iter().sum();
            let mean = f64::from(count) / mine.scores.counts.len().max(1) as f64;
            let pairs = mine.scores.losses.iter().zip(&other.scores.losses);
            pairs.map(|(a, b)| (a - b) / mean.max(1.0)).collect()
        })
    }

    /// The percentage of right choices minus that of another arm.
    pub(crate) fn accuracy_minus(&self, other: &Self) -> Option<Interval> {
        self.accuracy()?;
        self.differences(other, |mine, other| {
            let pairs = mine.scores.right.iter().zip(&other.scores.right);
            pairs
                .map(|(a, b)| 100.0 * (f64::from(*a) - f64::from(*b)))
                .collect()
        })
    }

    fn differences(
        &self,
        other: &Self,
        of: impl Fn(&Outcome, &Outcome) -> Vec<f64>,
    ) -> Option<Interval> {
        let mut differences = Vec::new();
        for (seed, mine) in self.seeds.iter().zip(&self.tests) {
            if let Some(at) = other.seeds.iter().position(|found| found == seed) {
                differences.push(of(mine, &other.tests[at]));
            }
        }
        bootstrap(&differences)
    }

    /// CPU seconds of a step, where they were measured.
    pub(crate) fn cpu_per_step(&self) -> Option<f64> {
        self.cost().map(Outcome::cpu_per_step)
    }

    /// The curve: for each point its step, and the losses of all seeds.
    pub(crate) fn curve(&self) -> Vec<(usize, Vec<f64>)> {
        let first = self.tests.first().map_or(&[][..], |test| &test.curve);
        let at = |index: usize, step: usize| {
            let points = self.tests.iter().filter_map(|test| test.curve.get(index));
            let points = points.filter(|point: &&Point| point.step == step);
            points.map(|point| point.loss).collect()
        };
        let points = first.iter().enumerate();
        points
            .map(|(index, point)| (point.step, at(index, point.step)))
            .collect()
    }

    /// The mean loss of the curve after so many CPU seconds, between two points; none outside the curve.
    pub(crate) fn loss_after(&self, seconds: f64) -> Option<f64> {
        let per_step = self.cpu_per_step()?;
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len().max(1) as f64;
        let points: Vec<(f64, f64)> = self
            .curve()
            .iter()
            .map(|(step, losses)| (*step as f64 * per_step, mean(losses)))
            .collect();
        let after = points.iter().position(|(at, _)| *at >= seconds - 1e-9)?;
        let (right, below) = (points[after], points.get(after.checked_sub(1)?)?);
        let share = (seconds - below.0) / (right.0 - below.0);
        Some(below.1 + share * (right.1 - below.1))
    }
}

/// The share of right choices.
fn right(outcome: &Outcome) -> f64 {
    let right: u32 = outcome
        .scores
        .right
        .iter()
        .map(|right| u32::from(*right))
        .sum();
    f64::from(right) / outcome.scores.right.len().max(1) as f64
}

/// The finished runs of a plan.
#[derive(Debug)]
pub(crate) struct Results<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) log: &'a Log,
}

impl Results<'_> {
    /// The runs of an arm on a task.
    pub(crate) fn runs(&self, task: &Path, arm: Arm) -> Runs {
        let mut runs = Runs::default();
        for job in self.plan.tests(self.log, task, arm) {
            if let Some(outcome) = self.log.get(&job) {
                runs.tests.push(outcome.clone());
                runs.seeds.push(job.seed);
                runs.learning_rate = (arm != Arm::Base).then(|| job.learning_rate());
            }
        }
        runs
    }

    /// The arms of a task that have finished runs.
    pub(crate) fn finished(&self, task: &Path) -> Vec<(Arm, Runs)> {
        let arms = self.plan.arms_of(task).into_iter();
        let runs = arms.map(|arm| (arm, self.runs(task, arm)));
        runs.filter(|(_, runs)| !runs.tests.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::job::Scores;
    use super::*;

    fn runs(losses: &[(u64, [f64; 2])]) -> Runs {
        let outcome = |&(_, losses): &(u64, [f64; 2])| Outcome {
            scores: Scores {
                losses: losses.to_vec(),
                counts: vec![2, 2],
                right: vec![1, u8::from(losses[1] < 1.0)],
            },
            curve: [(10, 4.0), (20, 2.0)]
                .map(|(step, loss)| Point {
                    step,
                    cpu: step as f64 * 0.5,
                    loss: loss + losses[0],
                    ..Point::default()
                })
                .to_vec(),
            peak: 1,
            ..Outcome::default()
        };
        Runs {
            tests: losses.iter().map(outcome).collect(),
            seeds: losses.iter().map(|(seed, _)| *seed).collect(),
            learning_rate: None,
        }
    }

    #[test]
    fn arms_are_compared_on_the_seeds_that_both_have() {
        let a = runs(&[(1, [9.0, 9.0]), (2, [2.0, 4.0]), (3, [2.0, 4.0])]);
        let b = runs(&[(2, [1.0, 3.0]), (3, [1.0, 3.0]), (4, [0.0, 0.0])]);
        // A difference of one nat in each row of two tokens.
        let minus = a.minus(&b).unwrap();
        assert_eq!((minus.mean, minus.low, minus.high), (0.5, 0.5, 0.5));
        assert!(runs(&[(9, [1.0, 1.0])]).minus(&b).is_none());
        assert_eq!(a.loss().unwrap().mean, (18.0 + 6.0 + 6.0) / 12.0);
        assert_eq!(a.accuracy().unwrap().mean, 50.0);
    }

    #[test]
    fn curves_are_read_at_a_time() {
        let runs = runs(&[(1, [0.0, 0.0]), (2, [1.0, 0.0])]);
        assert_eq!(runs.curve()[1], (20, vec![2.0, 3.0]));
        assert_eq!(runs.cpu_per_step(), Some(0.5));
        // Steps 10 and 20 are at 5 and 10 seconds, with mean losses 4.5 and 2.5.
        assert_eq!(runs.loss_after(7.5), Some(3.5));
        assert_eq!(runs.loss_after(10.0), Some(2.5));
        assert_eq!(runs.loss_after(10.5), None);
        assert_eq!(Runs::default().loss_after(1.0), None);
    }
}
