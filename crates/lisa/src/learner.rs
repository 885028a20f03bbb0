//! LISA in burn-train's `Learner` (feature `train`).
//!
//! [`Lisa::into_learner`](crate::Lisa::into_learner) makes a `ModuleOptimizer` and a
//! [`LisaModule`], which wraps the model. Everything else is unchanged: checkpointers, gradient
//! accumulation, early stopping, several devices. [`LisaMetrics`] shows the active layers and the
//! memory of a run in the dashboard and the logs.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//!
//! use burn::data::dataloader::DataLoader;
//! use burn::optim::AdamWConfig;
//! use burn::optim::lr_scheduler::constant::ConstantLr;
//! use burn::train::{InferenceStep, Learner, LearnerModel, SupervisedTraining, TrainStep};
//! use lisa::{LisaConfig, LisaError};
//!
//! type Loader<T> = Arc<dyn DataLoader<T>>;
//!
//! fn train<M, I>(model: M, training: Loader<I>, held_out: Loader<I>) -> Result<M, LisaError>
//! where
//!     M: LearnerModel + TrainStep<Input = I> + InferenceStep<Input = I>,
//!     I: Send + 'static,
//! {
//!     // let optimizer = AdamWConfig::new().init();
//!     let (lisa, model) = LisaConfig::new().init(AdamWConfig::new(), model)?;
//!     let (optimizer, model) = lisa.into_learner(model)?;
//!
//!     let metrics = model.metrics();
//!     let result = SupervisedTraining::new("runs/mine", training, held_out)
//!         .metric_train_numeric(metrics.active_layers())
//!         .metric_train_numeric(metrics.optimizer_state())
//!         .launch(Learner::new(model, optimizer, ConstantLr::new(1e-4)));
//!     Ok(result.model.into_inner())
//! }
//! ```

mod board;
mod metric;
mod metrics;
mod module;
mod stamp;
mod train;
#[cfg(test)]
mod tests;

pub use metric::LisaMetric;
pub use metrics::LisaMetrics;
pub use module::LisaModule;
