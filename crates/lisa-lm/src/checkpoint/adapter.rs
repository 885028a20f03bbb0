//! [`Adapter`]: a LoRA adapter in PEFT's format, a folder with `adapter_config.json` and
//! `adapter_model.safetensors`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::store::bridge::to_data;
use burn::store::burn_pack::Tensor as PackTensor;
use burn::tensor::{DType, Tensor, TensorData};

use super::contents::{ADAPTER as WEIGHTS, ADAPTER_CONFIG as CONFIG};
use super::shards::tensors;
use super::transpose::transposed;
use crate::error::{Error, ErrorKind};
use crate::files::{self, CONFIG_BYTES, read_text, shown};
use crate::model::block::{LoraAdapter, trainable};
use crate::model::{CausalLm, LoraConfig, ends_with};

mod config;
mod save;

pub use save::{AdapterOptions, save_adapter};

use config::Stored;

/// The start of the names of an adapter's tensors.
const PREFIX: &str = "base_model.model.";
/// The ends of the names of an adapter's two matrices: `[rank, in]` and `[out, rank]`.
const A: &str = ".lora_A.weight";
const B: &str = ".lora_B.weight";
/// The end of the name of the base model's weight, which PEFT writes, too, if the head has an adapter:
/// `[out, in]`.
const COPY: &str = ".base_layer.weight";

/// A LoRA adapter in PEFT's format: a folder with `adapter_config.json` and
/// `adapter_model.safetensors`.
///
/// # Example
///
/// ```
/// use burn::tensor::Device;
/// use lisa_lm::checkpoint::{Adapter, AdapterOptions, save_adapter};
/// use lisa_lm::{ModelConfig, model::{LoraConfig, config::LlamaConfig}};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let base = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&Device::default())?;
/// let config = LoraConfig::new(4).with_modules(["q_proj", "v_proj"]);
/// let model = base.clone().with_lora(&config)?;
/// save_adapter(&model, &folder, &AdapterOptions::new("owner/name"))?;
///
/// let adapter = Adapter::open(&folder)?;
/// assert_eq!((adapter.base(), adapter.config()), (Some("owner/name"), &config));
/// let merged = adapter.apply(base)?.merge_lora();
/// # let _ = merged;
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Adapter {
    dir: PathBuf,
    config: LoraConfig,
    base: Option<String>,
    revision: Option<String>,
}

impl Adapter {
    /// Opens a folder: reads `adapter_config.json` and the names of the tensors.
    ///
    /// Nothing outside the folder is read. The modules are those of `target_modules`, if it is a
    /// list or `all-linear` and no other key narrows it; otherwise, they are those that have
    /// tensors. A name of the list is left out if no module of this name has tensors: PEFT allows
    /// names that the base model does not have.
    ///
    /// # Errors
    ///
    /// A file is missing, is damaged, or is no regular file of the folder; the adapter is not LoRA, or
    /// has a part that is not supported, such as DoRA, biases, whole weights or ranks of single
    /// modules.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref().to_path_buf();
        let path = dir.join(CONFIG);
        let text = read_text(&dir, CONFIG, CONFIG_BYTES).map_err(|e| {
            let message = format!("{} cannot be read ({e})", path.display());
            Error::new(ErrorKind::Checkpoint, message).with_source(e)
        })?;
        let Some(text) = text else {
            let message = format!("{} does not exist", path.display());
            return Err(Error::new(ErrorKind::Checkpoint, message).with_help(
                "give the folder of an adapter in PEFT's format, with adapter_config.json and \
                 adapter_model.safetensors",
            ));
        };
        let stored = Stored::parse(&text).map_err(|error| error.with_place(&path, None))?;
        let adapters = Contents::read(&dir)?.adapters;
        let modules = match stored.modules {
            Some(names) => with_tensors(names, &adapters),
            None => adapters.into_keys().collect(),
        };
        let config = LoraConfig {
            modules,
            ..stored.config
        };
        config
            .check()
            .map_err(|error| error.with_place(&path, None))?;
        Ok(Self {
            dir,
            config,
            base: stored.base,
            revision: stored.revision,
        })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration of the adapters.
    #[must_use]
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The base model that the adapter was trained with: a folder, or an id of the hub.
    #[must_use]
    pub fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// The branch, tag or commit of the base model on the hub.
    #[must_use]
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// Sets the dropout of further training.
    #[must_use]
    pub fn with_dropout(mut self, dropout: f64) -> Self {
        self.config.dropout = dropout;
        self
    }

    /// Freezes the model, which must be the base model, and adds the adapters to it. Reads the file
    /// of the matrices.
    ///
    /// # Errors
    ///
    /// As [`CausalLm::with_lora`]; a tensor is missing, belongs to no module of the model, or has
    /// another shape; the file also has a weight of the base model, and the model's weight differs.
    pub fn apply(&self, model: CausalLm) -> Result<CausalLm, Error> {
        self.restore(model.with_lora(&self.config)?)
    }

    /// Replaces the matrices of a model's adapters by those of the folder. The adapters keep their
    /// ids, their scale and their dropout. Reads the file of the matrices.
    ///
    /// # Errors
    ///
    /// The model has no adapters, or adapters of other modules or of another rank; a tensor is
    /// missing, or has another shape; the file also has a weight of the base model, and the model's
    /// weight differs.
    pub fn restore(&self, mut model: CausalLm) -> Result<CausalLm, Error> {
        let Contents {
            adapters: mut matrices,
            mut copies,
        } = Contents::read(&self.dir)?;
        // No memory is allocated for a rank that the file does not have.
        let rank = self.config.rank;
        let other = |[a, b]: &&[PackTensor; 2]| {
            a.shape.first() != Some(&rank) || b.shape.last() != Some(&rank)
        };
        if let Some([a, _]) = matrices.values().find(other) {
            let (name, shape) = (shown(&a.name.escape_debug()), &a.shape[..]);
            return Err(self.refuse(format!(
                "tensor {name} has shape {shape:?}, and the rank of {CONFIG} is {rank}"
            )));
        }
        for (path, _, projection) in model.linear_mut() {
            if let Some(lora) = &mut projection.lora {
                let Some([a, b]) = matrices.remove(&path) else {
                    return Err(self.refuse(format!("there is no adapter of {path}")));
                };
                self.set(lora, &a, &b)?;
                if let Some(copy) = copies.remove(&path) {
                    self.check(&projection.weight.val(), &copy)?;
                }
            }
        }
        match matrices.into_keys().chain(copies.into_keys()).next() {
            None => Ok(model),
            Some(path) => {
                let path = shown(&path.escape_debug());
                Err(self.refuse(format!(
                    "it has tensors of {path}, which is no linear module of this model, or not \
                     among the target modules"
                )))
            }
        }
    }

    /// Puts the stored matrices into an adapter.
    fn set(&self, lora: &mut LoraAdapter, a: &PackTensor, b: &PackTensor) -> Result<(), Error> {
        for (param, tensor) in [(&mut lora.a, a), (&mut lora.b, b)] {
            *param = trainable(param.id, self.like(&param.val(), tensor)?);
        }
        Ok(())
    }

    /// Returns an error if the stored weight, rounded to the dtype of this one of the base model, or the other
    /// way round, is not the same.
    fn check(&self, weight: &Tensor<2>, copy: &PackTensor) -> Result<(), Error> {
        let weight = weight.clone().transpose();
        self.require_shape(copy, weight.dims())?;
        let coarser = if copy.dtype.size() < weight.dtype().size() {
            copy.dtype
        } else {
            weight.dtype()
        };
        let data = to_data(copy).map_err(|e| self.refuse(e.to_string()).with_source(e))?;
        let stored = Tensor::<2>::from_data(data, (&weight.device(), coarser));
        if stored
            .equal(weight.cast(coarser))
            .all()
            .into_scalar::<bool>()
        {
            return Ok(());
        }
        let name = shown(&copy.name.escape_debug());
        Err(self.refuse(format!(
            "tensor {name} is not the weight of the model, and weights of the base model are not read from \
             an adapter"
        )))
    }

    /// The stored values, `[out, in]`, as a tensor with the shape, `[in, out]`, the dtype and the device
    /// of another one.
    fn like(&self, other: &Tensor<2>, stored: &PackTensor) -> Result<Tensor<2>, Error> {
        let [rows, columns] = other.dims();
        self.require_shape(stored, [columns, rows])?;
        let data = to_data(stored).map_err(|e| self.refuse(e.to_string()).with_source(e))?;
        let values: Vec<f32> = data.iter().collect();
        let data = TensorData::new(transposed(&values, rows), [rows, columns]);
        let options = (&other.device(), other.dtype());
        Ok(Tensor::from_data(data, options))
    }

    fn require_shape(&self, stored: &PackTensor, shape: [usize; 2]) -> Result<(), Error> {
        if stored.shape[..] == shape {
            return Ok(());
        }
        let (name, found) = (shown(&stored.name.escape_debug()), &stored.shape[..]);
        Err(self.refuse(format!(
            "tensor {name} has shape {found:?}, but the model and the rank ask for {shape:?}"
        )))
    }

    fn refuse(&self, message: String) -> Error {
        let error = refuse(&self.dir.join(WEIGHTS), message);
        match &self.base {
            Some(base) => error.with_help(format!(
                "check that the model is the base of the adapter, {}",
                shown(&base.escape_debug())
            )),
            None => error.with_help("check that the model is the base of the adapter"),
        }
    }
}

/// The tensors of an adapter's file, by the paths of their modules in transformers.
struct Contents {
    /// The two matrices of each module with an adapter.
    adapters: BTreeMap<String, [PackTensor; 2]>,
    /// Weights of the base model.
    copies: BTreeMap<String, PackTensor>,
}

impl Contents {
    fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(WEIGHTS);
        let found = files::find(dir, WEIGHTS)
            .map_err(|e| refuse(&path, format!("it cannot be read ({e})")).with_source(e))?;
        if found.is_none() {
            let is_pickle = dir.join("adapter_model.bin").exists();
            return Err(refuse(&path, "it does not exist".to_owned()).with_help(if is_pickle {
                "adapter_model.bin is PyTorch's pickle format, which can run code: load and save the \
                 adapter with PEFT, which writes safetensors"
            } else {
                "get the whole folder of the adapter again"
            }));
        }
        let mut halves: BTreeMap<String, [Option<PackTensor>; 2]> = BTreeMap::new();
        let mut copies = BTreeMap::new();
        for tensor in tensors(&path)? {
            if !matches!(
                tensor.dtype,
                DType::F32 | DType::F16 | DType::BF16 | DType::F64
            ) {
                let (name, dtype) = (shown(&tensor.name.escape_debug()), tensor.dtype);
                return Err(refuse(
                    &path,
                    format!("tensor {name} is {dtype:?}, and only floats are supported"),
                ));
            }
            let name = tensor.name.strip_prefix(PREFIX).unwrap_or(&tensor.name);
            // Files of the adapter named `default` may name it.
            let name = name.replace(".default.weight", ".weight");
            let stored = shown(&tensor.name.escape_debug());
            let [a, b, copy] = [A, B, COPY].map(|end| name.strip_suffix(end));
            let earlier = if let Some(module) = copy {
                copies.insert(module.to_owned(), tensor)
            } else if let Some(module) = a.or(b) {
                let half = usize::from(a.is_none());
                halves.entry(module.to_owned()).or_default()[half].replace(tensor)
            } else {
                let message = format!("tensor {stored} is not a matrix of a LoRA adapter");
                return Err(refuse(&path, message).with_help(
                    "whole weights and adapters of embeddings are not supported: merge the adapter \
                     with `merge_and_unload()` of PEFT, and use the merged model",
                ));
            };
            if let Some(earlier) = earlier {
                let earlier = shown(&earlier.name.escape_debug());
                let message = format!("tensors {earlier} and {stored} are the same one");
                return Err(refuse(&path, message).with_help("get the file again"));
            }
        }
        let whole = halves.into_iter().map(|(module, halves)| match halves {
            [Some(a), Some(b)] => Ok((module, [a, b])),
            [first, _] => {
                let missing = if first.is_some() { B } else { A };
                let name = shown(&format!("{module}{missing}").escape_debug());
                Err(refuse(&path, format!("tensor {name} is missing"))
                    .with_help("get the file again"))
            }
        });
        let adapters: BTreeMap<_, _> = whole.collect::<Result<_, _>>()?;
        if adapters.is_empty() {
            return Err(
                refuse(&path, "it has no matrix of a LoRA adapter".to_owned())
                    .with_help("get the file again"),
            );
        }
        Ok(Self { adapters, copies })
    }
}

/// The names of modules that have tensors; all, if none has.
fn with_tensors<T>(names: Vec<String>, adapters: &BTreeMap<String, T>) -> Vec<String> {
    let has = |name: &String| adapters.keys().any(|path| ends_with(path, name));
    if names.iter().any(has) {
        names.into_iter().filter(has).collect()
    } else {
        names
    }
}

fn refuse(path: &Path, message: String) -> Error {
    Error::new(ErrorKind::Checkpoint, message).with_place(path, None)
}
