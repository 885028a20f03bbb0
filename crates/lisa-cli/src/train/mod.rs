//! A training run, from the data to the output files.
//!
//! | file | what it does |
//! |---|---|
//! | `run` | the run from start to end |
//! | `prepare` | opens the model and the data, and makes the optimizer |
//! | `steps` | the training loop |
//! | `finish` | writes the model, the plots and the summary |
//! | `data`, `step`, `method`, `evaluate` | the work of the loop |
//! | `text` | how examples become text: prompts as chats, the chat template, the end of a turn |
//! | `vocabulary` | checks tokens against the model's vocabulary |
//! | `fingerprint` | what a resumed run must have in common with its checkpoint |
//! | `checkpoints`, `metrics`, `plot`, `planned` | what is written and printed |

pub mod checkpoints;
pub(crate) mod data;
pub mod evaluate;
mod examples;
pub mod fingerprint;
mod finish;
pub mod method;
pub mod metrics;
pub mod planned;
pub mod plot;
mod prepare;
pub mod run;
pub mod step;
mod steps;
pub mod text;
mod vocabulary;
