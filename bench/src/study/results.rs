//! [`Results`]: the finished runs of the plan, by task and method.

use std::path::Path;

use super::job::{Method, Outcome};
use super::log::Log;
use super::plan::Plan;
use crate::stats::Mean;

/// Runs that differ in their seeds only, by ascending seed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) seeds: Vec<u64>,
    /// The learning rate; none without training.
    pub(crate) learning_rate: Option<f64>,
}

impl Runs {
    /// The mean of a value.
    pub(crate) fn mean(&self, of: impl Fn(&Outcome) -> f64) -> Option<Mean> {
        Mean::of(&self.outcomes.iter().map(of).collect::<Vec<_>>())
    }

    /// The largest of a value.
    pub(crate) fn most(&self, of: impl Fn(&Outcome) -> u64) -> u64 {
        self.outcomes.iter().map(of).max().unwrap_or(0)
    }

    /// The difference of the percentages of right answers, on the seeds that both have.
    pub(crate) fn against(&self, other: &Self) -> Option<Mean> {
        let percent = |outcome: &Outcome| 100.0 * outcome.exact_match();
        let mine = self.seeds.iter().zip(&self.outcomes);
        let pairs: Vec<(f64, f64)> = mine
            .filter_map(|(seed, mine)| {
                let at = other.seeds.iter().position(|s| s == seed)?;
                Some((percent(mine), percent(&other.outcomes[at])))
            })
            .collect();
        Mean::of_differences(&pairs)
    }

    /// By layer: the percentage of the steps in which it was active, over the runs.
    pub(crate) fn active(&self) -> Vec<f64> {
        let layers = self.outcomes.first().map_or(0, |first| first.active.len());
        let mean = |layer: usize| {
            let shares = self
                .outcomes
                .iter()
                .filter_map(|outcome| outcome.active.get(layer));
            100.0 * shares.sum::<f64>() / self.outcomes.len() as f64
        };
        (0..layers).map(mean).collect()
    }
}

/// The finished runs of a plan.
#[derive(Debug)]
pub(crate) struct Results<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) log: &'a Log,
}

impl Results<'_> {
    /// The tests of a method on a task.
    pub(crate) fn tests(&self, task: &Path, method: Method) -> Runs {
        let mut runs = Runs::default();
        for job in self.plan.tests(self.log, task, method) {
            if let Some(outcome) = self.log.get(&job) {
                runs.outcomes.push(outcome.clone());
                runs.seeds.push(job.seed);
                runs.learning_rate = (method != Method::Base).then(|| job.learning_rate());
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(hits: &[(u64, usize)]) -> Runs {
        let outcome = |&(_, hits): &(u64, usize)| Outcome {
            hits,
            asked: 10,
            active: vec![0.5, hits as f64 / 10.0],
            ..Outcome::default()
        };
        Runs {
            outcomes: hits.iter().map(outcome).collect(),
            seeds: hits.iter().map(|(seed, _)| *seed).collect(),
            learning_rate: None,
        }
    }

    #[test]
    fn methods_are_compared_on_the_seeds_that_both_have() {
        let a = runs(&[(1, 5), (2, 7), (3, 9)]);
        let b = runs(&[(2, 5), (3, 7), (4, 0)]);
        let mean = a.against(&b).unwrap();
        assert!((mean.mean - 20.0).abs() < 1e-9, "{mean:?}");
        assert!(runs(&[(9, 1)]).against(&b).is_none());
    }

    #[test]
    fn layers_are_averaged_over_runs() {
        let runs = runs(&[(1, 2), (2, 4)]);
        let found = runs.active();
        assert!((found[0] - 50.0).abs() < 1e-9 && (found[1] - 30.0).abs() < 1e-9);
        assert!(Runs::default().active().is_empty());
    }
}
