//! [`Line`]: what is known after a step or an evaluation, and the memory in use.

use std::path::Path;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::number;
use crate::train::evaluation::evaluate::Evaluate;
use crate::train::evaluation::result::Evaluation;

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The step, counted from 1.
    pub step: u64,
    /// Mean loss of the step's batches.
    #[serde(
        default,
        with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub loss: Option<f64>,
    /// Loss of the held-out rows of `--eval-rows`.
    #[serde(
        default,
        with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub held_out_loss: Option<f64>,
    /// Loss of the held-out rows that are evaluated before training, if these are fewer.
    #[serde(
        default,
        with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub held_out_first_loss: Option<f64>,
    /// The learning rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Tokens per second since the run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// The layers that were active in the step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active_layers: Vec<usize>,
    /// Whether the parameters outside the layers trained in the step, with `--outer-every`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer_active: Option<bool>,
    /// Bytes of optimizer state on the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_bytes: Option<u64>,
    /// Bytes in use, on the device or by the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The most bytes that were in use so far: reserved on the device, or of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
}

impl Line {
    /// The losses of an evaluation after this step, by the rows that they are of.
    #[must_use]
    pub(crate) fn evaluated(step: u64, evaluate: &Evaluate, evaluation: &Evaluation) -> Self {
        let (first, (rows, _)) = (evaluate.first_rows(), evaluate.rows());
        Self {
            step,
            held_out_loss: (evaluation.rows == rows).then_some(evaluation.loss),
            held_out_first_loss: (first < rows).then_some(evaluation.first_rows_loss),
            ..Self::default()
        }
    }

    /// A line with only a held-out loss.
    #[cfg(test)]
    pub(crate) fn held_out(step: u64, loss: f64) -> Self {
        Self {
            step,
            held_out_loss: Some(loss),
            ..Self::default()
        }
    }
}

/// Bytes in use on the device. If the device does not report them, bytes of the process (Linux).
#[must_use]
pub(crate) fn memory_bytes(device: &Device) -> Option<u64> {
    if let Some(usage) = device.memory_pool_usage() {
        return Some(usage.bytes_in_use);
    }
    process_bytes("VmRSS:")
}

/// The peak of [`memory_bytes`]: bytes reserved on the device, or the process's peak (Linux).
#[must_use]
pub(crate) fn peak_bytes(device: &Device) -> Option<u64> {
    if let Some(usage) = device.memory_pool_usage() {
        return Some(usage.bytes_reserved);
    }
    process_bytes("VmHWM:")
}

fn process_bytes(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(key))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
