//! [`save`]: writes a model as a checkpoint in the Hugging Face format.
//!
//! Every file is written to a temporary file, synced and renamed. The weights come first, then
//! their index, the configuration and the other files; weights of an earlier save are removed last.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fs, io};

use burn::store::{ModuleSnapshot, SafetensorsStore};
use burn::tensor::{DType, FloatDType};

use super::extras;
use super::folder::Checkpoint;
use super::layout::Layout;
use super::names::Names;
use super::progress::Progress;
use super::shards::{INDEX, Index, SINGLE};
use crate::error::{Error, ErrorKind};
use crate::files::{failed, write_atomically};
use crate::model::CausalLm;
use crate::model::config::rewritten;

/// Options of [`save`].
///
/// # Example
///
/// ```
/// use burn::tensor::Device;
/// use lisa_lm::Checkpoint;
/// use lisa_lm::checkpoint::{SaveOptions, save};
/// # use lisa_lm::{ModelConfig, model::config::LlamaConfig};
///
/// # let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// # let device = Device::default();
/// # let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// # save(&model, &from, &SaveOptions::default())?;
/// # std::fs::write(from.path().join("tokenizer.json"), "{}")?;
/// let source = Checkpoint::open(&from)?;
/// let model = source.load(&device, None)?;
/// let files = [("chat_template.jinja".to_owned(), b"{{ messages }}".to_vec())];
/// let options = SaveOptions { source: Some(&source), files: &files, max_shard_bytes: 20_000 };
/// save(&model, &to, &options)?;
///
/// // The 41280 bytes of weights are in three files. The tokenizer was copied.
/// assert!(to.path().join("model-00003-of-00003.safetensors").is_file());
/// assert!(to.path().join("tokenizer.json").is_file());
/// assert!(to.path().join("chat_template.jinja").is_file());
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SaveOptions<'a> {
    /// The checkpoint that the model was loaded from. Its tokenizer, its licence and the text of its
    /// `config.json` are copied; in the latter, the keys are changed that describe another model.
    pub source: Option<&'a Checkpoint>,
    /// More files of the folder, as paths in it and contents, such as those of
    /// [`Tokenizer::changed_files`](crate::Tokenizer::changed_files). Such a file takes the place
    /// of the source's.
    pub files: &'a [(String, Vec<u8>)],
    /// The maximum number of bytes of weights in one file. A larger tensor has its own file.
    pub max_shard_bytes: usize,
}

impl Default for SaveOptions<'_> {
    /// No source, no more files, and weights in files of at most 5 GB.
    fn default() -> Self {
        Self {
            source: None,
            files: &[],
            max_shard_bytes: 5_000_000_000,
        }
    }
}

/// Saves a model as a folder that `transformers` loads.
///
/// Weights keep the model's dtype, which is written to `config.json`. A tied head is not saved.
/// Needs the memory of the largest tensor. During the save, the disk must have space for the old
/// and the new files. Each copied file may have at most 256 MiB. A symbolic link with the name of a
/// written file is replaced, not followed.
///
/// # Errors
///
/// The folder cannot be created or written; a file to copy is too large, is a pipe or device, or is
/// a link out of the source's folder.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, FloatDType, Int, Tensor};
/// use lisa_lm::checkpoint::{SaveOptions, save};
/// use lisa_lm::model::{Input, config::LlamaConfig};
/// use lisa_lm::{Checkpoint, ModelConfig};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let device = Device::default();
/// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// save(&model, &folder, &SaveOptions::default())?;
/// assert!(folder.path().join("model.safetensors").is_file());
///
/// let checkpoint = Checkpoint::open(&folder)?;
/// assert_eq!(checkpoint.config().common().dtype, Some(FloatDType::F32));
/// let loaded = checkpoint.load(&device, None)?;
/// let input = Input::new(Tensor::<2, Int>::from_data([[1, 2, 3]], &device));
/// assert_eq!(loaded.forward(&input).into_data(), model.forward(&input).into_data());
/// # Ok::<(), lisa_lm::Error>(())
/// ```
pub fn save(
    model: &CausalLm,
    dir: impl AsRef<Path>,
    options: &SaveOptions<'_>,
) -> Result<(), Error> {
    save_with(model, dir, options, |_, _| {})
}

/// Like [`save`]; after each tensor, calls `progress` with the bytes written and the total.
///
/// # Errors
///
/// As [`save`].
pub fn save_with(
    model: &CausalLm,
    dir: impl AsRef<Path>,
    options: &SaveOptions<'_>,
    progress: impl Fn(u64, u64) + Send + Sync + 'static,
) -> Result<(), Error> {
    let dir = dir.as_ref();
    fs::create_dir_all(dir).map_err(|e| failed("create", dir, e))?;
    let files = weights(model, dir, options.max_shard_bytes, progress)?;
    let config = config_text(model, options.source);
    write_atomically(&dir.join("config.json"), config.as_bytes())?;
    if let Some(source) = options.source {
        extras::copy(source.dir(), dir)?;
    }
    for (name, bytes) in options.files {
        let path = dir.join(name);
        let parent = path.parent().unwrap_or(dir);
        fs::create_dir_all(parent).map_err(|e| failed("create", parent, e))?;
        write_atomically(&path, bytes)?;
    }
    extras::remove_stale(dir, &files)
}

/// Writes the weights, and the index if there are several files. Returns the names of the files.
fn weights(
    model: &CausalLm,
    dir: &Path,
    limit: usize,
    progress: impl Fn(u64, u64) + Send + Sync + 'static,
) -> Result<BTreeSet<String>, Error> {
    let layout = Layout::saving(Names::of(model.config()));
    let (shards, total) = shards(model, &layout, limit);
    let layout = layout.with_progress(Progress::new(total as u64, progress));
    let count = shards.len();
    let mut index = Index {
        metadata: serde_json::Map::from_iter([("total_size".to_owned(), total.into())]),
        weight_map: BTreeMap::new(),
    };
    let mut files = BTreeSet::new();
    for (number, shard) in shards.into_iter().enumerate() {
        let file = match count {
            1 => SINGLE.to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        let path = dir.join(&file);
        let mut store = SafetensorsStore::from_file(&path)
            .with_to_adapter(layout.clone())
            .skip_enum_variants(true)
            .with_full_paths(shard.clone())
            .clear_metadata()
            .metadata("format", "pt")
            .overwrite(true);
        model.save_into(&mut store).map_err(|e| {
            let message = format!("{} cannot be written: {e}", path.display());
            Error::new(ErrorKind::Checkpoint, message).with_source(e)
        })?;
        readable(&path, dir).map_err(|e| failed("make readable", &path, e))?;
        let tensors = shard.into_iter().map(|tensor| (tensor, file.clone()));
        index.weight_map.extend(tensors);
        files.insert(file);
    }
    if count > 1 {
        let text = serde_json::to_string_pretty(&index).map_err(io::Error::from);
        let text = text.map_err(|e| failed("write", &dir.join(INDEX), e))?;
        write_atomically(&dir.join(INDEX), format!("{text}\n").as_bytes())?;
        files.insert(INDEX.to_owned());
    }
    Ok(files)
}

/// The names of the tensors in each file, and the bytes of all tensors.
fn shards(model: &CausalLm, layout: &Layout, limit: usize) -> (Vec<Vec<String>>, usize) {
    let mut shards: Vec<Vec<String>> = Vec::new();
    let (mut total, mut filled) = (0, 0);
    for tensor in model.collect(None, Some(Box::new(layout.clone())), true) {
        let bytes = tensor.byte_len();
        total += bytes;
        match shards.last_mut() {
            Some(shard) if filled + bytes <= limit => {
                shard.push(tensor.name);
                filled += bytes;
            }
            _ => {
                shards.push(vec![tensor.name]);
                filled = bytes;
            }
        }
    }
    (shards, total)
}

/// The text of the source's `config.json`, changed where this model differs. Without a source of
/// this family, a new text.
fn config_text(model: &CausalLm, source: Option<&Checkpoint>) -> String {
    let dtype = match model.dtype() {
        DType::F16 => FloatDType::F16,
        DType::BF16 => FloatDType::BF16,
        DType::F64 => FloatDType::F64,
        _ => FloatDType::F32,
    };
    let mut config = model.config().clone();
    config.common_mut().dtype = Some(dtype);
    source
        .and_then(|source| rewritten(source.config_text(), &config))
        .unwrap_or_else(|| config.to_json())
}

/// Gives the file the folder's permissions. The safetensors crate gives permissions to the owner
/// only.
#[cfg(unix)]
fn readable(path: &Path, dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(dir)?.permissions().mode() & 0o666;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn readable(_path: &Path, _dir: &Path) -> io::Result<()> {
    Ok(())
}
