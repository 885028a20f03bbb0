//! How a model is evaluated on held-out rows.
//!
//! `result` is what an evaluation finds, `prompts` are the prompts that answers are generated for,
//! `evaluate` measures losses and generates the answers, and `watched` shows its progress.

pub mod result;

pub(crate) mod prompts;

pub(crate) mod evaluate;

pub(crate) mod watched;
