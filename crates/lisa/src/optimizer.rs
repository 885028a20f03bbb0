//! Which optimizers LISA can wrap.
//!
//! [`LisaConfig::init`](crate::LisaConfig::init) takes any [`OptimizerConfig`]: all configs of
//! Burn's optimizers, and with [`Built`] any `burn::optim::Optimizer`. LISA wraps the optimizer: it
//! steps large parameters in slices, half-precision parameters are updated through f32 master
//! weights, and the state of frozen layers is dropped, kept or offloaded ([`OnFreeze`]).
//!
//! # Example
//!
//! ```
//! # use burn::nn::LinearConfig;
//! # use burn::tensor::Device;
//! use burn::grad_clipping::GradientClippingConfig;
//! use burn::optim::LionConfig;
//! use lisa::LisaConfig;
//!
//! # let device = Device::flex().autodiff();
//! # let model: Vec<_> = (0..4).map(|_| LinearConfig::new(2, 2).init(&device)).collect();
//! let lion = LionConfig::new().with_grad_clipping(Some(GradientClippingConfig::Norm(1.0)));
//! let (optimizer, model) = LisaConfig::new().init(lion, model)?;
//! # Ok::<(), lisa::LisaError>(())
//! ```

// From the bottom up. A step passes `release(ledgered(master_weights(by_rank(slices(inner)))))`.
mod bytes;
pub(crate) mod usage;
mod config;
mod decay;
mod exact;
mod ledger;
mod master;
#[cfg(feature = "train")]
mod half;
mod deferred;
mod offload;
mod release;
mod shapes;
mod slices;
mod leaves;
mod layer_optimizer;

pub use config::{Built, OptimizerConfig};
pub use decay::Decay;
pub use exact::exact;
#[cfg(feature = "train")]
pub(crate) use half::HalfWeights;
pub(crate) use layer_optimizer::{LayerOptimizer, Wrapping};
pub(crate) use leaves::Leaves;
pub(crate) use offload::is_offloaded;
pub use release::OnFreeze;
pub(crate) use shapes::StateShapes;
