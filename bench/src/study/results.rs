//! [`Results`]: what the runs of the log say together. Tests: at the foot.

use super::job::{Job, Log, Method, Outcome};
use super::next::Plan;
use super::stats::{Mean, paired};
use super::tasks::Task;

/// The runs that are compared, all of one kind: the seeds that are done, ascending.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) seeds: Vec<u64>,
}

impl Runs {
    /// Those of the jobs that are done.
    pub(crate) fn of(log: &Log, jobs: &[Job]) -> Self {
        let mut runs = Self::default();
        for job in jobs {
            if let Some(outcome) = log.get(job) {
                runs.outcomes.push(outcome.clone());
                runs.seeds.push(job.seed);
            }
        }
        runs
    }

    /// One number of each.
    pub(crate) fn values(&self, of: impl Fn(&Outcome) -> f64) -> Vec<f64> {
        self.outcomes.iter().map(of).collect()
    }

    /// The mean of one number.
    pub(crate) fn mean(&self, of: impl Fn(&Outcome) -> f64) -> Option<Mean> {
        Mean::of(&self.values(of))
    }

    /// The largest of one number.
    pub(crate) fn most(&self, of: impl Fn(&Outcome) -> u64) -> u64 {
        self.outcomes.iter().map(of).max().unwrap_or(0)
    }

    /// By layer: the mean of one number over the runs; empty where it is not known.
    pub(crate) fn by_layer(&self, of: impl Fn(&Outcome) -> &[f64]) -> Vec<f64> {
        let layers = self.outcomes.first().map_or(0, |first| of(first).len());
        let mean = |layer: usize| {
            let values = self
                .outcomes
                .iter()
                .filter_map(|outcome| of(outcome).get(layer));
            values.sum::<f64>() / self.outcomes.len() as f64
        };
        (0..layers).map(mean).collect()
    }

    /// The difference of the exact match to another method's on the seeds that both have, and
    /// whether its interval leaves out 0.
    pub(crate) fn against(&self, other: &Self) -> Option<(Mean, bool)> {
        let pairs: Vec<(f64, f64)> = self
            .seeds
            .iter()
            .zip(&self.outcomes)
            .filter_map(|(seed, mine)| {
                let at = other.seeds.iter().position(|s| s == seed)?;
                Some((mine.exact_match(), other.outcomes[at].exact_match()))
            })
            .collect();
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        paired(&a, &b)
    }
}

/// The runs of the plan that are done.
#[derive(Debug)]
pub(crate) struct Results<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) log: &'a Log,
}

impl Results<'_> {
    /// The test of a method on a task.
    pub(crate) fn tests(&self, task: Task, method: Method) -> Runs {
        Runs::of(self.log, &self.plan.tests(self.log, task, method))
    }

    /// Whether any test of a task is done.
    pub(crate) fn any(&self, task: Task) -> bool {
        let mut methods = self.plan.methods.iter();
        methods.any(|&method| !self.tests(task, method).outcomes.is_empty())
    }

    /// A point of the ablation.
    pub(crate) fn ablation(&self, point: (usize, usize)) -> Runs {
        Runs::of(self.log, &self.plan.ablation(self.log, point))
    }

    /// The test after pretraining on the domain's text.
    pub(crate) fn continual(&self, method: Method) -> Runs {
        Runs::of(self.log, &self.plan.continual(self.log, method))
    }

    /// By layer: the shares of the steps in which it trained, over all tasks.
    pub(crate) fn drawn(&self, method: Method) -> Vec<f64> {
        let mut all = Runs::default();
        for &task in &self.plan.tasks {
            all.outcomes.extend(self.tests(task, method).outcomes);
        }
        all.by_layer(|outcome| &outcome.drawn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(hits: &[(u64, usize)]) -> Runs {
        let outcome = |&(_, hits): &(u64, usize)| Outcome {
            hits,
            asked: 10,
            drawn: vec![0.5, hits as f64],
            ..Outcome::default()
        };
        Runs {
            outcomes: hits.iter().map(outcome).collect(),
            seeds: hits.iter().map(|(seed, _)| *seed).collect(),
        }
    }

    #[test]
    fn methods_are_compared_on_the_seeds_that_both_have() {
        let (a, b) = (
            runs(&[(1, 5), (2, 7), (3, 9)]),
            runs(&[(2, 5), (3, 7), (4, 0)]),
        );
        let (mean, _) = a.against(&b).unwrap();
        assert!((mean.mean - 0.2).abs() < 1e-12, "{mean:?}");
        assert!(runs(&[(9, 1)]).against(&b).is_none());
    }

    #[test]
    fn layers_are_averaged_over_runs() {
        let runs = runs(&[(1, 2), (2, 4)]);
        assert_eq!(runs.by_layer(|outcome| &outcome.drawn), [0.5, 3.0]);
        assert!(runs.by_layer(|outcome| &outcome.norms).is_empty());
    }
}
