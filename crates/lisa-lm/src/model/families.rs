//! The model families. A file, or a file and its folder, has all of a family: its configuration, how it is
//! read, checked and written, the description of its decoder, and its names of tensors.

mod file_names;
mod family;
mod llama;
mod gpt2;
mod model_config;
mod rewrite;

pub(crate) use file_names::FileNames;
pub use gpt2::Gpt2Config;
pub use llama::{LlamaConfig, LlamaKind};
pub use model_config::ModelConfig;
pub(crate) use rewrite::rewritten;

#[cfg(test)]
mod tests;
