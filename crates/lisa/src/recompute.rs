//! Gradient checkpointing for models that run layer by layer.
//!
//! [`Recompute`] runs a [`LayeredModel`] forward and keeps only the inputs of its segments. The
//! backward pass goes from the head to the first layer. It runs one segment at a time again, now on
//! an autodiff graph, takes the gradients, and frees the graph. So only the activations of one
//! segment are in memory at a time. The backward pass ends at the lowest trainable segment.
//!
//! - A *segment* is a run of consecutive layers that is recomputed as a whole. By default, it is
//!   one layer.
//! - A *sublayer* is a step of one layer that can be recomputed separately, such as attention or
//!   the MLP.
//! - A *cut* is a place inside a sublayer where its autodiff graph is divided in two, so that the
//!   later graph is freed before the earlier one runs backward.
//!
//! # Example
//!
//! ```
//! use burn::module::{Module, ModuleVisitor};
//! use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
//! use burn::tensor::{Device, Int, Tensor};
//! use lisa::recompute::{LayeredModel, Recompute};
//!
//! #[derive(Module, Debug)]
//! struct Model {
//!     embed: Embedding,
//!     layers: Vec<Linear>,
//!     head: Linear,
//! }
//!
//! impl LayeredModel for Model {
//!     type Batch = Tensor<2, Int>;
//!     type Context = ();
//!
//!     fn context(&self, _: &Self::Batch) {}
//!     fn num_layers(&self) -> usize {
//!         self.layers.len()
//!     }
//!     fn embed(&self, batch: &Self::Batch, (): &()) -> Tensor<3> {
//!         self.embed.forward(batch.clone())
//!     }
//!     fn layer(&self, index: usize, h: Tensor<3>, (): &()) -> Tensor<3> {
//!         h.clone() + self.layers[index].forward(h).tanh()
//!     }
//!     fn visit_layer<V: ModuleVisitor>(&self, index: usize, visitor: &mut V) {
//!         self.layers[index].visit(visitor);
//!     }
//!     fn head_loss(&self, h: Tensor<3>, _: &Self::Batch, (): &()) -> Tensor<1> {
//!         self.head.forward(h).square().mean()
//!     }
//! }
//!
//! let device = Device::flex().autodiff();
//! let linear = || LinearConfig::new(4, 4).init(&device);
//! let model = Model {
//!     embed: EmbeddingConfig::new(8, 4).init(&device),
//!     layers: (0..3).map(|_| linear()).collect(),
//!     head: linear(),
//! };
//! let batch = Tensor::<2, Int>::from_data([[1, 2, 3]], &device);
//!
//! let pass = Recompute::new().forward(&model, &batch);
//! println!("loss {}", pass.loss());
//! let gradients = pass.backward(&model);
//! // The embedding, and a weight and a bias of three layers and the head.
//! assert_eq!(gradients.len(), 1 + 4 * 2);
//! ```
//!
//! [`Lisa::step_layered`](crate::Lisa::step_layered) updates each layer as soon as its gradients
//! are computed.

mod backward;
mod cuts;
mod embed;
mod gradients;
mod head;
mod model;
mod pass;
mod plan;
mod stack;
#[cfg(test)]
mod tests;
mod tied;

pub use cuts::Cuts;
pub use embed::EmbedPass;
pub use head::HeadPass;
pub use model::LayeredModel;
pub use pass::Pass;
pub use plan::Recompute;
