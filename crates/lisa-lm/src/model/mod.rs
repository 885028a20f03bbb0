//! The models: configuration, layers, families, cache, loss, adapters, generation.
//!
//! Does not use the text half: its input is tensors of token ids.

pub(crate) mod attention;
pub(crate) mod cache;
pub(crate) mod causal_lm;
pub(crate) mod config;
pub(crate) mod fused;
pub(crate) mod generate;
pub(crate) mod gpt2;
pub(crate) mod input;
pub(crate) mod layers;
pub(crate) mod llama;
pub(crate) mod lora;
pub(crate) mod loss;
pub(crate) mod rope;

pub use cache::KvCache;
pub use causal_lm::CausalLm;
pub use config::{CommonConfig, Gpt2Config, LlamaConfig, LlamaKind, ModelConfig};
pub use generate::{GenerationConfig, generate};
pub use input::{BatchTensors, Context, Input};
pub use rope::{RopeConfig, RopeScaling};
