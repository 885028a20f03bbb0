//! [`Observed`]: what a policy asked to know of the gradients, gathered on the device and read once a
//! period. Tests: `lisa/tests/policies.rs`.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::prepare::Squares;
use crate::policy::{Observation, Scores, Statistic};

/// The scores, and what the period that runs has shown so far.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    observation: Option<Observation>,
    scores: Scores,
    /// By layer: the sum of the statistic over the steps of this period, on the device, and how
    /// many steps these were.
    sums: BTreeMap<usize, (Tensor<1>, u32)>,
}

/// What is saved of one layer; numbers as their bits, which text cannot round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedUnit {
    pub(crate) score: Option<u32>,
    pub(crate) last_drawn: Option<u64>,
    /// The sum over the steps of the period that runs.
    pub(crate) sum: u32,
    pub(crate) steps: u32,
}

/// What is saved of all layers, in order.
pub(crate) type SavedScores = Vec<SavedUnit>;

impl Observed {
    pub(super) fn new(observation: Option<Observation>, scores: Scores) -> Self {
        Self {
            observation,
            scores,
            sums: BTreeMap::new(),
        }
    }

    /// Whether gradients are to be measured.
    pub(crate) fn wants(&self) -> bool {
        self.observation.is_some()
    }

    pub(super) fn scores(&self) -> &Scores {
        &self.scores
    }

    /// Takes in one step. Nothing waits for the device.
    pub(super) fn add(&mut self, squares: Squares) {
        let Some(observation) = self.observation else {
            return;
        };
        for (layer, square) in squares {
            let n = self.scores.get(layer).parameters.max(1);
            let mean = square.div_scalar(n as f64);
            let value = match observation.statistic {
                Statistic::RootMeanSquare => mean.sqrt(),
                Statistic::MeanSquare => mean,
            };
            let next = match self.sums.remove(&layer) {
                Some((sum, steps)) => {
                    let value = value.to_device(&sum.device());
                    (sum + value, steps + 1)
                }
                None => (value, 1),
            };
            self.sums.insert(layer, next);
        }
    }

    /// Ends a period in which these layers trained: its means go into the scores. Waits for the
    /// device, once, where anything was measured.
    pub(super) fn close(&mut self, period: u64, layers: &[usize]) {
        let Some(observation) = self.observation else {
            return;
        };
        self.scores.close(period, layers);
        for (layer, (sum, steps)) in self.read() {
            let mean = sum / steps as f32;
            if mean.is_finite() {
                self.scores.observe(layer, mean, observation.decay);
            } else {
                log::warn!(
                    "period {period}: the gradients of layer {layer} were not finite; its score \
                     stays as it was"
                );
            }
        }
        self.sums.clear();
    }

    /// The sums of this period. One transfer for all of them.
    fn read(&self) -> BTreeMap<usize, (f32, u32)> {
        let Some((first, _)) = self.sums.values().next() else {
            return BTreeMap::new();
        };
        let device = first.device();
        let sums = self.sums.values();
        let sums = sums
            .map(|(sum, _)| sum.clone().to_device(&device))
            .collect();
        let read = Tensor::cat(sums, 0).into_data();
        let read = read.iter::<f32>().zip(&self.sums);
        read.map(|(sum, (&layer, (_, steps)))| (layer, (sum, *steps)))
            .collect()
    }

    /// What is needed to go on exactly; none where nothing is observed. Waits for the device.
    pub(crate) fn saved(&self) -> Option<SavedScores> {
        self.observation?;
        let sums = self.read();
        let saved = |(layer, score): (usize, crate::policy::Score)| {
            let (sum, steps) = sums.get(&layer).copied().unwrap_or_default();
            SavedUnit {
                score: score.score.map(f32::to_bits),
                last_drawn: score.last_drawn,
                sum: sum.to_bits(),
                steps,
            }
        };
        Some(self.scores.iter().enumerate().map(saved).collect())
    }

    /// Goes on from what was saved; layers of which nothing was begin anew. The sums go to `device`.
    pub(crate) fn restore(&mut self, saved: &[SavedUnit], device: &Device) {
        self.sums.clear();
        if self.observation.is_none() {
            return;
        }
        for layer in 0..self.scores.len() {
            let unit = saved.get(layer).copied().unwrap_or_default();
            // A record may hold anything; a score that is no number would be in every draw.
            let score = unit.score.map(f32::from_bits).filter(|s| s.is_finite());
            self.scores.set(layer, score, unit.last_drawn);
            if (1..u32::MAX / 2).contains(&unit.steps) && f32::from_bits(unit.sum).is_finite() {
                let data = TensorData::from([f32::from_bits(unit.sum)]);
                self.sums
                    .insert(layer, (Tensor::from_data(data, device), unit.steps));
            }
        }
    }

    /// Whether the device holds sums of this period.
    #[cfg(test)]
    pub(crate) fn holds(&self) -> bool {
        !self.sums.is_empty()
    }

    /// How many layers there are.
    #[cfg(feature = "train")]
    pub(crate) fn len(&self) -> usize {
        self.scores.len()
    }
}
