//! [`Checkpoint`]: an opened folder.

use std::io;
use std::path::{Path, PathBuf};

use burn::tensor::FloatDType;
use serde::Deserialize;

use super::select::{has_own_head, most_elements};
use super::shards::{self, Files};
use crate::error::{Error, ErrorKind};
use crate::files::{CONFIG_BYTES, help_of, read_text};
use crate::model::config::ModelConfig;

/// A checkpoint in the Hugging Face format: a folder with `config.json` and safetensors.
///
/// # Example
///
/// ```
/// use burn::tensor::{DType, Device, FloatDType};
/// use lisa_lm::checkpoint::{SaveOptions, save};
/// use lisa_lm::{Checkpoint, ModelConfig, model::config::LlamaConfig};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let device = Device::default();
/// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// save(&model, &folder, &SaveOptions::default())?;
///
/// let checkpoint = Checkpoint::open(&folder)?;
/// assert_eq!(checkpoint.dir(), folder.path());
/// let loaded = checkpoint.load(&device, None)?;
/// assert_eq!(loaded.num_parameters(), model.num_parameters());
/// // In half precision, with a report of the bytes read.
/// let report = |done: u64, total: u64| assert!(done <= total);
/// let half = checkpoint.load_with(&device, Some(FloatDType::BF16), report)?;
/// assert_eq!((half.dtype(), half.device()), (DType::BF16, device));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    config: ModelConfig,
    config_text: String,
    /// The file of the weights that `config.json` names.
    entry: Option<String>,
}

impl Checkpoint {
    /// Opens a folder: reads `config.json` and finds the files of the weights, without reading
    /// them.
    ///
    /// If `config.json` ties the head to the embedding, but the files have a head with other
    /// values, the model is untied, as in transformers: [`config`](Self::config) says so, and a
    /// warning is logged. To compare the values, the head and the embedding are read if
    /// `config.json` ties them and the files have both.
    ///
    /// Nothing outside the folder is read or written: an index may name only files of the folder,
    /// and symbolic links must stay inside it. Links of the Hub's cache may point to its blobs.
    /// Reads at most 16 MiB of `config.json` and 64 MiB of an index.
    ///
    /// # Errors
    ///
    /// The folder is missing; `config.json` is missing or not supported; the safetensors are
    /// missing; an index is invalid, or names files that are missing or outside the folder; a file
    /// is a pipe, a device or a link out of the folder.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref().to_path_buf();
        let path = dir.join("config.json");
        let text = read_text(&dir, "config.json", CONFIG_BYTES);
        let text = text.and_then(|text| {
            let missing = || io::Error::new(io::ErrorKind::NotFound, "it does not exist");
            text.ok_or_else(missing)
        });
        let text = text.map_err(|e| {
            let message = format!("{} cannot be read ({e})", path.display());
            Error::new(ErrorKind::Checkpoint, message)
                .with_help(help_of(&e, help_without_config(&dir)))
                .with_source(e)
        })?;
        let mut config = ModelConfig::from_json(&text).map_err(|e| {
            let line = e.place().and_then(|(_, line)| line);
            e.with_place(&path, line)
        })?;
        let entry = serde_json::from_str::<Entry>(&text).ok();
        let entry = entry.and_then(|entry| entry.transformers_weights);
        let files = shards::find(&dir, entry.as_deref())?;
        if config.is_tied() && has_own_head(&dir, &config, &files.read(&dir)?.tensors)? {
            log::warn!(
                "{}: config.json ties the head to the embedding, but the files have a head with \
                 other values; it is used as a weight of its own",
                dir.display()
            );
            config.set_tied(false);
        }
        Ok(Self {
            dir,
            config,
            config_text: text,
            entry,
        })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The files of the weights, in the order of their names. They are not read.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), if the folder has changed since then.
    pub fn weight_files(&self) -> Result<Vec<PathBuf>, Error> {
        let files = self.files()?;
        Ok(files.names().map(|name| self.dir.join(name)).collect())
    }

    /// The model's configuration: that of `config.json`, except that the head is untied if
    /// [`open`](Self::open) found a head with other values.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The dtype that `config.json` names, or else that of most elements of the files. Reads their
    /// headers.
    ///
    /// # Errors
    ///
    /// A file of the weights is missing or damaged.
    pub fn stored_dtype(&self) -> Result<Option<FloatDType>, Error> {
        match self.config.common().dtype {
            Some(dtype) => Ok(Some(dtype)),
            None => Ok(most_elements(&self.files()?.read(&self.dir)?.tensors).0),
        }
    }

    /// The text of `config.json`.
    pub(super) fn config_text(&self) -> &str {
        &self.config_text
    }

    /// The files of the weights.
    pub(super) fn files(&self) -> Result<Files, Error> {
        shards::find(&self.dir, self.entry.as_deref())
    }
}

/// The key of `config.json` that names the file of the weights.
#[derive(Deserialize)]
struct Entry {
    transformers_weights: Option<String>,
}

/// What to do about a folder whose `config.json` cannot be read.
fn help_without_config(dir: &Path) -> &'static str {
    if dir.is_file() {
        "give the folder of the model, not one of its files"
    } else if dir.join("adapter_config.json").is_file() {
        "this is the folder of an adapter: merge it into its base model, and give that folder"
    } else {
        "give a folder in the Hugging Face format, with config.json, safetensors and a tokenizer"
    }
}
