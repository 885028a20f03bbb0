//! Causal language models for Burn, with Hugging Face checkpoints in and out.
//!
//! | what | for |
//! |---|---|
//! | [`Checkpoint`], [`save`] | a folder in, a folder out |
//! | [`ModelConfig`], [`CausalLm`], [`Input`] | the models: the Llama family and GPT-2 |
//! | [`CausalLm::with_lora`] | LoRA as a side path, to compare with |
//! | [`generate`], [`GenerationConfig`] | generation with a key-value cache |
//! | [`Tokenizer`], [`ChatTemplate`] | text to tokens, chats to text |
//! | [`read_examples`], [`encode_examples`], [`Batches`] | instruction data to batches |
//!
//! The feature `flex` takes several steps of a model in one pass each where it runs on flex in f32.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

pub mod checkpoint;
mod error;
mod files;
mod labels;
pub mod model;
#[cfg(test)]
mod test_support;
pub mod text;

pub use error::{Error, ErrorKind};
pub use files::read_small_text;
pub use text::batch::{Batch, Row};
pub use text::batches::{BatchOptions, Batches, Position, pack};
pub use text::chat::{ChatTemplate, Message};
pub use text::data::{BadLine, Content, Example, Examples, OnBadLine, read_examples};
pub use text::encode::{
    EncodeOptions, Encoded, EncodedSet, IGNORED, LossOn, encode_example, encode_examples,
    encode_examples_with, encode_prompt,
};
pub use text::order::{shuffled, split};
pub use text::tokenizer::{Tokenizer, Tokens};

pub use checkpoint::{Checkpoint, SaveOptions, save, save_with, write_atomically};
pub use model::config::{
    CommonConfig, Gpt2Config, LlamaConfig, LlamaKind, ModelConfig, RopeConfig, RopeScaling,
};
pub use model::{BatchTensors, CausalLm, Context, GenerationConfig, Input, KvCache, generate};

/// The code of the readme, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
