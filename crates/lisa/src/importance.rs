//! The importance of each layer, measured before a run. It gives probabilities for the sampling
//! policies.
//!
//! Section 3 of the paper ([arXiv 2403.17919](https://arxiv.org/abs/2403.17919)) compares the mean
//! norm of each layer's weights over a LoRA run with the mean norm over a full fine-tuning run. A
//! layer whose norm stays small under LoRA gets a small probability. A [`NormTracker`] measures the
//! norms of one run, [`WeightNorms`] stores them, and [`Importance`] computes the probabilities
//! from both runs.
//!
//! With AdamW, weight norms hardly differ between layers. [`Scores`] contain another signal, which
//! is cheaper to measure: a [`GradientTracker`] measures the gradients of a few batches.
//! [`distance_from_uniform`] says how much a signal changes the sampling.
//!
//! # Example
//!
//! ```
//! use lisa::PolicyConfig;
//! use lisa::importance::{Importance, WeightNorms};
//!
//! let norms = |layers: [f64; 4]| WeightNorms {
//!     observations: 10,
//!     layers: layers.iter().enumerate().map(|(i, &w)| (format!("layers.{i}"), w)).collect(),
//!     outside: vec![("embed.weight".into(), 90.0)],
//! };
//! let importance = Importance {
//!     lora: norms([8.0, 2.0, 2.0, 6.0]),
//!     full: norms([8.0, 8.0, 8.0, 8.0]),
//! };
//! assert_eq!(importance.probabilities()?, [1.0, 0.25, 0.25, 0.75]);
//! assert_eq!(importance.scaled(1)?, [4.0 / 9.0, 1.0 / 9.0, 1.0 / 9.0, 3.0 / 9.0]);
//! let policy = PolicyConfig::Weighted(importance.probabilities()?);
//! # let _ = policy;
//! # Ok::<(), lisa::LisaError>(())
//! ```

mod file;
mod gradients;
mod norms;
mod ratios;
mod scores;
mod second_moments;
mod squares;
mod tracker;

pub use gradients::GradientTracker;
pub use norms::WeightNorms;
pub use ratios::Importance;
pub use scores::{Scores, distance_from_uniform};
pub use tracker::NormTracker;
