//! [`Plan`]: the runs of the study, and those that are missing: a pure function of the log.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::job::{Job, Method, Order, Purpose, Sizes};
use super::log::Log;

/// The questions of the study.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) model: PathBuf,
    pub(crate) tasks: Vec<PathBuf>,
    pub(crate) methods: Vec<Method>,
    pub(crate) sizes: Sizes,
    /// The first number of learning rates to choose from, and the most, where the best is at an end.
    pub(crate) rates: [usize; 2],
    /// Number of seeds of the test.
    pub(crate) seeds: u64,
}

/// The name of a folder.
pub(crate) fn name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or(folder.as_os_str());
    name.to_string_lossy().into_owned()
}

impl Plan {
    /// The study.
    pub(crate) fn full(model: PathBuf, tasks: Vec<PathBuf>) -> Self {
        Self {
            model,
            tasks,
            methods: Method::value_variants().to_vec(),
            sizes: Sizes {
                steps: 300,
                batch: 8,
                max_length: 256,
                scored: 150,
                active_layers: 2,
                period: 5,
            },
            rates: [4, 6],
            seeds: 5,
        }
    }

    /// A test that everything works.
    pub(crate) fn quick(model: PathBuf, tasks: Vec<PathBuf>) -> Self {
        let full = Self::full(model, tasks);
        Self {
            methods: vec![Method::Base, Method::Full, Method::Uniform],
            sizes: Sizes {
                steps: 8,
                scored: 16,
                period: 2,
                ..full.sizes
            },
            rates: [2, 2],
            seeds: 2,
            ..full
        }
    }

    fn job(&self, purpose: Purpose, task: &Path, method: Method, rate: i32, seed: u64) -> Job {
        Job {
            model: name(&self.model),
            task: name(task),
            purpose,
            method,
            rate,
            seed,
            sizes: self.sizes,
        }
    }

    /// The job with its folders.
    pub(crate) fn order(&self, job: Job) -> Order {
        let task = self.tasks.iter().find(|task| name(task) == job.task);
        Order {
            model: self.model.clone(),
            task: task.cloned().unwrap_or_default(),
            job,
        }
    }

    /// The runs that choose the learning rate of a method, by ascending rate. Where the best rate is the
    /// lowest or the highest, the next one is added.
    pub(crate) fn choices(&self, log: &Log, task: &Path, method: Method) -> Vec<Job> {
        let [count, most] = self.rates.map(|n| n as i32);
        let first = i32::from(method == Method::Lora);
        let job = |rate| self.job(Purpose::Choice, task, method, rate, 0);
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

    /// The chosen rate, when all runs that choose it are done.
    pub(crate) fn rate(&self, log: &Log, task: &Path, method: Method) -> Option<i32> {
        if method == Method::Base {
            return Some(0);
        }
        best(log, &self.choices(log, task, method)).map(|job| job.rate)
    }

    /// The runs of the test, one for each seed; none before the rate is chosen.
    pub(crate) fn tests(&self, log: &Log, task: &Path, method: Method) -> Vec<Job> {
        let Some(rate) = self.rate(log, task, method) else {
            return Vec::new();
        };
        let seeds = if method == Method::Base {
            1
        } else {
            self.seeds
        };
        let job = |seed| self.job(Purpose::Test, task, method, rate, seed);
        (1..=seeds).map(job).collect()
    }

    /// The missing runs whose rates are known: task by task, in each first the choices and then the
    /// tests by seed, so that the tables of an interrupted study are complete.
    pub(crate) fn next(&self, log: &Log) -> Vec<Job> {
        let mut jobs = Vec::new();
        for task in &self.tasks {
            let mut tests = Vec::new();
            for &method in &self.methods {
                if method != Method::Base {
                    jobs.extend(self.choices(log, task, method));
                }
                tests.extend(self.tests(log, task, method));
            }
            tests.sort_by_key(|job| job.seed);
            jobs.extend(tests);
        }
        jobs.retain(|job| log.get(job).is_none());
        jobs
    }
}

/// The best of runs that are all done: the most right answers, then the lowest loss.
fn best<'a>(log: &Log, jobs: &'a [Job]) -> Option<&'a Job> {
    let mut scored = Vec::new();
    for job in jobs {
        let outcome = log.get(job)?;
        // A run that diverged has no finite loss.
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

    fn plan() -> Plan {
        Plan::full("models/base".into(), vec!["data/a".into(), "data/b".into()])
    }

    #[test]
    fn a_study_ends_and_runs_nothing_twice() {
        let (_dir, mut log) = log();
        let plan = plan();
        let mut count = 0;
        while let Some(job) = plan.next(&log).into_iter().next() {
            assert!(log.get(&job).is_none());
            // The middle rates are the best.
            let hits = if (1..3).contains(&job.rate) { 5 } else { 1 };
            assert_eq!(
                plan.order(job.clone()).task,
                Path::new("data").join(&job.task)
            );
            log.add(job, Outcome::sample(hits, 1.0)).unwrap();
            count += 1;
        }
        // For each task: seven methods at four rates and five seeds, and the base.
        assert_eq!(count, 2 * (7 * 9 + 1));
        assert_eq!(plan.tests(&log, Path::new("a"), Method::Full).len(), 5);
    }

    #[test]
    fn a_rate_is_added_where_the_best_is_at_an_end() {
        let (_dir, mut log) = log();
        let (plan, task) = (plan(), Path::new("a"));
        for job in plan.choices(&log, task, Method::Full) {
            let rate = job.rate;
            log.add(job, Outcome::sample(rate as usize, 1.0)).unwrap();
        }
        assert_eq!(plan.rate(&log, task, Method::Full), None);
        assert!(plan.tests(&log, task, Method::Full).is_empty());
        let jobs = plan.choices(&log, task, Method::Full);
        assert_eq!(
            jobs.iter().map(|job| job.rate).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4]
        );
        log.add(jobs[4].clone(), Outcome::sample(3, 0.5)).unwrap();
        // As many hits as at 3, but a lower loss: one more.
        let jobs = plan.choices(&log, task, Method::Full);
        log.add(jobs[5].clone(), Outcome::sample(2, 0.1)).unwrap();
        assert_eq!(plan.rate(&log, task, Method::Full), Some(4));
    }
}
