//! How a model is evaluated on held-out rows.
//!
//! `result` is what an evaluation finds, `prompts` are the prompts that answers are generated for, and
//! `evaluate` measures losses and generates the answers.

pub mod result;

pub mod prompts;

pub mod evaluate;
