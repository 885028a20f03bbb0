//! Memory: what a run will need, and what it uses.
//!
//! [`MemoryPlan::lisa`] and [`MemoryPlan::lora`] add up the bytes of a run before it starts: those
//! of the parameters, which the module has, and those of the activations, which the model gives
//! through [`Footprint`]. Nothing is allocated, so the model may have lazy parameters. [`Usage`],
//! from [`Lisa::memory`](crate::Lisa::memory), and [`DeviceUsage`] say how much memory a running
//! program uses.
//!
//! # Example
//!
//! ```
//! use burn::module::Module;
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::{DType, Device};
//! use lisa::LisaConfig;
//! use lisa::memory::{Activations, Footprint, MemoryPlan, Workload};
//!
//! #[derive(Module, Debug)]
//! struct Network {
//!     layers: Vec<Linear>,
//! }
//!
//! impl Footprint for Network {
//!     fn activations(&self, workload: &Workload) -> Activations {
//!         let tokens = workload.batch * workload.sequence;
//!         let hidden = (tokens * 4096 * DType::from(workload.dtype).size()) as u64;
//!         Activations {
//!             frozen_layer: hidden,
//!             active_layer: 2 * hidden,
//!             hidden,
//!             logits: hidden,
//!             ..Activations::default()
//!         }
//!     }
//! }
//!
//! let device = Device::flex().autodiff();
//! let linear = || LinearConfig::new(4096, 4096).with_bias(false).init(&device);
//! let network = Network { layers: (0..32).map(|_| linear()).collect() };
//!
//! let workload = Workload::new(&network, 1, 1024);
//! let plan = MemoryPlan::lisa(&network, &LisaConfig::new(), &workload)?;
//! println!("{plan}");
//! // Of 32 layers in f32 two are active.
//! assert_eq!(plan.weights, 32 * 4096 * 4096 * 4);
//! assert_eq!(plan.optimizer_state, 2 * 2 * 4096 * 4096 * 4);
//! // Nothing was allocated for it.
//! assert!(!network.layers[0].weight.is_initialized());
//! # Ok::<(), lisa::LisaError>(())
//! ```

mod activations;
mod adapters;
mod breakdown;
mod device;
mod elements;
mod largest;
mod lisa;
mod lora;
mod plan;
mod segments;
#[cfg(test)]
mod tests;
mod workload;

pub use crate::optimizer::usage::Usage;
pub use activations::{Activations, Footprint};
pub use adapters::{Adapters, LayerAdapters};
pub use breakdown::Breakdown;
pub use device::DeviceUsage;
pub use plan::MemoryPlan;
pub use workload::Workload;
