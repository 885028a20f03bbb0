//! Which parameters of a model belong to which layer.
//!
//! [`LayerMap::find`] reads the module tree: a `Vec` (or an array) of modules whose elements have
//! the same parameter paths and shapes is a stack of layers. It works on any Burn module, without a
//! list of known architectures. [`LayerMap::split`] makes smaller layers, such as the attention and
//! the feed-forward half of each block.
//!
//! # Example
//!
//! ```
//! # use burn::module::Module;
//! # use burn::nn::{Linear, LinearConfig};
//! # use burn::tensor::Device;
//! # #[derive(Module, Debug)]
//! # struct Model { embed: Linear, layers: Vec<Linear> }
//! # let linear = || LinearConfig::new(4, 4).init(&Device::flex().autodiff());
//! # let model = Model { embed: linear(), layers: (0..3).map(|_| linear()).collect() };
//! use lisa::layers::LayerMap;
//!
//! for layer in LayerMap::find(&model)?.layers() {
//!     println!("{}: {} parameters", layer.path, layer.size);
//! }
//! # Ok::<(), lisa::LisaError>(())
//! ```

mod find;
mod map;
mod split;

pub use map::{Layer, LayerMap, Parameter};

#[cfg(test)]
mod tests;
