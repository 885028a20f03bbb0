//! Causal language models for Burn, with Hugging Face checkpoints in and out.
//!
//! | module | what is in it |
//! |---|---|
//! | [`text`] | tokenizer, chat template, JSONL data, batches |
//! | [`model`] | the Llama family and GPT-2: configuration, forward pass, loss, LoRA, generation |
//! | [`checkpoint`] | a folder of safetensors in, a folder out that transformers opens |
//!
//! With the feature `flex`, models in f32 on Burn's flex backend run several steps in one pass each.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

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
pub use model::{CausalLm, GenerationConfig, generate};
pub use text::{ChatTemplate, Tokenizer};

/// The code of the readme, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
