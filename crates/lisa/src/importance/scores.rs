//! [`Scores`]: a score of each layer, and how far sampling by it is from uniform.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::file;
use super::ratios::scaled;
use crate::{ErrorKind, LisaError};

/// A score of each layer, measured in one short run or from a few batches. Layers with higher scores
/// are sampled more often.
///
/// [`PolicyConfig::Weighted`](crate::PolicyConfig::Weighted) takes [`weights`](Self::weights).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// What was measured.
    pub by: String,
    /// The number of observations in each mean.
    pub observations: u64,
    /// For each layer, in the order of the stack: its path and its score.
    pub layers: Vec<(String, f64)>,
}

impl Scores {
    /// The score of each layer, divided by the largest one.
    ///
    /// # Errors
    ///
    /// A score is negative or not finite, or all are 0.
    pub fn weights(&self) -> Result<Vec<f64>, LisaError> {
        let refuse = |message: String| {
            Err(LisaError::new(ErrorKind::Policy, message)
                .with_help("measure the scores of this model again"))
        };
        for (path, score) in &self.layers {
            if !score.is_finite() || *score < 0.0 {
                return refuse(format!("the score of `{path}` is {score}"));
            }
        }
        let scores = self.layers.iter().map(|(_, score)| *score);
        let largest = scores.clone().fold(0.0, f64::max);
        if largest == 0.0 {
            return refuse(format!("all {} scores are 0", self.layers.len()));
        }
        Ok(scores.map(|score| score / largest).collect())
    }

    /// Probabilities for [`PolicyConfig::Bernoulli`](crate::PolicyConfig::Bernoulli), which samples
    /// each layer independently: proportional to the scores, at most 1, with the sum
    /// `active_layers`.
    ///
    /// # Errors
    ///
    /// As [`weights`](Self::weights). Also if fewer than `active_layers` layers have a score above 0.
    pub fn scaled(&self, active_layers: usize) -> Result<Vec<f64>, LisaError> {
        scaled(&self.weights()?, active_layers)
    }

    /// Saves the scores to a JSON file, atomically.
    ///
    /// # Errors
    ///
    /// The file cannot be written; the message has its path.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), LisaError> {
        file::save(self, path.as_ref(), "the scores")
    }

    /// Loads a file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// The file cannot be read or has other content; the message has its path.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, LisaError> {
        file::load(path.as_ref(), ["scores", "Scores"])
    }
}

/// How far sampling by these weights is from uniform sampling: the total variation distance of the
/// two distributions of one sampled layer. It is 0 if all weights are equal, and `1 - 1 / N` if one
/// of N layers has all the weight, and NaN if all weights are 0.
///
/// # Example
///
/// ```
/// use lisa::importance::distance_from_uniform;
///
/// assert_eq!(distance_from_uniform(&[1.0, 1.0]), 0.0);
/// assert_eq!(distance_from_uniform(&[3.0, 1.0]), 0.25);
/// assert_eq!(distance_from_uniform(&[0.0, 1.0, 0.0, 0.0]), 0.75);
/// assert!(distance_from_uniform(&[0.0, 0.0]).is_nan());
/// ```
#[must_use]
pub fn distance_from_uniform(weights: &[f64]) -> f64 {
    let sum: f64 = weights.iter().sum();
    let equal = 1.0 / weights.len() as f64;
    let apart = weights.iter().map(|weight| (weight / sum - equal).abs());
    apart.sum::<f64>() / 2.0
}
