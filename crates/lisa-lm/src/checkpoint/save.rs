//! [`save`]: writes a model as a checkpoint in the Hugging Face format.
//!
//! All files are written to a new folder, which then takes the place of the earlier one.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use burn::store::{ModuleSnapshot, SafetensorsStore};
use burn::tensor::{DType, FloatDType};

use super::contents::{COPIED, OLD_TEMPLATE, TEKKEN, TEMPLATE, TEMPLATES, is_further};
use super::folder::Checkpoint;
use super::layout::Layout;
use super::names::Names;
use super::place::Place;
use super::progress::Progress;
use super::remote_code::{of_model, of_tokenizer};
use super::shards::{INDEX, Index, SINGLE};
use crate::error::{Error, ErrorKind};
use crate::files::{TOKENIZER_BYTES, failed, read};
use crate::model::{CausalLm, rewritten};

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
    /// The checkpoint that the model was loaded from. Its tokenizer, its licence and its
    /// `config.json` are copied. In `config.json`, the keys that do not describe this model are
    /// changed, and the keys that name Python code are left out.
    pub source: Option<&'a Checkpoint>,
    /// Further files to write, such as those of
    /// [`Tokenizer::changed_files`](crate::Tokenizer::changed_files): their paths in the folder,
    /// and their contents. A file of the source at the same path is not copied. With a
    /// `chat_template.jinja`, no other chat templates of the source are copied.
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
/// Saving needs the memory of the largest tensor. Each copied file may have at most 256 MiB.
///
/// A model that is in the folder is replaced, whole or not at all: the new files are complete on
/// the disk before the folders are exchanged in one operation. So a process that is killed leaves
/// the old model or the new one, and the next save removes temporary files of the killed one. Other
/// files of the folder are kept. If there is a [`source`](SaveOptions::source) in another folder,
/// the old tokenizer and licence are removed. The disk must have space for the old and the new
/// files, and the folder that contains `dir` must be writable. Where folders cannot be exchanged
/// (Windows, some network file systems, a mount point, the current directory), the files are moved
/// one by one, and a kill during this leaves a folder that does not load, with the new files in it.
///
/// A new file has the permissions that the process gives to new files. A file that replaces another
/// one has the permissions of that one. A symbolic link with the name of a written file is
/// replaced, not followed.
///
/// # Errors
///
/// The folder cannot be created or written, or has files but no model; a file to copy is too large,
/// is a pipe or device, or is a link out of the source's folder. The old model is then unchanged.
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
    let source = options.source.map(Checkpoint::dir);
    let is_same = |source: &Path| match (source.canonicalize(), dir.as_ref().canonicalize()) {
        (Ok(source), Ok(dir)) => source == dir,
        _ => false,
    };
    let source = source.filter(|source| !is_same(source));
    let place = Place::prepare(dir.as_ref(), source.is_some())?;
    let config = config_text(model, options.source);
    place.create("config.json", config.as_bytes())?;
    for (name, bytes) in options.files {
        place.create(name, &of_tokenizer(name, bytes))?;
    }
    if let Some(source) = source {
        copy(source, &place)?;
    }
    weights(model, &place, options.max_shard_bytes, progress)?;
    place.commit()
}

/// Copies the tokenizer, the licence and similar files of a folder, except those that are written
/// already.
pub(super) fn copy(from: &Path, to: &Place) -> Result<(), Error> {
    let has = |name: &str| to.staging().join(name).exists();
    // A new tokenizer has tokens that this file of the source does not have, and with a new chat
    // template the others are of another format.
    let (tokenizer, template) = (has("tokenizer.json"), has(TEMPLATE));
    let is_old = |name: &str| match name {
        TEKKEN => tokenizer,
        OLD_TEMPLATE => template,
        _ => false,
    };
    let templates = if template {
        Vec::new()
    } else {
        templates(from)
    };
    let copied = COPIED.map(String::from).into_iter();
    for name in copied.chain(further(from)).chain(templates) {
        if has(&name) || is_old(&name) {
            continue;
        }
        let path = Path::new(&name);
        let (folder, file) = match path.parent().zip(path.file_name()) {
            Some((parent, file)) => (from.join(parent), file.to_string_lossy().into_owned()),
            None => (from.to_path_buf(), name.clone()),
        };
        let bytes = read(&folder, &file, TOKENIZER_BYTES);
        if let Some(bytes) = bytes.map_err(|e| failed("copy", &from.join(&name), e))? {
            to.create(&name, &of_tokenizer(&name, &bytes))?;
        }
    }
    Ok(())
}

/// The licences of a folder, and further versions of `tokenizer.model`. Folders such as `LICENSES` are
/// left out.
fn further(dir: &Path) -> Vec<String> {
    let found = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files = found.filter(|entry| !entry.path().is_dir());
    let names = files.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| is_further(name)).collect()
}

/// The named chat templates of a folder.
fn templates(dir: &Path) -> Vec<String> {
    let found = std::fs::read_dir(dir.join(TEMPLATES)).into_iter().flatten();
    let names = found.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let names = names.filter(|name| name.strip_suffix(".jinja").is_some());
    names.map(|name| format!("{TEMPLATES}/{name}")).collect()
}

/// Writes the weights, and the index if there are several files.
fn weights(
    model: &CausalLm,
    place: &Place,
    limit: usize,
    progress: impl Fn(u64, u64) + Send + Sync + 'static,
) -> Result<(), Error> {
    let layout = Layout::saving(Names::of(model.config()));
    let (shards, total) = shards(model, &layout, limit);
    let layout = layout.with_progress(Progress::new(total as u64, progress));
    let count = shards.len();
    let mut index = Index {
        metadata: serde_json::Map::from_iter([("total_size".to_owned(), total.into())]),
        weight_map: BTreeMap::new(),
    };
    for (number, shard) in shards.into_iter().enumerate() {
        let file = match count {
            1 => SINGLE.to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        let path = place.staging().join(&file);
        let mut store = SafetensorsStore::from_file(&path)
            .with_to_adapter(layout.clone())
            .skip_enum_variants(true)
            .with_full_paths(shard.clone())
            .clear_metadata()
            .metadata("format", "pt")
            .overwrite(true);
        model.save_into(&mut store).map_err(|e| {
            let message = format!("{} cannot be written: {e}", path.display());
            Error::new(ErrorKind::Checkpoint, message)
                .with_help("check that the disk has room, and that the folder may be written")
                .with_source(e)
        })?;
        place.share(&file)?;
        let tensors = shard.into_iter().map(|tensor| (tensor, file.clone()));
        index.weight_map.extend(tensors);
    }
    if count > 1 {
        let text = serde_json::to_string_pretty(&index).map_err(io::Error::from);
        let text = text.map_err(|e| failed("write", &place.dir().join(INDEX), e))?;
        place.create(INDEX, format!("{text}\n").as_bytes())?;
    }
    Ok(())
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
        .map_or_else(|| config.to_json(), |text| of_model(text, &config))
}
