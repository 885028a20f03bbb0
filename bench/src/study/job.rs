//! [`Job`]: one run, by everything that determines it, and its [`Outcome`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::arm::{Arm, STEP};
use super::inputs::Inputs;
use crate::number;
use crate::preset::Dtype;

/// The purpose of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Purpose {
    /// A loss on the validation rows after fewer steps, to choose the learning rate
    Choice,
    /// Losses and scores on the held-out rows
    Test,
    /// The time of a step: a few steps of each method, one method after the other, and no scores
    Time,
}

/// The steps of a run that measures times, with points in the middle and at the end: on a GPU the first half
/// compiles kernels.
const TIMED_STEPS: usize = 10;

/// The sizes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sizes {
    /// Optimizer steps of a test and of a choice, and rows in a batch.
    pub(crate) steps: usize,
    pub(crate) choice_steps: usize,
    pub(crate) batch: usize,
    /// The most tokens of a row.
    pub(crate) max_length: usize,
    /// The most rows of a score after training, of a point of the curve, and of each other task.
    pub(crate) scored: usize,
    pub(crate) points: usize,
    pub(crate) others: usize,
    /// Steps between the points of the curve.
    pub(crate) every: usize,
    /// Answers that the first seed generates, for a task where they are right or wrong.
    pub(crate) answers: usize,
}

/// A run. Equal jobs have equal losses on one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The names of the checkpoint's and the task's folders.
    pub(crate) model: String,
    pub(crate) task: String,
    pub(crate) purpose: Purpose,
    pub(crate) arm: Arm,
    /// The highest learning rate is 1e-5 times 10 to the power of an eighth of this. In a line it is a fourth
    /// of that.
    #[serde(with = "grid")]
    pub(crate) rate: i32,
    /// Seed of the order of the data, the draws and the adapters.
    pub(crate) seed: u64,
    pub(crate) sizes: Sizes,
    /// That of the model; adapters, master weights and optimizer state are f32.
    #[serde(default, skip_serializing_if = "is_f32")]
    pub(crate) dtype: Dtype,
}

/// The highest learning rate of a [`Job::rate`].
pub(crate) fn learning_rate(rate: i32) -> f64 {
    1e-5 * 10f64.powf(f64::from(rate) / f64::from(2 * STEP))
}

/// A rate as a number of [`STEP`]s.
mod grid {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::study::arm::STEP;

    /// `serialize_with` gives a reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn serialize<S: Serializer>(rate: &i32, to: S) -> Result<S::Ok, S::Error> {
        if rate % STEP == 0 {
            to.serialize_i32(rate / STEP)
        } else {
            to.serialize_f64(f64::from(*rate) / f64::from(STEP))
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
        let steps = f64::deserialize(from)?;
        Ok((steps * f64::from(STEP)).round() as i32)
    }
}

/// The rate of a step, counted from 1: rises over the first twentieth of the steps, then falls to 0
/// linearly.
pub(crate) fn scheduled(highest: f64, step: usize, steps: usize) -> f64 {
    let warm_up = (steps / 20).max(1);
    if step <= warm_up {
        return highest * step as f64 / warm_up as f64;
    }
    highest * (steps - step + 1) as f64 / (steps - warm_up) as f64
}

impl Job {
    /// The highest learning rate.
    pub(crate) fn learning_rate(&self) -> f64 {
        learning_rate(self.rate)
    }

    /// The number of optimizer steps.
    pub(crate) fn steps(&self) -> usize {
        match self.purpose {
            Purpose::Choice => self.sizes.choice_steps,
            Purpose::Test => self.sizes.steps,
            Purpose::Time => TIMED_STEPS,
        }
    }

    /// Steps between the points of the curve.
    pub(crate) fn steps_of_a_point(&self) -> usize {
        match self.purpose {
            Purpose::Time => TIMED_STEPS / 2,
            Purpose::Choice | Purpose::Test => self.sizes.every,
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (purpose, task, arm, seed) = (self.purpose, &self.task, self.arm, self.seed);
        let rate = self.learning_rate();
        write!(f, "{purpose:?} {task} {arm} at {rate:.1e} seed {seed}")?;
        match self.dtype {
            Dtype::F32 => Ok(()),
            dtype => write!(f, " in {dtype}"),
        }
    }
}

/// `skip_serializing_if` wants a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// As [`is_zero`].
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_f32(dtype: &Dtype) -> bool {
    *dtype == Dtype::F32
}

/// A job with the folders that it reads.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) job: Job,
    pub(crate) model: PathBuf,
    pub(crate) task: PathBuf,
    /// The other tasks, for what the training forgets.
    pub(crate) others: Vec<PathBuf>,
}

/// Held-out losses of rows, and right answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scores {
    /// For each row: the sum of the losses of its trained tokens in nats, and their number.
    #[serde(deserialize_with = "number::each_or_nan")]
    pub(crate) losses: Vec<f64>,
    pub(crate) counts: Vec<u32>,
    /// For a task with choices: for each row, whether the right one is the most probable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) right: Vec<u8>,
}

impl Scores {
    /// The mean loss of a trained token, in nats; NaN without rows.
    pub(crate) fn loss(&self) -> f64 {
        let sum: f64 = self.losses.iter().sum();
        let count: u32 = self.counts.iter().sum();
        sum / f64::from(count)
    }
}

/// A point of the curve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Steps that were made, and the CPU seconds and seconds that they took.
    pub(crate) step: usize,
    pub(crate) cpu: f64,
    pub(crate) wall: f64,
    /// Mean training loss of the steps since the last point.
    #[serde(deserialize_with = "number::or_nan")]
    pub(crate) train: f64,
    /// Held-out loss of the first rows; NaN in a run that chooses the learning rate.
    #[serde(deserialize_with = "number::or_nan")]
    pub(crate) loss: f64,
}

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Where it ran, and the commit that the program was built from.
    pub(crate) device: String,
    pub(crate) commit: String,
    /// The contents of the folders; lines of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) inputs: Option<Inputs>,
    /// Scores after training.
    pub(crate) scores: Scores,
    pub(crate) curve: Vec<Point>,
    /// Losses on the other tasks, by name.
    pub(crate) others: Vec<(String, f64)>,
    /// Generated answers that are right, of those generated.
    #[serde(default)]
    pub(crate) generated: Option<(usize, usize)>,
    /// The most bytes of a training step on the device (on a GPU: that its pool reserved), the most bytes
    /// of optimizer state in host memory, and the trainable parameters.
    pub(crate) peak: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) offloaded: u64,
    pub(crate) trainable: u64,
    /// Trained tokens, and all tokens without padding, of the training steps.
    pub(crate) trained: u64,
    pub(crate) tokens: u64,
    /// By layer: the share of the steps in which it was active.
    #[serde(default)]
    pub(crate) active: Vec<f64>,
}

impl Outcome {
    /// Seconds of a training step: CPU seconds, or on a GPU those of the clock after the first point, before
    /// which kernels are compiled.
    pub(crate) fn time_per_step(&self) -> f64 {
        let Some(last) = self.curve.last() else {
            return 0.0;
        };
        if is_cpu(&self.device) {
            return last.cpu / last.step.max(1) as f64;
        }
        let first = self.curve.first().filter(|first| first.step < last.step);
        let first = first.copied().unwrap_or_default();
        (last.wall - first.wall) / (last.step - first.step).max(1) as f64
    }
}

/// Whether this is the name of a CPU.
pub(crate) fn is_cpu(device: &str) -> bool {
    device.contains("Cpu")
}

impl Outcome {
    /// The largest difference between losses of this run and of another run of the same job: of a row, of
    /// a point of the curve, and of a task that both have. Infinite where one has other rows, points,
    /// answers or active layers, or is not finite alone.
    pub(crate) fn distance(&self, other: &Self) -> f64 {
        let (a, b) = (&self.scores, &other.scores);
        let answers = |outcome: &Self| (outcome.scores.right.clone(), outcome.generated);
        if a.counts != b.counts
            || answers(self) != answers(other)
            || self.curve.len() != other.curve.len()
            || self.active != other.active
        {
            return f64::INFINITY;
        }
        let others: BTreeMap<_, _> = other.others.iter().cloned().collect();
        let others = self
            .others
            .iter()
            .filter_map(|(name, loss)| Some((*loss, *others.get(name)?)));
        let rows = a.losses.iter().zip(&b.losses);
        let rows = rows.zip(&a.counts).map(|((a, b), count)| {
            // A row's loss is a sum over its tokens.
            let count = f64::from(*count).max(1.0);
            (a / count, b / count)
        });
        let points = self.curve.iter().zip(&other.curve);
        let points = points.flat_map(|(a, b)| [(a.train, b.train), (a.loss, b.loss)]);
        let distance = |(a, b): (f64, f64)| match (a.is_finite(), b.is_finite()) {
            (true, true) => (a - b).abs(),
            // In a run that chooses the rate, points have no held-out loss.
            (false, false) => 0.0,
            _ => f64::INFINITY,
        };
        rows.chain(points)
            .chain(others)
            .map(distance)
            .fold(0.0, f64::max)
    }
}

/// A small job and an outcome, for tests.
#[cfg(test)]
impl Job {
    pub(crate) fn sample(arm: Arm, seed: u64) -> Self {
        Self {
            model: "base".into(),
            task: "data".into(),
            purpose: Purpose::Test,
            arm,
            rate: 4 * STEP,
            seed,
            sizes: Sizes {
                steps: 4,
                choice_steps: 2,
                batch: 2,
                max_length: 64,
                scored: 8,
                points: 2,
                others: 2,
                every: 2,
                answers: 2,
            },
            dtype: Dtype::F32,
        }
    }
}

#[cfg(test)]
impl Outcome {
    pub(crate) fn sample(loss: f64) -> Self {
        Self {
            device: "Cpu".into(),
            scores: Scores {
                losses: vec![2.0 * loss, 4.0 * loss],
                counts: vec![2, 4],
                right: vec![1, 0],
            },
            ..Self::default()
        }
    }
}

#[test]
fn runs_of_one_job_differ_by_their_losses() {
    let point = |loss| Point {
        loss,
        train: f64::NAN,
        ..Point::default()
    };
    let run = |rows, curve| Outcome {
        curve: vec![point(curve)],
        ..Outcome::sample(rows)
    };
    assert_eq!(run(0.5, 1.0).distance(&run(0.5, 1.0)), 0.0);
    // Rows of 2 and 4 tokens, each with a loss that is higher by 0.25.
    assert_eq!(run(0.5, 1.0).distance(&run(0.75, 1.0)), 0.25);
    assert_eq!(run(0.5, 1.0).distance(&run(0.5, 3.0)), 2.0);
    assert_eq!(run(0.5, 1.0).distance(&Outcome::sample(0.5)), f64::INFINITY);
    assert_eq!(run(0.5, f64::NAN).distance(&run(0.5, 1.0)), f64::INFINITY);
    assert_eq!(run(0.5, f64::NAN).distance(&run(0.5, f64::NAN)), 0.0);
    let of = |change: fn(&mut Outcome)| {
        let mut other = run(0.5, 1.0);
        other.others = vec![("a".into(), 1.0)];
        let same = other.clone();
        change(&mut other);
        other.distance(&same)
    };
    assert_eq!(of(|other| other.scores.right[0] = 0), f64::INFINITY);
    assert_eq!(of(|other| other.generated = Some((1, 2))), f64::INFINITY);
    assert_eq!(of(|other| other.active = vec![0.5]), f64::INFINITY);
    assert_eq!(of(|other| other.others[0].1 = 1.5), 0.5);
    // A task that one of them has not measured.
    assert_eq!(of(|other| other.others[0].0 = "b".into()), 0.0);
}

#[test]
fn the_time_of_a_step_is_that_of_the_cpu_or_of_the_clock() {
    let point = |step, cpu, wall| Point {
        step,
        cpu,
        wall,
        ..Point::default()
    };
    let of = |device: &str, curve: &[Point]| {
        let outcome = Outcome {
            device: device.into(),
            curve: curve.to_vec(),
            ..Outcome::default()
        };
        outcome.time_per_step()
    };
    let curve = [point(10, 20.0, 90.0), point(20, 80.0, 110.0)];
    assert_eq!(of("Device<Flex(Cpu)>", &curve), 4.0);
    assert_eq!(of("Device<Cuda(0)>, NVIDIA H100", &curve), 2.0);
    assert_eq!(of("Device<Cuda(0)>, NVIDIA H100", &curve[..1]), 9.0);
}

#[test]
fn a_line_names_the_dtype_of_a_model_that_is_not_f32() {
    let mut job = Job::sample(Arm::Full, 1);
    let text = serde_json::to_string(&job).unwrap();
    assert!(!text.contains("dtype"), "{text}");
    assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), job);
    job.dtype = Dtype::Bf16;
    let text = serde_json::to_string(&job).unwrap();
    assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), job);
}

#[test]
fn rates_are_eighths_of_powers_of_ten() {
    let mut job = Job::sample(Arm::Full, 1);
    let rates = [0, 4, 8, 12, 11].map(|rate| {
        job.rate = rate;
        let text = serde_json::to_value(&job).unwrap();
        assert_eq!(serde_json::from_value::<Job>(text.clone()).unwrap(), job);
        (
            format!("{:.1e}", job.learning_rate()),
            text["rate"].to_string(),
        )
    });
    let expected = [
        ("1.0e-5", "0"),
        ("3.2e-5", "1"),
        ("1.0e-4", "2"),
        ("3.2e-4", "3"),
        ("2.4e-4", "2.75"),
    ];
    assert_eq!(
        rates,
        expected.map(|(rate, text)| (rate.to_owned(), text.to_owned()))
    );
    assert_eq!(Outcome::sample(0.5).scores.loss(), 0.5);
    assert!(Outcome::sample(f64::NAN).scores.loss().is_nan());
    assert!(Scores::default().loss().is_nan());
}

#[test]
fn the_learning_rate_rises_and_falls_to_zero() {
    let rates: Vec<f64> = (1..=40).map(|step| scheduled(1.0, step, 40)).collect();
    assert_eq!(rates[..3], [0.5, 1.0, 1.0]);
    assert!(rates[2..].windows(2).all(|pair| pair[1] < pair[0]));
    assert!((rates[39] - 1.0 / 38.0).abs() < 1e-12);
}
