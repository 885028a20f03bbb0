//! [`ModelConfig`]: the typed content of a `config.json`.
//!
//! Reads the files of transformers 4 and 5, and writes those of transformers 5. An option that the
//! models do not implement is an error that names the option. So every model that is built computes
//! what transformers computes. Dropout is the exception: its keys are ignored, and training runs
//! without dropout.

mod common;
mod family;
mod gpt2;
mod keys;
mod limits;
mod llama;
mod read;
mod rope;
mod write;

pub use common::CommonConfig;
pub use family::ModelConfig;
pub use gpt2::Gpt2Config;
pub use llama::{LlamaConfig, LlamaKind};
pub use rope::{RopeConfig, RopeScaling};
pub(crate) use write::rewritten;

#[cfg(test)]
mod tests;
