//! [`save`]: a folder as Hugging Face has it, written.
//!
//! Every file is written beside its place, synced and renamed. Weights come first and the index
//! behind them; files of an earlier save that are no longer of the checkpoint go last. Tests: beside
//! this file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::error::{Error, ErrorKind};
use burn::store::burn_pack::AtomicFile;
use burn::store::{ModuleSnapshot, SafetensorsStore};
use burn::tensor::{DType, FloatDType};

use super::Checkpoint;
use super::names::Names;
use super::shards::{INDEX, Index, SINGLE};
use super::watch::Watch;
use crate::files::{TOKENIZER_BYTES, read};
use crate::model::causal_lm::CausalLm;
use crate::model::config::with_dtype;

/// What a checkpoint carries beside its weights and its configuration.
const CARRIED: [&str; 17] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
    "NOTICE.txt",
    "USE_POLICY.md",
];

/// How to save.
///
/// # Example
///
/// ```
/// use burn::tensor::Device;
/// use lisa_lm::{Checkpoint, SaveOptions, save};
/// # use lisa_lm::{LlamaConfig, ModelConfig};
///
/// # let (from, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// # let device = Device::default();
/// # let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// # save(&model, &from, &SaveOptions::default())?;
/// # std::fs::write(from.path().join("tokenizer.json"), "{}")?;
/// let source = Checkpoint::open(&from)?;
/// let model = source.load(&device, None)?;
/// let options = SaveOptions { source: Some(&source), max_shard_bytes: 20_000 };
/// save(&model, &to, &options)?;
///
/// // 41280 bytes of weights are in three files, and the tokenizer is there too.
/// assert!(to.path().join("model-00003-of-00003.safetensors").is_file());
/// assert!(to.path().join("tokenizer.json").is_file());
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SaveOptions<'a> {
    /// Where the model came from: its tokenizer, its licence and the text of its `config.json` are
    /// carried over.
    pub source: Option<&'a Checkpoint>,
    /// The most bytes of weights in one file; a tensor that is larger has a file of its own.
    pub max_shard_bytes: usize,
}

impl Default for SaveOptions<'_> {
    /// No source, files of at most 5 GB.
    fn default() -> Self {
        Self {
            source: None,
            max_shard_bytes: 5_000_000_000,
        }
    }
}

/// Saves a model so that `transformers` opens the folder.
///
/// Weights keep the model's dtype, and `config.json` says which; a tied head is left out. Costs the
/// largest tensor's memory, not the model's, and while it runs the disk space of old and new. Files that
/// are carried over may have 256 MiB each. A link that has the name of a file to write is replaced, not
/// followed.
///
/// # Errors
///
/// A folder that cannot be made or written; a file to carry over that is larger than that, is a pipe or
/// device, or is a link out of the source's folder.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, FloatDType, Int, Tensor};
/// use lisa_lm::{Checkpoint, Input, LlamaConfig, ModelConfig, SaveOptions, save};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let device = Device::default();
/// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// save(&model, &folder, &SaveOptions::default())?;
/// assert!(folder.path().join("model.safetensors").is_file());
///
/// let checkpoint = Checkpoint::open(&folder)?;
/// assert_eq!(checkpoint.config().common().dtype, Some(FloatDType::F32));
/// let again = checkpoint.load(&device, None)?;
/// let input = Input::new(Tensor::<2, Int>::from_data([[1, 2, 3]], &device));
/// assert_eq!(again.forward(&input).into_data(), model.forward(&input).into_data());
/// # Ok::<(), lisa_lm::Error>(())
/// ```
pub fn save(
    model: &CausalLm,
    dir: impl AsRef<Path>,
    options: &SaveOptions<'_>,
) -> Result<(), Error> {
    save_with(model, dir, options, |_, _| {})
}

/// Like [`save`]; `progress` is told, after each tensor, how many bytes were written and how many
/// there are.
///
/// # Errors
///
/// As [`save`].
///
/// # Example
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use lisa_lm::{SaveOptions, save_with};
/// # use burn::tensor::Device;
/// # use lisa_lm::{LlamaConfig, ModelConfig};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let config = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2));
/// # let model = config.init(&Device::default())?;
/// // An embedding, a norm, a head, and nine tensors in each of two layers.
/// let told = Arc::new(Mutex::new(Vec::new()));
/// let tell = Arc::clone(&told);
/// save_with(&model, &folder, &SaveOptions::default(), move |done, total| {
///     tell.lock().unwrap().push((done, total));
/// })?;
/// let told = told.lock().unwrap();
/// let bytes = 4 * model.num_parameters() as u64;
/// assert_eq!((told.len(), told.last()), (21, Some(&(bytes, bytes))));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
pub fn save_with(
    model: &CausalLm,
    dir: impl AsRef<Path>,
    options: &SaveOptions<'_>,
    progress: impl Fn(u64, u64) + Send + Sync + 'static,
) -> Result<(), Error> {
    let dir = dir.as_ref();
    fs::create_dir_all(dir).map_err(|e| refuse("make", dir, e))?;
    let files = weights(model, dir, options.max_shard_bytes, progress)?;
    write_atomically(
        &dir.join("config.json"),
        config_text(model, options.source).as_bytes(),
    )?;
    if let Some(source) = options.source.filter(|source| !is_same(source.dir(), dir)) {
        for name in CARRIED {
            let bytes = read(source.dir(), name, TOKENIZER_BYTES)
                .map_err(|e| refuse("carry over", &source.dir().join(name), e))?;
            if let Some(bytes) = bytes {
                write_atomically(&dir.join(name), &bytes)?;
            }
        }
    }
    remove_stale(dir, &files)
}

/// Writes the weights and the index where one is needed; gives the names of the files.
fn weights(
    model: &CausalLm,
    dir: &Path,
    limit: usize,
    progress: impl Fn(u64, u64) + Send + Sync + 'static,
) -> Result<BTreeSet<String>, Error> {
    let names = Names::of(&model.config());
    let mut shards: Vec<Vec<String>> = Vec::new();
    let (mut total, mut filled) = (0, 0);
    for tensor in model.collect(None, Some(Box::new(names.saving())), true) {
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
    let watch = Watch::new(total as u64, progress);
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
            .with_to_adapter(names.saving().watched(watch.clone()))
            .skip_enum_variants(true)
            .with_full_paths(shard.clone())
            .clear_metadata()
            .metadata("format", "pt")
            .overwrite(true);
        model.save_into(&mut store).map_err(|e| {
            let message = format!("{} cannot be written: {e}", path.display());
            Error::new(ErrorKind::Checkpoint, message).with_source(e)
        })?;
        readable(&path, dir).map_err(|e| refuse("make readable", &path, e))?;
        index
            .weight_map
            .extend(shard.into_iter().map(|tensor| (tensor, file.clone())));
        files.insert(file);
    }
    if count > 1 {
        let text = serde_json::to_string_pretty(&index).map_err(io::Error::from);
        let text = text.map_err(|e| refuse("write", &dir.join(INDEX), e))?;
        write_atomically(&dir.join(INDEX), format!("{text}\n").as_bytes())?;
        files.insert(INDEX.to_owned());
    }
    Ok(files)
}

/// The text of the source where it describes this model, with the dtype that is saved; else a new
/// one.
fn config_text(model: &CausalLm, source: Option<&Checkpoint>) -> String {
    let dtype = match model.dtype() {
        DType::F16 => FloatDType::F16,
        DType::BF16 => FloatDType::BF16,
        DType::F64 => FloatDType::F64,
        _ => FloatDType::F32,
    };
    let mut config = model.config();
    if let Some(source) = source.filter(|source| source.config == config) {
        with_dtype(&source.config_text, dtype)
    } else {
        config.common_mut().dtype = Some(dtype);
        config.to_json()
    }
}

/// Removes weights of an earlier save into this folder that are not of this one.
fn remove_stale(dir: &Path, files: &BTreeSet<String>) -> Result<(), Error> {
    let entries = fs::read_dir(dir).map_err(|e| refuse("read", dir, e))?;
    for entry in entries {
        let entry = entry.map_err(|e| refuse("read", dir, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_weights = name == SINGLE || name == INDEX || is_shard(&name);
        if is_weights && !files.contains(&name) {
            fs::remove_file(entry.path()).map_err(|e| refuse("remove", &entry.path(), e))?;
        }
    }
    Ok(())
}

/// `model-00001-of-00002.safetensors`.
fn is_shard(name: &str) -> bool {
    let numbers = name
        .strip_prefix("model-")
        .and_then(|rest| rest.strip_suffix(".safetensors"));
    numbers
        .and_then(|numbers| numbers.split_once("-of-"))
        .is_some_and(|(number, count)| {
            [number, count]
                .iter()
                .all(|part| part.len() == 5 && part.bytes().all(|b| b.is_ascii_digit()))
        })
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Writes a file beside its place, syncs it, and renames it over what was there.
///
/// # Errors
///
/// What the operating system refused, with the path; what was there before is then still there.
///
/// # Example
///
/// ```
/// use lisa_lm::write_atomically;
///
/// # let folder = tempfile::tempdir()?;
/// # let folder = folder.path();
/// let path = folder.join("state.json");
/// write_atomically(&path, b"first")?;
/// write_atomically(&path, b"second")?;
/// assert_eq!(std::fs::read(&path)?, b"second");
/// // There is nothing beside it.
/// assert_eq!(std::fs::read_dir(folder)?.count(), 1);
///
/// let error = write_atomically(&folder.join("missing/state.json"), b"third").unwrap_err();
/// assert_eq!(error.kind(), lisa_lm::ErrorKind::Io);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let attempt = || -> io::Result<()> {
        let (scratch, mut file): (AtomicFile, File) =
            AtomicFile::create(path).map_err(io::Error::other)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        scratch.commit().map_err(io::Error::other)
    };
    attempt().map_err(|e| refuse("write", path, e))
}

/// The safetensors crate writes for the owner alone; whoever may read the folder may read the weights.
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

fn refuse(verb: &str, path: &Path, error: io::Error) -> Error {
    let message = format!("cannot {verb} {}: {error}", path.display());
    Error::new(ErrorKind::Io, message).with_source(error)
}
