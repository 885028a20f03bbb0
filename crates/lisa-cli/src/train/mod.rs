//! A training run, from the data to the output files.
//!
//! A folder imports only folders above it in this table, and the files `clock` and `score`.
//!
//! | folder | what it has |
//! |---|---|
//! | `data` | reads and encodes examples |
//! | `method` | the optimizer of a method, and one step |
//! | `evaluation` | evaluates a model on held-out rows |
//! | `metrics` | the numbers of each step, in files and plots |
//! | `memory` | plans the memory of a run |
//! | `saved` | checkpoints, and what a resumed run must have in common with them |
//! | `prepare` | opens the model and the data of a run |
//! | `training_loop` | the loop |
//! | `output` | what is written after the last step |
//!
//! `clock` measures the time of each part of a run, `score` compares a generated answer with that of the
//! data, and `run` is the run from start to end.

pub(crate) mod clock;
pub mod score;

pub(crate) mod data;
pub(crate) mod method;

pub mod evaluation;
pub(crate) mod memory;

pub mod metrics;
pub(crate) mod saved;

pub(crate) mod prepare;

pub(crate) mod training_loop;

mod output;

pub mod run;
