//! What is still to be run: a pure function of the log. Tests: at the foot.

use clap::ValueEnum;

use super::job::{Job, Log, Method, Purpose};
use super::scale::Scale;
use super::tasks::Task;

/// What the study asks.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) scale: Scale,
    pub(crate) tasks: Vec<Task>,
    pub(crate) methods: Vec<Method>,
    /// Pairs of gamma and K, tried with the uniform policy on the first task.
    pub(crate) ablation: Vec<(usize, usize)>,
    /// Those that go on pretraining before [`Task::Sums`].
    pub(crate) continual: Vec<Method>,
}

impl Plan {
    /// The study.
    pub(crate) fn full() -> Self {
        Self {
            scale: Scale::full(),
            tasks: Task::value_variants().to_vec(),
            methods: Method::value_variants().to_vec(),
            ablation: vec![(8, 1), (8, 5), (2, 5), (2, 25), (2, 0)],
            continual: vec![
                Method::Full,
                Method::Lora8,
                Method::Lora64,
                Method::Uniform,
                Method::Gradient,
            ],
        }
    }

    /// One task, three methods, no more.
    pub(crate) fn quick() -> Self {
        Self {
            scale: Scale::quick(),
            tasks: vec![Task::Facts],
            methods: vec![Method::Base, Method::Full, Method::Uniform],
            ablation: Vec::new(),
            continual: Vec::new(),
        }
    }

    /// A run of a method as it is by default.
    pub(crate) fn run(
        &self,
        purpose: Purpose,
        task: Task,
        method: Method,
        rate: i32,
        seed: u64,
    ) -> Job {
        let draws = method.draws();
        Job {
            scale: self.scale.print(),
            purpose,
            task,
            method,
            rate,
            seed,
            active_layers: if draws { self.scale.active_layers } else { 0 },
            period: if draws { self.scale.period } else { 0 },
        }
    }

    /// The probe of a task.
    pub(crate) fn probe(&self, task: Task) -> Job {
        self.run(Purpose::Probe, task, Method::Weighted, 1, 0)
    }

    /// The runs that the learning rate of a method is chosen from, the rates ascending: four to
    /// begin with, and where the best is the lowest or the highest, one beyond it.
    pub(crate) fn choices(&self, log: &Log, task: Task, method: Method) -> Vec<Job> {
        let [count, most] = self.scale.rates.map(|n| n as i32);
        let first = i32::from(method.rank().is_some());
        let job = |rate| self.run(Purpose::Choice, task, method, rate, 0);
        let mut jobs: Vec<Job> = (first..first + count).map(job).collect();
        while (jobs.len() as i32) < most {
            let Some(best) = best(log, &jobs) else { break };
            if best.rate == jobs[0].rate {
                jobs.insert(0, job(best.rate - 1));
            } else if best.rate == jobs[jobs.len() - 1].rate {
                jobs.push(job(best.rate + 1));
            } else {
                break;
            }
        }
        jobs
    }

    /// The rate that was chosen, once all of its runs are done.
    pub(crate) fn rate(&self, log: &Log, task: Task, method: Method) -> Option<i32> {
        if method == Method::Base {
            return Some(0);
        }
        let jobs = self.choices(log, task, method);
        best(log, &jobs).map(|job| job.rate)
    }

    /// The runs of the test, one for each seed.
    pub(crate) fn tests(&self, log: &Log, task: Task, method: Method) -> Vec<Job> {
        let seeds = 1..=if method == Method::Base {
            1
        } else {
            self.scale.seeds
        };
        let rate = self.rate(log, task, method);
        let job = |seed| rate.map(|rate| self.run(Purpose::Test, task, method, rate, seed));
        seeds.filter_map(job).collect()
    }

    /// The runs of one point of the ablation.
    pub(crate) fn ablation(&self, log: &Log, point: (usize, usize)) -> Vec<Job> {
        let jobs = self.tests(log, self.tasks[0], Method::Uniform);
        let at = |job: Job| Job {
            active_layers: point.0,
            period: point.1,
            ..job
        };
        jobs.into_iter().map(at).collect()
    }

    /// The runs that pretrain on the domain's text first.
    pub(crate) fn continual(&self, log: &Log, method: Method) -> Vec<Job> {
        let jobs = self.tests(log, Task::Sums, method);
        let first = |job: Job| Job {
            purpose: Purpose::Continual,
            ..job
        };
        jobs.into_iter().map(first).collect()
    }

    /// What is not done yet and has all that it needs, in the order in which it is wanted: task by
    /// task, of each the choices and then the tests seed by seed, so that a study that was stopped
    /// has whole tables.
    pub(crate) fn next(&self, log: &Log) -> Vec<Job> {
        let mut jobs = Vec::new();
        for &task in &self.tasks {
            if self.methods.contains(&Method::Weighted) {
                jobs.push(self.probe(task));
            }
            let mut tests = Vec::new();
            for &method in &self.methods {
                if method != Method::Base {
                    jobs.extend(self.choices(log, task, method));
                }
                tests.extend(self.tests(log, task, method));
            }
            if task == self.tasks[0] && self.methods.contains(&Method::Uniform) {
                let points = self.ablation.iter();
                tests.extend(points.flat_map(|point| self.ablation(log, *point)));
            }
            tests.sort_by_key(|job| job.seed);
            jobs.extend(tests);
        }
        let methods = self.continual.iter();
        let mut continual: Vec<Job> = methods
            .flat_map(|method| self.continual(log, *method))
            .collect();
        continual.sort_by_key(|job| job.seed);
        jobs.extend(continual);
        jobs.retain(|job| {
            let waits = job.method == Method::Weighted
                && job.purpose != Purpose::Probe
                && log.get(&self.probe(job.task)).is_none();
            log.get(job).is_none() && !waits
        });
        jobs
    }
}

/// The best of runs that are all done: the most answers, and of several the lowest loss.
fn best<'a>(log: &Log, jobs: &'a [Job]) -> Option<&'a Job> {
    let mut scored = Vec::new();
    for job in jobs {
        let outcome = log.get(job)?;
        // A run that diverged has no loss.
        let loss = if outcome.loss.is_finite() {
            outcome.loss
        } else {
            f64::MAX
        };
        scored.push((outcome.hits, loss, job));
    }
    let order = scored
        .into_iter()
        .max_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
    order.map(|(_, _, job)| job)
}

#[cfg(test)]
mod tests {
    use super::super::job::Outcome;
    use super::*;

    fn log() -> (tempfile::TempDir, Log) {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(&dir.path().join("runs.jsonl")).unwrap();
        (dir, log)
    }

    fn outcome(hits: usize, loss: f64) -> Outcome {
        Outcome {
            loss,
            hits,
            asked: 10,
            ..Outcome::default()
        }
    }

    #[test]
    fn a_study_ends_and_runs_nothing_twice() {
        let (_dir, mut log) = log();
        let plan = Plan::full();
        let mut count = 0;
        while let Some(job) = plan.next(&log).into_iter().next() {
            assert!(log.get(&job).is_none());
            // The middle rates are the best.
            let hits = if (1..3).contains(&job.rate) { 5 } else { 1 };
            log.add(job, outcome(hits, 1.0)).unwrap();
            count += 1;
        }
        // A probe, 9 methods at 4 rates and 5 seeds and the base for each task; four points of
        // the ablation, of which the fifth is the test; five methods again.
        assert_eq!(count, 3 * (1 + 9 * 9 + 1) + 4 * 5 + 5 * 5);
        assert_eq!(plan.tests(&log, Task::Form, Method::Full).len(), 5);
    }

    #[test]
    fn rates_grow_where_the_best_is_at_an_end() {
        let (_dir, mut log) = log();
        let plan = Plan::full();
        for job in plan.choices(&log, Task::Sums, Method::Full) {
            let rate = job.rate;
            log.add(job, outcome(rate as usize, 1.0)).unwrap();
        }
        assert_eq!(plan.rate(&log, Task::Sums, Method::Full), None);
        let jobs = plan.choices(&log, Task::Sums, Method::Full);
        assert_eq!(
            jobs.iter().map(|job| job.rate).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4]
        );
        log.add(jobs[4].clone(), outcome(3, 0.5)).unwrap();
        // As many hits as at 3, but a lower loss: one more.
        let jobs = plan.choices(&log, Task::Sums, Method::Full);
        log.add(jobs[5].clone(), outcome(2, 0.1)).unwrap();
        assert_eq!(plan.rate(&log, Task::Sums, Method::Full), Some(4));
    }

    #[test]
    fn the_weighted_policy_waits_for_its_probe() {
        let (_dir, mut log) = log();
        let plan = Plan::full();
        let weighted = |log: &Log| {
            let jobs = plan.next(log);
            jobs.into_iter()
                .filter(|job| job.method == Method::Weighted)
                .collect::<Vec<_>>()
        };
        assert!(
            weighted(&log)
                .iter()
                .all(|job| job.purpose == Purpose::Probe)
        );
        log.add(plan.probe(Task::Form), outcome(0, 0.0)).unwrap();
        assert!(
            weighted(&log)
                .iter()
                .any(|job| job.purpose == Purpose::Choice)
        );
    }
}
