//! Fine-tuning of a Hugging Face checkpoint: what the example's programs share.
//!
//! Reads from top to bottom: `settings` (what is asked), `run` (the job), `data` (examples to batches), `step`
//! (a batch to gradients), `method` (LISA, full, LoRA), `importance`, `evaluate`, `checkpoints`, `metrics`,
//! `plot`; `report` and `progress` are what a terminal shows; `corpus` makes the bundled data.

pub mod checkpoints;
pub mod corpus;
mod data;
pub mod evaluate;
pub mod hub;
pub mod importance;
pub mod method;
pub mod metrics;
pub mod plan;
pub mod plot;
pub mod pool;
pub mod progress;
pub mod report;
pub mod run;
pub mod settings;
pub mod step;
