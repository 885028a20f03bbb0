//! [`save_adapter`]: writes the adapters of a model in PEFT's format.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::config::text;
use super::{A, B, PREFIX};
use crate::checkpoint::contents::{ADAPTER as WEIGHTS, ADAPTER_CONFIG as CONFIG};
use crate::checkpoint::folder::Checkpoint;
use crate::checkpoint::place::Place;
use crate::checkpoint::remote_code::of_tokenizer;
use crate::checkpoint::save::copy;
use crate::checkpoint::transpose::transposed;
use crate::error::{Error, ErrorKind};
use crate::model::{CausalLm, LoraConfig, ends_with};

/// Options of [`save_adapter`].
#[derive(Clone, Copy, Debug)]
pub struct AdapterOptions<'a> {
    /// The base model, for `base_model_name_or_path`: a folder, or an id of the hub.
    pub base: &'a str,
    /// The revision of the base model on the hub.
    pub revision: Option<&'a str>,
    /// The checkpoint that the base model was loaded from. Its tokenizer and its licence are copied.
    pub source: Option<&'a Checkpoint>,
    /// Further files to write: their paths in the folder, and their contents. A file of the source
    /// at the same path is not copied. With a `chat_template.jinja`, no other chat templates of the
    /// source are copied.
    pub files: &'a [(String, Vec<u8>)],
}

impl<'a> AdapterOptions<'a> {
    /// Options for adapters of this base model, without other files.
    #[must_use]
    pub fn new(base: &'a str) -> Self {
        Self {
            base,
            revision: None,
            source: None,
            files: &[],
        }
    }
}

/// Saves the adapters of a model as a folder that PEFT loads: `adapter_config.json` and
/// `adapter_model.safetensors`.
///
/// The matrices are saved in f32. This needs twice their memory. An adapter that is in the folder
/// is replaced, whole or not at all, as [`save`](crate::checkpoint::save) replaces a model.
///
/// # Errors
///
/// The model has no adapters; the folder has a model, or files but no adapter; it cannot be created
/// or written.
pub fn save_adapter(
    model: &CausalLm,
    dir: impl AsRef<Path>,
    options: &AdapterOptions<'_>,
) -> Result<(), Error> {
    let dir = dir.as_ref();
    let Some(config) = model.lora() else {
        return Err(Error::new(
            ErrorKind::Config,
            "the model has no LoRA adapters to save",
        ));
    };
    if dir.join("config.json").exists() {
        let message = format!(
            "{} has a model, and transformers would load an adapter in its folder with it",
            dir.display()
        );
        return Err(Error::new(ErrorKind::Io, message).with_help("give another folder"));
    }
    let is_transposed = !model.config().file_names().transposed;
    let mut matrices = Vec::new();
    let mut paths = Vec::new();
    for (path, projection) in model.linear() {
        if let Some(lora) = &projection.lora {
            for (param, end) in [(&lora.a, A), (&lora.b, B)] {
                let values: Vec<f32> = param.val().into_data().iter().collect();
                let [rows, columns] = param.dims();
                let values = transposed(&values, columns);
                matrices.push((format!("{PREFIX}{path}{end}"), [columns, rows], values));
            }
        }
        paths.push((path, projection.lora.is_some()));
    }
    let place = Place::prepare(dir, options.source.is_some())?;
    let base = (options.base, options.revision);
    let config = text(config, &names(config, &paths), base, is_transposed);
    place.create(CONFIG, config.as_bytes())?;
    for (name, bytes) in options.files {
        place.create(name, &of_tokenizer(name, bytes))?;
    }
    if let Some(source) = options.source {
        copy(source.dir(), &place)?;
    }
    place.create(WEIGHTS, &safetensors(&matrices))?;
    place.commit()
}

/// The names for `target_modules`: those of the configuration, or the last parts of all paths, if
/// they select the same modules; else whole paths.
fn names(config: &LoraConfig, paths: &[(String, bool)]) -> Vec<String> {
    if !config.modules.is_empty() {
        return config.modules.clone();
    }
    let adapted = || paths.iter().filter(|(_, has)| *has).map(|(path, _)| path);
    let last = |path: &String| path.rsplit('.').next().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = adapted().map(last).collect();
    let selects = |path: &String| names.iter().any(|name| ends_with(path, name));
    if paths.iter().all(|(path, has)| *has == selects(path)) {
        names.into_iter().collect()
    } else {
        adapted().cloned().collect()
    }
}

/// The bytes of a safetensors file with these f32 tensors.
fn safetensors(tensors: &[(String, [usize; 2], Vec<f32>)]) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = 0;
    for (name, shape, values) in tensors {
        let start = end;
        end += 4 * values.len();
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
        header.insert(name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string();
    // The data is aligned.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    for (_, _, values) in tensors {
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}
