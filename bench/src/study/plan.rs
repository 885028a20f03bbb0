//! [`Plan`]: the runs of the study, and those that are missing: a pure function of the log.

use std::path::{Path, PathBuf};

use super::arm::{Arm, STEP, Sampled};
use super::arms::{ARMS, FROZEN_2, Kind, LEVERS, ONCE, REFERENCE, frozen, once, variants};
use super::job::{Job, Order, Purpose, Sizes};
use super::log::Log;
use crate::preset::Dtype;

/// The questions of the study.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) model: PathBuf,
    pub(crate) tasks: Vec<PathBuf>,
    /// The arms of every task.
    pub(crate) arms: Vec<Arm>,
    /// What is compared on the first task only.
    pub(crate) variants: Vec<Arm>,
    /// The best of these, which became arms of every task.
    pub(crate) levers: Vec<Arm>,
    /// By task, about the most layers with embeddings frozen that need no more memory than LoRA. Drawn once
    /// they are an arm, and sampled once and sampled every K steps they are variants.
    pub(crate) largest: Vec<(&'static str, usize)>,
    pub(crate) sizes: Sizes,
    pub(crate) dtype: Dtype,
    /// The first number of learning rates to choose from, and the most, where the best is at an end.
    pub(crate) rates: [usize; 2],
    /// Number of seeds of the test, of the arms and of the variants.
    pub(crate) seeds: u64,
    pub(crate) variant_seeds: u64,
    /// The purposes of the runs that are made, and their arms; all if it is empty.
    pub(crate) purposes: Vec<Purpose>,
    pub(crate) kinds: Vec<Kind>,
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
            arms: ARMS.to_vec(),
            variants: variants(),
            levers: LEVERS.to_vec(),
            // The peaks of ten layers are 340, 56 and 319 MiB below LoRA's. On `gsm8k` each of four more needs
            // 48 MiB, and of six more 65: it depends on the layers that are drawn for the longest batch.
            largest: vec![("gsm8k", 14), ("pubmedqa", 11), ("instruct", 14)],
            sizes: Sizes {
                steps: 120,
                choice_steps: 40,
                batch: 4,
                max_length: 512,
                scored: 128,
                points: 16,
                others: 16,
                every: 20,
                answers: 32,
            },
            dtype: Dtype::F32,
            rates: [3, 5],
            seeds: 3,
            variant_seeds: 1,
            purposes: vec![Purpose::Choice, Purpose::Test, Purpose::Time],
            kinds: Vec::new(),
        }
    }

    /// A test that everything works.
    pub(crate) fn quick(model: PathBuf, tasks: Vec<PathBuf>) -> Self {
        let full = Self::full(model, tasks);
        Self {
            arms: vec![Arm::Base, Arm::Full, Arm::Lisa(Arm::lisa(2))],
            variants: vec![Arm::Lisa(FROZEN_2)],
            levers: Vec::new(),
            largest: Vec::new(),
            sizes: Sizes {
                steps: 8,
                choice_steps: 4,
                scored: 16,
                points: 8,
                others: 8,
                every: 4,
                answers: 2,
                ..full.sizes
            },
            rates: [2, 2],
            seeds: 2,
            variant_seeds: 1,
            ..full
        }
    }

    /// Whether tests of the arm are made.
    fn is_wanted(&self, arm: Arm) -> bool {
        let kind = Kind::of(arm);
        self.kinds.is_empty() || kind.is_none_or(|kind| self.kinds.contains(&kind))
    }

    /// Whether a run is of the plan's model, dtype and tasks.
    pub(crate) fn has(&self, job: &Job) -> bool {
        let mut tasks = self.tasks.iter();
        job.model == name(&self.model)
            && job.dtype == self.dtype
            && tasks.any(|task| name(task) == job.task)
    }

    fn job(&self, purpose: Purpose, task: &Path, arm: Arm, rate: i32, seed: u64) -> Job {
        let mut sizes = self.sizes_of(task);
        if !self.arms.contains(&arm) {
            sizes.answers = 0;
        }
        Job {
            model: name(&self.model),
            task: name(task),
            purpose,
            arm,
            rate,
            seed,
            sizes,
            dtype: self.dtype,
        }
    }

    /// The sizes of a task's runs. The rows of PubMedQA are twice as long as those of the other tasks, so a
    /// batch has half as many.
    pub(crate) fn sizes_of(&self, task: &Path) -> Sizes {
        let parts = if name(task) == "pubmedqa" { 2 } else { 1 };
        Sizes {
            batch: self.sizes.batch / parts,
            ..self.sizes
        }
    }

    /// The job with its folders.
    pub(crate) fn order(&self, job: Job) -> Order {
        let (task, others): (Vec<_>, Vec<_>) = self
            .tasks
            .iter()
            .cloned()
            .partition(|task| name(task) == job.task);
        Order {
            model: self.model.clone(),
            task: task.into_iter().next().unwrap_or_default(),
            others,
            job,
        }
    }

    /// The arms of a task.
    pub(crate) fn arms_of(&self, task: &Path) -> Vec<Arm> {
        let mut arms = self.arms.clone();
        if let Some(layers) = self.largest_of(task) {
            arms.insert(ONCE.min(arms.len()), Arm::Lisa(once(layers)));
        }
        for lever in &self.levers {
            let varied = self.varied_by(*lever);
            let at = arms.iter().position(|arm| *arm == varied);
            arms.insert(at.map_or(arms.len(), |at| at + 1), *lever);
        }
        arms
    }

    /// The arm of a task that is this one, or the same with its own number of layers.
    pub(crate) fn same(&self, task: &Path, arm: Arm) -> Option<Arm> {
        let is_same = |other: &Arm| match (arm, *other) {
            (Arm::Lisa(arm), Arm::Lisa(other)) if arm.period == 0 => {
                let active_layers = arm.active_layers;
                arm == Sampled {
                    active_layers,
                    ..other
                }
            }
            (arm, other) => arm == other,
        };
        self.arms_of(task).into_iter().find(is_same)
    }

    /// The variants of a task, and what they vary.
    pub(crate) fn variants_of(&self, task: &Path) -> Vec<Arm> {
        let largest = self.largest_of(task);
        let is_first = self.tasks.first().is_some_and(|first| first == task);
        let mut variants: Vec<Arm> = Vec::new();
        if let Some(largest) = largest {
            variants.extend([once(largest), frozen(largest)].map(Arm::Lisa));
        }
        variants.extend(&self.levers);
        if is_first {
            variants.extend(&self.variants);
        }
        let varied: Vec<Arm> = variants.iter().map(|arm| self.chosen_for(*arm)).collect();
        let is_one = |arm: &Arm| matches!(arm, Arm::Lora { .. }) && !varied.is_empty();
        let mut all: Vec<Arm> = self.arms.iter().copied().filter(is_one).collect();
        for arm in varied.into_iter().chain(variants) {
            if !all.contains(&arm) {
                all.push(arm);
            }
        }
        all
    }

    fn largest_of(&self, task: &Path) -> Option<usize> {
        let name = name(task);
        let mut largest = self.largest.iter();
        largest.find_map(|(task, layers)| (*task == name).then_some(*layers))
    }

    /// The runs that choose the learning rate of an arm, by ascending rate. Where the best rate is the
    /// lowest or the highest, the next one is added.
    pub(crate) fn choices(&self, log: &Log, task: &Path, arm: Arm) -> Vec<Job> {
        let [count, most] = self.rates.map(|n| n as i32);
        let first = arm.first_rate();
        let job = |rate| self.job(Purpose::Choice, task, arm, rate, 0);
        let mut jobs: Vec<Job> = (0..count).map(|index| job(first + index * STEP)).collect();
        while (jobs.len() as i32) < most {
            let Some(best) = best(log, &jobs) else { break };
            if best.rate == jobs[0].rate {
                jobs.insert(0, job(best.rate - STEP));
            } else if best.rate == jobs[jobs.len() - 1].rate {
                jobs.push(job(best.rate + STEP));
            } else {
                break;
            }
        }
        jobs
    }

    /// The arm for which the rate of an arm is chosen: a variant or lever, and layers that are sampled once, take
    /// that of LISA with two layers, or with ten layers and frozen embeddings.
    pub(crate) fn chosen_for(&self, arm: Arm) -> Arm {
        let Arm::Lisa(sampled) = arm else { return arm };
        let same = |other: &Arm| match other {
            Arm::Lisa(other) => other.outer_every.min(1) == sampled.outer_every.min(1),
            _ => false,
        };
        let parent = self.arms.iter().copied().find(same);
        parent.filter(|_| !self.arms.contains(&arm)).unwrap_or(arm)
    }

    /// What an arm varies. Layers that are sampled once vary the same number of layers that change, or layers
    /// that are sampled once uniformly. Another arm varies the one whose rate it has.
    pub(crate) fn varied_by(&self, arm: Arm) -> Arm {
        let Arm::Lisa(sampled) = arm else { return arm };
        let [changed, once] = [frozen, once].map(|of| of(sampled.active_layers));
        if sampled == once {
            Arm::Lisa(changed)
        } else if (Sampled {
            policy: once.policy,
            ..sampled
        }) == once
        {
            Arm::Lisa(once)
        } else {
            self.chosen_for(arm)
        }
    }

    /// The rate of an arm: the best of those that were tried, when all runs that choose it are done.
    pub(crate) fn rate(&self, log: &Log, task: &Path, arm: Arm) -> Option<i32> {
        if arm == Arm::Base {
            return Some(0);
        }
        let arm = self.chosen_for(arm);
        best(log, &self.choices(log, task, arm)).map(|job| job.rate)
    }

    /// The runs of the test, one for each seed; none before the rate is chosen.
    pub(crate) fn tests(&self, log: &Log, task: &Path, arm: Arm) -> Vec<Job> {
        let Some(rate) = self.rate(log, task, arm) else {
            return Vec::new();
        };
        let seeds = if arm == Arm::Base { 1 } else { self.seeds };
        let job = |seed| self.job(Purpose::Test, task, arm, rate, seed);
        (1..=seeds).map(job).collect()
    }

    /// The run that measures the time of a step; none before the rate is chosen.
    pub(crate) fn time(&self, log: &Log, task: &Path, arm: Arm) -> Option<Job> {
        let rate = self.rate(log, task, arm).filter(|_| arm != Arm::Base)?;
        Some(self.job(Purpose::Time, task, arm, rate, 1))
    }

    /// The missing runs whose rates are known, the most telling ones first: the arms, seed by seed, each on
    /// every task, then their times, if LoRA is one of them, and then the variants.
    pub(crate) fn next(&self, log: &Log) -> Vec<Job> {
        let mut jobs = Vec::new();
        let arms: Vec<Vec<Arm>> = self.tasks.iter().map(|task| self.arms_of(task)).collect();
        let most = arms.iter().map(Vec::len).max().unwrap_or(0);
        for seed in 1..=self.seeds {
            for index in 0..most {
                for (task, arms) in self.tasks.iter().zip(&arms) {
                    if let Some(arm) = arms.get(index).filter(|arm| self.is_wanted(**arm)) {
                        self.add(&mut jobs, log, task, *arm, seed);
                    }
                }
            }
        }
        if self.is_wanted(REFERENCE) {
            for (task, arms) in self.tasks.iter().zip(&arms) {
                let arms = arms.iter().filter(|arm| self.is_wanted(**arm));
                jobs.extend(arms.filter_map(|arm| self.time(log, task, *arm)));
            }
        }
        if self.kinds.is_empty() || self.kinds.contains(&Kind::Variants) {
            for task in self.tasks.iter().rev() {
                for arm in self.variants_of(task) {
                    let chosen = self.chosen_for(arm);
                    let tests = self.tests(log, task, arm).into_iter();
                    let tests = tests.filter(|job| job.seed <= self.variant_seeds);
                    let all = self.choices(log, task, chosen).into_iter().chain(tests);
                    for job in all {
                        if !jobs.contains(&job) {
                            jobs.push(job);
                        }
                    }
                }
            }
        }
        let is_missing = |job: &Job| self.purposes.contains(&job.purpose) && log.get(job).is_none();
        jobs.retain(is_missing);
        jobs
    }

    /// Adds the tests of a seed, after the choice of its rate, which has no seed.
    fn add(&self, jobs: &mut Vec<Job>, log: &Log, task: &Path, arm: Arm, seed: u64) {
        let chosen = self.chosen_for(arm);
        // The rate may be that of an arm without tests.
        let chooses = arm != Arm::Base && (chosen == arm || !self.is_wanted(chosen));
        if chooses && seed == 1 {
            jobs.extend(self.choices(log, task, chosen));
        }
        let tests = self.tests(log, task, arm).into_iter();
        jobs.extend(tests.filter(|job| job.seed == seed));
    }
}

/// The run with the lowest loss of runs that are all done.
fn best<'a>(log: &Log, jobs: &'a [Job]) -> Option<&'a Job> {
    let mut scored = Vec::new();
    for job in jobs {
        let loss = log.get(job)?.scores.loss();
        // A run that diverged has no finite loss.
        scored.push((if loss.is_finite() { loss } else { f64::MAX }, job));
    }
    let best = scored.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, job)| job)
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
        // Each arm runs on every task before the next arm.
        let first = plan.next(&log).into_iter().map(|job| (job.arm, job.task));
        let first: Vec<_> = first.take(2).collect();
        assert_eq!(first, ["a", "b"].map(|task| (Arm::Base, task.to_owned())));
        let mut count = 0;
        while let Some(job) = plan.next(&log).into_iter().next() {
            assert!(log.get(&job).is_none());
            // The middle rate is the best.
            let middle = job.rate == job.arm.first_rate() + STEP;
            let order = plan.order(job.clone());
            assert_eq!(order.task, Path::new("data").join(&job.task));
            assert_eq!(order.others.len(), 1);
            log.add(job, Outcome::sample(if middle { 0.5 } else { 1.0 }))
                .unwrap();
            count += 1;
        }
        // Of each arm on a task: three rates, three seeds and a time. Levers and variants take a rate, and variants have
        // one seed; what they vary has run with it already.
        let (trained, variants) = (2 * (ARMS.len() - 1), variants().len());
        let levers = 2 * LEVERS.len();
        assert_eq!(count, 7 * trained + 4 * levers + variants + 2);
        let purposes = vec![Purpose::Choice];
        let fresh = Plan { purposes, ..plan };
        let (_dir, log) = self::log();
        assert_eq!(fresh.next(&log).len(), 3 * trained);
    }

    #[test]
    fn each_task_has_the_layers_that_loras_memory_holds() {
        let tasks = ["data/gsm8k", "data/pubmedqa", "data/instruct"].map(PathBuf::from);
        let plan = Plan::full("models/base".into(), tasks.to_vec());
        let counts = tasks.each_ref().map(|task| plan.variants_of(task).len());
        // LoRA and ten layers are beside them, and on the first task two layers.
        let levers = LEVERS.len();
        assert_eq!(
            counts,
            [variants().len() + 5 + levers, 4 + levers, 4 + levers]
        );
        let [sampled, once] = [frozen(14), once(14)].map(Arm::Lisa);
        let varied = [Arm::Lora { rank: 16 }, Arm::Lisa(frozen(10))];
        assert_eq!(
            plan.variants_of(&tasks[2]),
            [varied[0], varied[1], once, sampled, LEVERS[0]]
        );
        let arms = [once, Arm::Lisa(frozen(10)), LEVERS[0]];
        assert_eq!(plan.arms_of(&tasks[2])[ONCE..ONCE + 3], arms);
        let fewer = Arm::Lisa(super::once(11));
        assert_eq!(plan.same(&tasks[2], fewer), Some(once));
        for arm in [fewer, Arm::Lisa(Arm::lisa(4))] {
            assert_eq!(plan.same(Path::new("other"), arm), None);
        }
        for arm in ARMS {
            assert_eq!(plan.same(Path::new("other"), arm), Some(arm));
        }
        for arm in [sampled, once, LEVERS[0]] {
            assert_eq!(plan.chosen_for(arm), Arm::Lisa(frozen(10)));
        }
        let by_norm = Sampled {
            policy: crate::study::arm::Policy::MeanNorm,
            ..super::once(14)
        };
        let varied = [once, Arm::Lisa(by_norm), sampled].map(|arm| plan.varied_by(arm));
        assert_eq!(varied, [sampled, once, Arm::Lisa(frozen(10))]);
    }

    #[test]
    fn a_study_of_some_methods_makes_no_other_tests_and_the_same_runs() {
        let all = Plan::full("models/base".into(), vec!["data/gsm8k".into()]);
        let made = |plan: &Plan| {
            let (_dir, mut log) = log();
            let mut made = Vec::new();
            while let Some(job) = plan.next(&log).into_iter().next() {
                made.push(job.clone());
                log.add(job, Outcome::sample(0.5)).unwrap();
            }
            made
        };
        let whole = made(&all);
        let some = |kinds: &[Kind]| {
            let kinds = kinds.to_vec();
            let found = made(&Plan {
                kinds,
                ..all.clone()
            });
            assert!(found.iter().all(|job| whole.contains(job)));
            let arms = |purpose| {
                let mut arms: Vec<Arm> = Vec::new();
                for job in found.iter().filter(|job| job.purpose == purpose) {
                    if !arms.contains(&job.arm) {
                        arms.push(job.arm);
                    }
                }
                arms
            };
            [arms(Purpose::Choice), arms(Purpose::Test)]
        };
        let [lora, ten, once] = [
            Arm::Lora { rank: 16 },
            Arm::Lisa(frozen(10)),
            Arm::Lisa(once(14)),
        ];
        assert_eq!(
            some(&[Kind::Full, Kind::Lora]),
            [vec![lora, Arm::Full], vec![Arm::Base, lora, Arm::Full]]
        );
        // The rate of layers that are sampled once is that of ten layers.
        assert_eq!(some(&[Kind::LisaOnce]), [vec![ten], vec![Arm::Base, once]]);
        // And so is that of a lever, which has every seed.
        let budget = [vec![ten], vec![Arm::Base, LEVERS[0]]];
        assert_eq!(some(&[Kind::LisaBudget]), budget);
        let [choices, mut tests] = some(&[Kind::Variants]);
        assert_eq!(choices, [lora, ten, Arm::Lisa(Arm::lisa(2))]);
        assert_eq!(tests.remove(0), Arm::Base);
        tests.sort_by_key(|arm| all.variants_of(&all.tasks[0]).iter().position(|a| a == arm));
        assert_eq!(tests, all.variants_of(&all.tasks[0]));
    }

    #[test]
    fn a_rate_is_added_where_the_best_is_at_an_end() {
        let (_dir, mut log) = log();
        let (plan, task) = (plan(), Path::new("a"));
        for job in plan.choices(&log, task, Arm::Full) {
            let loss = 1.0 - 0.1 * f64::from(job.rate / STEP);
            log.add(job, Outcome::sample(loss)).unwrap();
        }
        assert_eq!(plan.rate(&log, task, Arm::Full), None);
        assert!(plan.tests(&log, task, Arm::Full).is_empty());
        let jobs = plan.choices(&log, task, Arm::Full);
        let rates: Vec<i32> = jobs.iter().map(|job| job.rate).collect();
        assert_eq!(rates, [0, STEP, 2 * STEP, 3 * STEP]);
        log.add(jobs[3].clone(), Outcome::sample(0.5)).unwrap();
        assert!(jobs.iter().all(|job| job.sizes.batch == 4));
        let jobs = plan.choices(&log, task, Arm::Full);
        log.add(jobs[4].clone(), Outcome::sample(f64::NAN)).unwrap();
        assert_eq!(plan.rate(&log, task, Arm::Full), Some(3 * STEP));
        assert_eq!(plan.tests(&log, task, Arm::Full).len(), 3);
        assert_eq!(plan.tests(&log, task, Arm::Base).len(), 1);
        let pubmedqa = plan.tests(&log, Path::new("data/pubmedqa"), Arm::Base);
        assert_eq!(pubmedqa[0].sizes.batch, 2);
    }
}
