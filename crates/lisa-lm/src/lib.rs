//! Causal language models for Burn. The crate reads and writes Hugging Face checkpoints.
//!
//! | module | content |
//! |---|---|
//! | [`text`] | tokenizer, chat template, data files, batches |
//! | [`model`] | the Llama family and GPT-2: configuration, forward pass, loss, LoRA, generation |
//! | [`checkpoint`] | reads a folder of safetensors, and writes a folder that transformers can load |
//!
//! [`linear_cross_entropy`] computes a loss over a large vocabulary without all of its logits, in any
//! Burn training loop.
//!
//! With the feature `flex`, f32 models on Burn's flex backend use fused operations. With `flex` in half
//! precision, and with the feature of another backend (`cuda`, `rocm`, `tch`, and `wgpu`, also for Vulkan,
//! and Metal), layers keep less for the backward pass. A memory plan for the model's own device is for
//! the features of the build; a plan for another device assumes that its feature is enabled. With `parquet`, data files may be Parquet.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod error;
pub mod files;
mod labels;
mod place;

pub mod model;
pub mod text;

pub mod checkpoint;
mod collate;

#[cfg(test)]
mod test_support;

pub use checkpoint::Checkpoint;
pub use error::{Error, ErrorKind};
pub use model::config::ModelConfig;
pub use model::{CausalLm, GenerationConfig, generate, linear_cross_entropy};
pub use text::{ChatTemplate, Tokenizer};

/// The code of the readme, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
