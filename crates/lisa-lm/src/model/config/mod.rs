//! [`ModelConfig`]: the typed content of a `config.json`.
//!
//! It reads the files of transformers 4 and 5, and writes those of transformers 5. An option that
//! the models do not implement is an error that names the option. So every model computes what
//! transformers computes. The exception is dropout: its keys are ignored, and training runs without
//! dropout.

mod common;
pub(crate) mod keys;
pub(crate) mod limits;
mod rope;

pub use common::CommonConfig;
pub(crate) use common::dtype_name;
pub use rope::{RopeConfig, RopeScaling};

pub use super::families::{Gpt2Config, LlamaConfig, LlamaKind, ModelConfig};
