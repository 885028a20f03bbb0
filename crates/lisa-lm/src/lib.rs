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
//! # Features
//!
//! - `flex`: on Burn's flex backend, f32 models use fused operations, and models in half precision
//!   keep less for the backward pass.
//! - `cuda`, `rocm`, `tch`, and `wgpu`, which is also for Vulkan and Metal: models on this backend
//!   keep less for the backward pass.
//! - `parquet`: data files may be Parquet.
//!
//! A memory plan for the model's own device assumes the features of the build. A plan for another
//! device assumes that the feature for that device is enabled.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod place;
mod error;
pub mod files;
mod labels;

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
