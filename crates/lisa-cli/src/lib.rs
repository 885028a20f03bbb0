//! The program `lisa`: fine-tunes language models with LISA.
//!
//! From the bottom up: `user_error`, `device`, `machine`, `number` (numbers in JSON), `terminal` (what is printed),
//! `bundled`, `hub`, `model_folder`, `model_tokenizer` and `data_folder` (where files are),
//! `leftovers`, `lock`, `output_folder` (where a command writes), `run_folder` and `earlier_run` (the files of a
//! run), [`settings`] (flags and files), `model_card`, [`train`] (a run), [`commands`] (the command line).

pub mod bundled;
pub mod commands;
mod data_folder;
#[cfg(feature = "hub")]
mod hub;
mod hub_files;
mod leftovers;
mod device;
mod earlier_run;
pub mod lock;
mod machine;
mod model_card;
mod model_folder;
mod model_tokenizer;
mod number;
mod output_folder;
pub mod pool;
mod run_folder;
pub mod settings;
pub mod terminal;
pub mod train;
mod user_error;
