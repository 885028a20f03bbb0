//! [`Checkpoint`]: a folder as Hugging Face has it, read.
//!
//! Weights are mapped into memory and copied to the device tensor by tensor; what the names and
//! layouts are is in `checkpoint/names.rs`, which files hold them in `checkpoint/shards.rs`, and
//! writing in `checkpoint/save.rs`. Tests: `checkpoint/tests.rs`.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind};
use burn::store::{ApplyError, ApplyResult, ModuleAdapter, ModuleSnapshot};
use burn::tensor::{DType, Device, FloatDType};

use crate::files::{CONFIG_BYTES, read_text};
use crate::model::causal_lm::CausalLm;
use crate::model::config::ModelConfig;
use names::Names;
use watch::Watch;

mod names;
mod save;
mod shards;
mod watch;

pub use save::{SaveOptions, save, save_with, write_atomically};

/// A folder with a `config.json` and safetensors, opened and checked as far as that costs nothing.
///
/// # Example
///
/// ```
/// use burn::tensor::{DType, Device, FloatDType};
/// use lisa_lm::{Checkpoint, LlamaConfig, ModelConfig, SaveOptions, save};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let device = Device::default();
/// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// save(&model, &folder, &SaveOptions::default())?;
///
/// let checkpoint = Checkpoint::open(&folder)?;
/// assert_eq!(checkpoint.dir(), folder.path());
/// let again = checkpoint.load(&device, None)?;
/// assert_eq!(again.num_parameters(), model.num_parameters());
/// // In half precision, with a word about how far it is.
/// let told = |done: u64, all: u64| assert!(done <= all);
/// let half = checkpoint.load_with(&device, Some(FloatDType::BF16), told)?;
/// assert_eq!((half.dtype(), half.device()), (DType::BF16, device));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    config: ModelConfig,
    config_text: String,
}

impl Checkpoint {
    /// Opens a folder: reads its `config.json`, and looks which files hold its weights.
    ///
    /// Nothing outside the folder is read or written, whatever its files say: an index may name files
    /// of the folder only, and links must stay in it (those of the Hub's cache may lead to its blobs).
    /// Reads at most 16 MiB of `config.json` and 64 MiB of an index; their contents take some times
    /// that in memory.
    ///
    /// # Errors
    ///
    /// No folder, no or an unsupported `config.json`, no safetensors, an index that is not one or
    /// that names files which are not there or not in the folder, a file that is a pipe, a device or a
    /// link out of the folder.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref().to_path_buf();
        let path = dir.join("config.json");
        let text = read_text(&dir, "config.json", CONFIG_BYTES);
        let text = text.and_then(|text| {
            let missing = || io::Error::new(io::ErrorKind::NotFound, "it is not there");
            text.ok_or_else(missing)
        });
        let text = text.map_err(|e| {
            let message = format!("{} cannot be read ({e})", path.display());
            Error::new(ErrorKind::Checkpoint, message)
                .with_help(
                    "give a folder in the Hugging Face format, with config.json, safetensors \
                     and a tokenizer",
                )
                .with_source(e)
        })?;
        let config = ModelConfig::from_json(&text).map_err(|e| e.with_place(&path, None))?;
        shards::find(&dir)?;
        Ok(Self {
            dir,
            config,
            config_text: text,
        })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `config.json` says.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Loads the model onto a device, with gradients where the device has autodiff.
    ///
    /// Without a dtype each tensor keeps the one it was stored in. The device needs no
    /// configuration for half precision. Costs the model's memory once, and that of its largest
    /// tensor twice more for the time of loading; the headers of the files, at most 100 MB each, take
    /// some times their size. Sizes that `config.json` or a header claims cost nothing where the files
    /// do not hold as much. A file must not shrink while it is read: it is mapped into memory.
    ///
    /// # Errors
    ///
    /// A missing tensor, one that the model does not have (buffers that old checkpoints carry are
    /// passed over), a wrong shape, a truncated file, a dtype that is not a float or that the
    /// device does not have: each by name. A shape of another rank, a tensor that is there twice.
    pub fn load(&self, device: &Device, dtype: Option<FloatDType>) -> Result<CausalLm, Error> {
        self.load_with(device, dtype, |_, _| {})
    }

    /// Like [`load`](Self::load); `progress` is told, after each tensor, how many bytes were read and
    /// how many there are.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_with(
        &self,
        device: &Device,
        dtype: Option<FloatDType>,
        progress: impl Fn(u64, u64) + Send + Sync + 'static,
    ) -> Result<CausalLm, Error> {
        if let Some(dtype) = dtype
            .map(DType::from)
            .filter(|dtype| !device.supports_dtype(*dtype))
        {
            return Err(Error::new(
                ErrorKind::Model,
                format!("the device {device:?} has no {dtype:?}"),
            )
            .with_help("choose another dtype"));
        }
        let names = Names::of(&self.config);
        let mut tensors = Vec::new();
        let mut seen = HashSet::new();
        for mut tensor in shards::read(&self.dir)? {
            let Some(name) = names.canonical(&tensor.name) else {
                continue;
            };
            if !matches!(
                tensor.dtype,
                DType::F64 | DType::F32 | DType::F16 | DType::BF16
            ) {
                return Err(self.refuse(format!(
                    "tensor {} is {:?}, but only floats of 16, 32 or 64 bits are supported",
                    tensor.name, tensor.dtype
                )));
            }
            if !seen.insert(name.clone()) {
                return Err(self.refuse(format!("tensor {} is there twice", tensor.name)));
            }
            tensor.name = name;
            tensors.push(tensor);
        }
        let layers = self.config.num_layers();
        if tensors.len() < layers {
            return Err(self.refuse(format!(
                "config.json asks for {layers} layers, but the files hold {} tensors of the model",
                tensors.len()
            )));
        }
        let mut model = self.config.skeleton(device);
        let total = tensors.iter().map(|tensor| tensor.byte_len() as u64).sum();
        let watch = Watch::new(total, progress);
        let adapter: Box<dyn ModuleAdapter> = Box::new(names.loading(dtype).watched(watch));
        let result = model.apply(tensors, None, Some(adapter), true);
        self.check(names, &result)?;
        Ok(model)
    }

    fn check(&self, names: Names, result: &ApplyResult) -> Result<(), Error> {
        if let Some(error) = result.errors.first() {
            return Err(self.refuse(match error {
                ApplyError::ShapeMismatch {
                    path,
                    expected,
                    found,
                } => {
                    let stored = |shape: &[usize]| names.stored_shape(path, shape);
                    format!(
                        "tensor {} has shape {:?}, but config.json asks for {:?}",
                        Names::stored_name(path),
                        stored(found),
                        stored(expected)
                    )
                }
                other => other.to_string(),
            }));
        }
        let missing: Vec<String> = result
            .missing
            .iter()
            .map(|(path, _)| Names::stored_name(path))
            .collect();
        if !missing.is_empty() {
            let listed = some_of(&missing);
            return Err(self.refuse(format!("{} tensors are missing: {listed}", missing.len())));
        }
        if !result.unused.is_empty() {
            let (count, listed) = (result.unused.len(), some_of(&result.unused));
            let message = format!("{count} tensors are not of this model: {listed}");
            return Err(self.refuse(message).with_help(
                "check that config.json has the model_type and the number of layers of the weights",
            ));
        }
        Ok(())
    }

    fn refuse(&self, message: String) -> Error {
        Error::new(
            ErrorKind::Checkpoint,
            format!("{}: {message}", self.dir.display()),
        )
    }
}

/// The first few names of a list.
fn some_of(names: &[String]) -> String {
    let shown = names.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > 5 {
        format!("{shown}, ...")
    } else {
        shown
    }
}

#[cfg(test)]
mod tests;
