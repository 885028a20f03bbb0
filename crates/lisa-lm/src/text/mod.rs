//! Text to batches: tokenizer, chat templates, data files, encoding, order, batches.
//!
//! Knows nothing of models: it ends at rows of token ids.

pub mod batch;
pub mod batches;
pub mod chat;
pub mod data;
pub mod encode;
pub mod order;
pub mod tokenizer;
