//! [`Job`]: one run, by everything that determines it, and its [`Outcome`].

use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::number;
use crate::values::display_as_value;

/// A way to train in the study.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Method {
    /// The model without training
    Base,
    /// AdamW on all parameters
    Full,
    /// LoRA as a side path, rank 8
    Lora,
    /// LISA: exactly gamma layers, uniformly
    Uniform,
    /// LISA: each layer independently with probability gamma / N
    Bernoulli,
    /// LISA: one layer after the other, in an order that is shuffled each time
    Cyclic,
    /// LISA: exactly gamma layers, by the size of their gradients
    Gradient,
    /// LISA: halves of layers, by their gradients, up to the size of gamma layers
    Budget,
}

display_as_value!(Method);

impl Method {
    /// Whether layers are sampled.
    pub(crate) fn samples(self) -> bool {
        !matches!(self, Self::Base | Self::Full | Self::Lora)
    }
}

/// The purpose of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// A score on the validation examples, to choose the learning rate.
    Choice,
    /// A score on the test examples.
    Test,
}

/// The sizes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Sizes {
    /// Optimizer steps, and examples in a batch.
    pub(crate) steps: usize,
    pub(crate) batch: usize,
    /// The most tokens of an example.
    pub(crate) max_length: usize,
    /// The most examples of a score. The validation examples are the last of the training file.
    pub(crate) scored: usize,
    /// Active layers (gamma) and steps of a period (K).
    pub(crate) active_layers: usize,
    pub(crate) period: usize,
}

/// A run. Equal jobs have equal outcomes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The names of the checkpoint's and the task's folders.
    pub(crate) model: String,
    pub(crate) task: String,
    pub(crate) purpose: Purpose,
    pub(crate) method: Method,
    /// The highest learning rate is 2 to the power of this, in thousandths.
    pub(crate) rate: i32,
    /// Seed of the order of the data, the draws and the side paths.
    pub(crate) seed: u64,
    pub(crate) sizes: Sizes,
}

impl Job {
    /// The highest learning rate.
    pub(crate) fn learning_rate(&self) -> f64 {
        1e-3 * 2f64.powi(self.rate)
    }
}

/// A job with the folders that it reads.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) job: Job,
    pub(crate) model: PathBuf,
    pub(crate) task: PathBuf,
}

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Mean loss of a target token of the scored examples, in nats.
    #[serde(deserialize_with = "number::or_nan")]
    pub(crate) loss: f64,
    /// Examples whose answer is right in every token, of the examples asked.
    pub(crate) hits: usize,
    pub(crate) asked: usize,
    /// Mean training loss of each tenth of the steps.
    #[serde(deserialize_with = "number::each_or_nan")]
    pub(crate) curve: Vec<f64>,
    /// The most trainable parameters of a step, and bytes of their optimizer state.
    pub(crate) trainable: u64,
    pub(crate) state_bytes: u64,
    /// CPU seconds of the training steps.
    pub(crate) cpu: f64,
    /// By layer: the share of the steps in which it was active; half a layer counts as a half.
    pub(crate) active: Vec<f64>,
}

impl Outcome {
    /// The share of right answers.
    pub(crate) fn exact_match(&self) -> f64 {
        self.hits as f64 / self.asked.max(1) as f64
    }
}

/// A small job and an outcome, for tests.
#[cfg(test)]
impl Job {
    pub(crate) fn sample(method: Method, seed: u64) -> Self {
        Self {
            model: "base".into(),
            task: "data".into(),
            purpose: Purpose::Test,
            method,
            rate: 1,
            seed,
            sizes: Sizes {
                steps: 4,
                batch: 2,
                max_length: 64,
                scored: 8,
                active_layers: 2,
                period: 2,
            },
        }
    }
}

#[cfg(test)]
impl Outcome {
    pub(crate) fn sample(hits: usize, loss: f64) -> Self {
        Self {
            loss,
            hits,
            asked: 10,
            ..Self::default()
        }
    }
}

#[test]
fn rates_are_powers_of_two() {
    let job = Job::sample(Method::Uniform, 1);
    assert_eq!(job.learning_rate(), 2e-3);
    assert_eq!(job.method.to_string(), "uniform");
    assert_eq!(Outcome::sample(3, 0.0).exact_match(), 0.3);
}
