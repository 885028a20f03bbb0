//! What is written of each step and of each evaluation.
//!
//! `line` has the numbers. `files` writes them to `metrics.jsonl`, to `metrics.csv` (`table`) and for
//! TensorBoard (`events`), and `plot` draws them.

pub mod line;

mod events;
pub(crate) mod plot;
mod table;

pub(crate) mod files;
