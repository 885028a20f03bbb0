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

mod attention;
pub mod batch;
pub mod batches;
mod cache;
pub mod chat;
mod checkpoint;
mod config;
pub mod data;
pub mod encode;
mod files;
mod fused;
mod generate;
mod gpt2;
mod input;
mod layers;
mod llama;
mod lora;
mod loss;
mod model;
pub mod order;
mod rope;
#[cfg(test)]
mod test_support;
pub mod tokenizer;

pub use batch::{Batch, BatchTensors, Row};
pub use batches::{BatchOptions, Batches, Position, pack};
pub use chat::{ChatTemplate, Message};
pub use data::{BadLine, Content, Example, Examples, OnBadLine, read_examples};
pub use encode::{
    EncodeOptions, Encoded, EncodedSet, IGNORED, LossOn, encode_example, encode_examples,
    encode_examples_with, encode_prompt,
};
pub use files::read_small_text;
pub use order::{shuffled, split};
pub use tokenizer::{Tokenizer, Tokens};

pub use attention::LlamaAttention;
pub use cache::KvCache;
pub use checkpoint::{Checkpoint, SaveOptions, save, save_with, write_atomically};
pub use config::{CommonConfig, Gpt2Config, LlamaConfig, LlamaKind, ModelConfig};
pub use generate::{GenerationConfig, generate};
pub use gpt2::{Gpt2Attention, Gpt2ForCausalLm, Gpt2Layer, Gpt2Mlp, Gpt2Model};
pub use input::{Context, Input};
pub use llama::{LlamaForCausalLm, LlamaLayer, LlamaMlp, LlamaModel};
pub use lora::{Gpt2Lora, LlamaLora, SidePath};
pub use model::CausalLm;
pub use rope::{RopeConfig, RopeScaling};

/// The code of the readme, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
