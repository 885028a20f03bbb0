//! Layer-sampling fine-tuning (LISA) for [Burn](burn): all the weights, a few layers at a time.
//!
//! Every `K` steps a few layers are drawn to train, the rest is frozen, and the optimizer runs on
//! the drawn ones; embeddings, final norm and head train throughout
//! ([arXiv 2403.17919](https://arxiv.org/abs/2403.17919)). Gradients and moments exist for what
//! trains only, so their memory is that of a few layers. In a training loop one line changes:
//!
//! ```text
//! -let mut optimizer = AdamWConfig::new().init();
//! +let (mut optimizer, mut model) = LisaConfig::new().init(AdamWConfig::new(), model)?;
//! ```
//!
//! The root has what every run needs. The rest is in modules by subject:
//!
//! | module | for |
//! |---|---|
//! | [`policy`] | how layers are sampled, and a policy of your own |
//! | [`optimizer`] | which optimizers can be wrapped |
//! | [`layers`] | which parameters belong to which layer of a model |
//! | [`recompute`] | gradient checkpointing by layer, and updates during the backward pass |
//! | [`memory`] | what a run will need, and what it holds |
//! | [`importance`] | probabilities of layers from the weight norms of two runs |
//! | `learner` | burn-train's `Learner` (feature `train`) |
//!
//! # Features
//!
//! - `train`: `LisaModule` and metrics for burn-train's `Learner`.
//!
//! The crate brings no backend: choose one by a feature of `burn`.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

// From the bottom up: a module uses only those above it.
mod error;
mod explain;
mod visit;
mod squares;
pub mod policy;
mod schedule;
mod sampler;
pub mod layers;
mod mask;
mod frozen;
mod quantize;
mod gradients;
mod clip;
mod period;
mod saved;
pub mod optimizer;
mod config;
mod trainable;
pub mod recompute;
mod lisa;
mod describe;
mod step;
pub mod memory;
pub mod importance;
#[cfg(feature = "train")]
pub mod learner;

pub use config::LisaConfig;
pub use describe::{Description, LayerDescription};
pub use error::{ErrorKind, LisaError, StepError};
#[doc(hidden)]
pub use explain::{Explained, Place};
pub use frozen::FrozenWeights;
pub use layers::LayerMap;
pub use lisa::Lisa;
pub use mask::FreezeMask;
pub use optimizer::OnFreeze;
pub use policy::PolicyConfig;
pub use step::ModuleStep;
