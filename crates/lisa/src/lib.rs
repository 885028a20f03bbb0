//! Layer-sampling fine-tuning (LISA) for [Burn](burn): trains all layers of a model with optimizer
//! state for a few layers, embeddings and head.
//!
//! Every `K` steps LISA samples a few layers ([arXiv
//! 2403.17919](https://arxiv.org/abs/2403.17919)). These layers are active: they train until layers
//! are sampled again, and the other layers are frozen. By default, the parameters outside the
//! layers (embeddings, final norm, head) train in every step; [`LisaConfig::outer_every`] lets them
//! train in every n-th period only. Gradients and optimizer state exist
//! for trainable parameters only. In a training loop, the line that makes the optimizer changes:
//!
//! ```text
//! -let mut optimizer = AdamWConfig::new().init();
//! +let (mut optimizer, mut model) = LisaConfig::new().init(AdamWConfig::new(), model)?;
//! ```
//!
//! The root has the names that every run needs. The others are in modules by subject:
//!
//! | module | for |
//! |---|---|
//! | [`policy`] | how layers are sampled, and a policy of your own |
//! | [`optimizer`] | which optimizers LISA can wrap |
//! | [`layers`] | the layers of a model and their parameters |
//! | [`recompute`] | gradient checkpointing by layer, and updates during the backward pass |
//! | [`memory`] | the memory that a run will need, and that it uses |
//! | [`importance`] | how important each layer is, by weight norms or gradients, for weighted sampling |
//! | `learner` | burn-train's `Learner` (feature `train`) |
//!
//! # Features
//!
//! - `train`: `LisaModule` and metrics for burn-train's `Learner`.
//!
//! The crate enables no backend: select one with a feature of `burn`.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

// From the bottom up: a module uses only those above it.
mod error;
mod visit;
mod slicing;
mod squares;
pub mod policy;
mod schedule;
mod sampler;
pub mod layers;
mod mask;
mod frozen;
mod transfer;
mod quantize;
mod weights;
mod gradients;
pub mod importance;
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
#[cfg(feature = "train")]
pub mod learner;

pub use config::LisaConfig;
pub use describe::{Description, LayerDescription};
pub use error::{ErrorKind, LisaError, StepError};
pub use frozen::FrozenWeights;
pub use layers::LayerMap;
pub use lisa::Lisa;
pub use mask::FreezeMask;
pub use optimizer::OnFreeze;
pub use policy::PolicyConfig;
pub use step::ModuleStep;
