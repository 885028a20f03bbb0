//! Layer-sampling fine-tuning (LISA) for [Burn](burn): all the weights, a few layers at a time.
//!
//! Every `K` steps a few layers are drawn to train, the rest is frozen, and the optimizer runs on
//! the drawn ones; embeddings, final norm and head train throughout
//! ([arXiv 2403.17919](https://arxiv.org/abs/2403.17919)). Gradients and moments exist for what
//! trains only, so their memory is that of a few layers. In a training loop one line changes:
//!
//! ```text
//! -let mut optimizer = AdamWConfig::new().init();
//! +let (mut optimizer, mut model) = LisaConfig::new().init(AdamWConfig::new().build(), model)?;
//! ```
//!
//! # Map
//!
//! | what | for |
//! |---|---|
//! | [`LisaConfig`], [`OnFreeze`], [`PolicyConfig`] | what a run is asked to do |
//! | [`Lisa`] | the optimizer: `step(lr, model, grads) -> model`, save and load |
//! | [`Uniform`], [`Bernoulli`], [`Weighted`], [`Cyclic`], [`Gradient`], [`Budget`], [`Fixed`] | what draws the layers |
//! | [`SamplingPolicy`], [`Draw`], [`Scores`], [`Observation`] | a policy of your own |
//! | [`NormTracker`], [`Importance`] | weights of layers from the norms of LoRA and full training |
//! | `LisaModule` | the same inside burn-train's `Learner` (feature `train`) |
//! | [`ModuleStep`] | a plain optimizer or [`Lisa`], for a trainer that names neither |
//! | [`LayeredModel`], [`HeadPass`], [`Recompute`], [`Pass`] | layer-wise recomputation of activations |
//! | [`LayerMap`] | finds the layers in any module |
//! | [`FreezeMask`], [`Schedule`], [`LisaOptimizer`] | the parts, for a trainer of your own |
//! | [`Description`] | the split always-on, active, frozen |
//! | [`LisaError`], [`Explained`] | what went wrong, where, what was found, what to do |
//!
//! # Features
//!
//! - `train`: `LisaModule` and metrics for burn-train's `Learner`.
//!
//! The crate brings no backend: choose one by a feature of `burn`.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod clip;
mod config;
mod describe;
mod error;
mod explain;
mod importance;
mod layers;
#[cfg(feature = "train")]
mod learner;
mod lisa;
mod mask;
mod memory;
mod optimizer;
mod policy;
mod quantize;
mod recompute;
mod record;
mod schedule;
mod step;

pub use config::{LisaConfig, OnFreeze, PolicyConfig};
pub use describe::{Description, LayerDescription};
pub use error::{ErrorKind, LisaError};
pub use explain::{Explained, Place};
pub use importance::{Importance, NormTracker, WeightNorms};
pub use layers::{Layer, LayerMap, Parameter};
#[cfg(feature = "train")]
pub use learner::{LisaMetric, LisaMetrics, LisaModule};
pub use lisa::Lisa;
pub use mask::FreezeMask;
pub use memory::{Activations, Footprint, MemoryPlan, Planned, Usage, plan, plan_for, plan_lora};
pub use optimizer::{LisaOptimizer, LisaState};
pub use policy::{
    Bernoulli, Budget, BudgetConfig, Cyclic, CyclicOrder, Draw, DrawRng, Fixed, Gradient,
    GradientConfig, Observation, SamplingPolicy, Score, Scores, Statistic, Uniform, Weighted,
};
pub use quantize::FrozenWeights;
pub use recompute::{Cuts, HeadPass, LayeredModel, Pass, Recompute};
pub use schedule::Schedule;
pub use step::ModuleStep;
