//! Checkpoints in the Hugging Face format: folders with `config.json` and safetensors.
//!
//! [`Checkpoint::open`] and [`load`](Checkpoint::load) read a folder, [`save`] writes one that
//! `transformers` loads.
//!
//! ```
//! # use burn::tensor::Device;
//! # use lisa_lm::{ModelConfig, model::config::LlamaConfig};
//! use lisa_lm::checkpoint::{Checkpoint, SaveOptions, save};
//!
//! # let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
//! # let device = Device::default();
//! # let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
//! # save(&model, &from, &SaveOptions::default())?;
//! let checkpoint = Checkpoint::open(&from)?;
//! let model = checkpoint.load(&device, None)?;
//! let options = SaveOptions { source: Some(&checkpoint), ..SaveOptions::default() };
//! save(&model, &to, &options)?;
//! # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
//! ```

mod adapter;
mod contents;
mod folder;
mod floats;
mod formats;
mod layout;
mod load;
mod names;
mod place;
mod progress;
mod remote_code;
mod save;
mod select;
mod shards;
mod transpose;

pub use adapter::{Adapter, AdapterOptions, save_adapter};
pub use contents::is_model_file;
pub use folder::Checkpoint;
#[cfg(test)]
pub(crate) use names::Names;
pub use save::{SaveOptions, save, save_with};

#[cfg(test)]
mod tests;
