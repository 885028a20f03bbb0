//! [`Results`]: the finished runs of the plan, by task and arm.

use std::collections::BTreeMap;
use std::path::Path;

use super::arm::Arm;
use super::job::{Job, Outcome, Point, is_cpu};
use super::log::Log;
use super::plan::Plan;
use crate::stats::{Interval, Mean, Weighted, bootstrap};

/// The runs of an arm on a task.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs {
    /// By ascending seed.
    pub(crate) tests: Vec<Outcome>,
    pub(crate) seeds: Vec<u64>,
    pub(crate) learning_rate: Option<f64>,
    /// Seconds of a step ([`Results::time_per_step`]), where they were measured.
    pub(crate) time_per_step: Option<f64>,
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
            let pairs = mine.scores.losses.iter().zip(&other.scores.losses);
            let pairs = pairs.map(|(a, b)| a - b);
            pairs
                .zip(mine.scores.counts.iter().map(|&n| f64::from(n)))
                .collect()
        })
    }

    /// The percentage of right choices minus that of another arm.
    pub(crate) fn accuracy_minus(&self, other: &Self) -> Option<Interval> {
        self.accuracy()?;
        self.differences(other, |mine, other| {
            let pairs = mine.scores.right.iter().zip(&other.scores.right);
            pairs
                .map(|(a, b)| (100.0 * (f64::from(*a) - f64::from(*b)), 1.0))
                .collect()
        })
    }

    /// The runs of this arm and of another one, by seed. The untrained model is the same with each seed.
    fn pairs<'a>(&'a self, other: &'a Self) -> Vec<(&'a Outcome, &'a Outcome)> {
        let mine = self.seeds.iter().zip(&self.tests);
        if self.learning_rate.is_none() {
            let base = self.tests.first();
            return base.map_or(Vec::new(), |base| {
                other.tests.iter().map(|test| (base, test)).collect()
            });
        }
        let pair = |(seed, mine)| {
            let at = other.seeds.iter().position(|found| found == seed)?;
            Some((mine, &other.tests[at]))
        };
        mine.filter_map(pair).collect()
    }

    fn differences(
        &self,
        other: &Self,
        of: impl Fn(&Outcome, &Outcome) -> Vec<Weighted>,
    ) -> Option<Interval> {
        let pairs = self.pairs(other).into_iter();
        bootstrap(
            &pairs
                .map(|(mine, other)| of(mine, other))
                .collect::<Vec<_>>(),
        )
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

    /// The loss of the curve after so many seconds at the arm's cost of a step; none outside the curves.
    pub(crate) fn loss_after(&self, seconds: f64) -> Option<Mean> {
        let steps = seconds / self.time_per_step?;
        let losses = self.tests.iter().map(|test| at(&test.curve, steps));
        Mean::of(&losses.collect::<Option<Vec<_>>>()?)
    }

    /// That loss minus the one of another arm, over the seeds that both have.
    pub(crate) fn minus_after(&self, other: &Self, seconds: f64) -> Option<Mean> {
        let [mine, theirs] = [self, other].map(|runs| Some(seconds / runs.time_per_step?));
        let (mine, theirs) = (mine?, theirs?);
        let pairs = self.pairs(other).into_iter();
        let differences = pairs.map(|(a, b)| Some(at(&a.curve, mine)? - at(&b.curve, theirs)?));
        Mean::of(&differences.collect::<Option<Vec<_>>>()?)
    }
}

/// The loss of a curve after so many steps, between two points; none outside the curve.
fn at(curve: &[Point], steps: f64) -> Option<f64> {
    let after = curve
        .iter()
        .position(|point| point.step as f64 >= steps - 1e-9)?;
    let (right, left) = (curve[after], curve.get(after.checked_sub(1)?)?);
    let share = (steps - left.step as f64) / (right.step - left.step) as f64;
    Some(left.loss + share * (right.loss - left.loss))
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
    /// The runs of an arm on a task, with the rate that was chosen.
    pub(crate) fn runs(&self, task: &Path, arm: Arm) -> Runs {
        let tests = self.plan.tests(self.log, task, arm);
        let rate = tests.first().map(|job| job.rate);
        let runs = rate.and_then(|rate| self.by_rate(task, arm).remove(&rate));
        Runs {
            time_per_step: self.time_per_step(task, arm),
            ..runs.unwrap_or_default()
        }
    }

    /// Seconds of a step of an arm, of the run that measures it. Tests of different arms are made on different
    /// days and machines, so their times cannot be compared.
    fn time_per_step(&self, task: &Path, arm: Arm) -> Option<f64> {
        let wanted = self.plan.time(self.log, task, arm)?;
        self.log.get(&wanted).map(Outcome::time_per_step)
    }

    /// The runs of an arm with other rates than the chosen one, by ascending rate.
    pub(crate) fn other_rates(&self, task: &Path, arm: Arm) -> Vec<Runs> {
        let tests = self.plan.tests(self.log, task, arm);
        let mut all = self.by_rate(task, arm);
        if let Some(chosen) = tests.first() {
            all.remove(&chosen.rate);
        }
        all.into_values().collect()
    }

    /// The finished runs of an arm by rate.
    fn by_rate(&self, task: &Path, arm: Arm) -> BTreeMap<i32, Runs> {
        let mut all: BTreeMap<i32, Runs> = BTreeMap::new();
        let mut rows = self.of_arm(task, arm);
        rows.sort_by_key(|(job, _)| job.seed);
        for (job, outcome) in rows {
            let runs = all.entry(job.rate).or_default();
            runs.tests.push(outcome.clone());
            runs.seeds.push(job.seed);
            runs.learning_rate = (arm != Arm::Base).then(|| job.learning_rate());
        }
        all
    }

    /// The finished tests of an arm with the plan's seeds and any rate.
    fn of_arm(&self, task: &Path, arm: Arm) -> Vec<&(Job, Outcome)> {
        let wanted = self.plan.tests(self.log, task, arm);
        let is_one = |job: &Job| {
            wanted.iter().any(|wanted| {
                let rate = wanted.rate;
                *wanted
                    == Job {
                        rate,
                        ..job.clone()
                    }
            })
        };
        let rows = self.log.all().iter();
        rows.filter(|(job, _)| is_one(job)).collect()
    }

    /// The unit of times, and its name.
    pub(crate) fn unit(&self) -> [&'static str; 2] {
        let mut all = self.log.all().iter().filter(|(job, _)| self.plan.has(job));
        if all.all(|(_, run)| is_cpu(&run.device)) {
            ["CPU-s", "CPU time"]
        } else {
            ["s", "time"]
        }
    }

    /// The arms of a task that have finished runs.
    pub(crate) fn finished(&self, task: &Path) -> Vec<(Arm, Runs)> {
        let arms = self.plan.arms_of(task).into_iter();
        let runs = arms.map(|arm| (arm, self.runs(task, arm)));
        runs.filter(|(_, runs)| !runs.tests.is_empty()).collect()
    }

    /// The variants of a task that have finished runs, and what they vary.
    pub(crate) fn variants(&self, task: &Path) -> Vec<(Arm, Runs)> {
        let variants = self.plan.variants_of(task).into_iter();
        let runs = variants.map(|arm| (arm, self.runs(task, arm)));
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
            device: "Cpu".into(),
            ..Outcome::default()
        };
        Runs {
            tests: losses.iter().map(outcome).collect(),
            seeds: losses.iter().map(|(seed, _)| *seed).collect(),
            learning_rate: Some(1e-4),
            time_per_step: Some(0.5),
        }
    }

    #[test]
    fn arms_are_compared_on_the_seeds_that_both_have() {
        let a = runs(&[(1, [9.0, 9.0]), (2, [2.0, 4.0]), (3, [2.0, 4.0])]);
        let b = runs(&[(2, [1.0, 3.0]), (3, [1.0, 3.0]), (4, [0.0, 0.0])]);
        // A difference of one nat in each row of two tokens.
        let minus = a.minus(&b).unwrap();
        assert_eq!((minus.mean, minus.low, minus.high), (0.5, 0.5, 0.5));
        assert_eq!(minus.of_seeds, [0.5, 0.5]);
        assert!(runs(&[(9, [1.0, 1.0])]).minus(&b).is_none());
        // The untrained model has one seed, and is compared with all.
        let base = Runs {
            learning_rate: None,
            ..runs(&[(1, [3.0, 3.0])])
        };
        let minus = base
            .minus(&runs(&[(2, [1.0, 3.0]), (3, [1.0, 3.0])]))
            .unwrap();
        assert_eq!(minus.mean, 0.5);
        assert_eq!(a.loss().unwrap().mean, (18.0 + 6.0 + 6.0) / 12.0);
        assert_eq!(a.accuracy().unwrap().mean, 50.0);
    }

    #[test]
    fn curves_are_read_at_a_time() {
        let runs = runs(&[(1, [0.0, 0.0]), (2, [1.0, 0.0])]);
        assert_eq!(runs.curve()[1], (20, vec![2.0, 3.0]));
        // Steps 10 and 20 are at 5 and 10 seconds, with mean losses 4.5 and 2.5.
        let after = |seconds| runs.loss_after(seconds).map(|found| found.mean);
        assert_eq!(after(7.5), Some(3.5));
        assert_eq!(after(10.0), Some(2.5));
        assert_eq!((after(10.5), after(4.0)), (None, None));
        assert_eq!(Runs::default().loss_after(1.0), None);
        // Slower, and with one seed in common.
        let mut other = runs.clone();
        other.seeds = vec![2, 3];
        other.time_per_step = Some(0.625);
        // After 7.5 s, seed 2 is at step 15 with a loss of 4, and the other at step 12 with 3.6.
        let minus = runs.minus_after(&other, 7.5).unwrap();
        assert!((minus.mean - 0.4).abs() < 1e-9, "{minus:?}");
        assert_eq!(runs.minus_after(&other, 4.0), None);
    }
}
