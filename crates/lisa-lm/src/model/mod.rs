//! The models: configuration, layers, loss, adapters, generation.
//!
//! A [`ModelConfig`](config::ModelConfig) describes a model; [`CausalLm`] is the model. All
//! families use one decoder: a description, made from the configuration, has the dimensions and
//! options of its [blocks](block). The input is tensors of token ids.

pub mod block;
pub mod config;

mod cache;
mod causal_lm;
mod context;
mod decoder;
mod families;
mod footprint;
mod generate;
mod head;
mod input;
mod layered;
mod lora;
mod lora_config;
mod mask;
mod ops;
mod resize;
mod random;
mod rope;
mod spec;

pub use cache::KvCache;
pub use causal_lm::CausalLm;
pub use context::Context;
pub use decoder::Decoder;
pub(crate) use families::{FileNames, rewritten};
pub use generate::{GenerationConfig, generate, generate_while};
pub use input::{BatchTensors, Input};
pub use lora_config::LoraConfig;
pub(crate) use lora_config::ends_with;
pub use ops::linear_cross_entropy;
