//! The files of the weights: one file, `model.safetensors`, or several files that an index lists.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::path::Path;

use crate::error::{Error, ErrorKind};
use burn::store::burn_pack::Tensor as PackTensor;
use burn::store::{ModuleStore, SafetensorsStore};
use serde::{Deserialize, Serialize};

use crate::files::{self, INDEX_BYTES, read_text, shown};

/// The file of the weights if there is only one.
pub(super) const SINGLE: &str = "model.safetensors";
/// The index if the weights are in several files.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The content of `model.safetensors.index.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Index {
    #[serde(default)]
    pub(super) metadata: serde_json::Map<String, serde_json::Value>,
    /// The file of each tensor.
    pub(super) weight_map: BTreeMap<String, String>,
}

/// The files of the weights.
#[derive(Debug)]
pub(super) enum Files {
    Single,
    Sharded(Index),
}

/// Finds the files of the weights, and checks that each is a regular file of the folder.
pub(super) fn find(dir: &Path) -> Result<Files, Error> {
    if regular(dir, SINGLE)? {
        return Ok(Files::Single);
    }
    let path = dir.join(INDEX);
    let text = read_text(dir, INDEX, INDEX_BYTES)
        .map_err(|e| refuse(format!("{} cannot be read ({e})", path.display())).with_source(e))?;
    let Some(text) = text else {
        let error = refuse(format!("{} has no {SINGLE} and no {INDEX}", dir.display()));
        return Err(if dir.join("pytorch_model.bin").is_file() {
            error.with_help(
                "pytorch_model.bin is not supported: save the model again as safetensors",
            )
        } else {
            error
        });
    };
    let index: Index = serde_json::from_str(&text)
        .map_err(|e| refuse(format!("{} is not an index: {e}", path.display())).with_source(e))?;
    if index.weight_map.is_empty() {
        return Err(refuse(format!("{} names no tensors", path.display())));
    }
    let mut known = HashSet::new();
    for (tensor, file) in &index.weight_map {
        if !known.insert(file.as_str()) {
            continue;
        }
        let is_plain = Path::new(file).file_name() == Some(OsStr::new(file)) && file != "..";
        let said = |what: &str| {
            let (tensor, path) = (shown(tensor), path.display());
            Err(refuse(format!("{path} lists tensor {tensor} in {what}")))
        };
        if !is_plain {
            let file = shown(&format!("{file:?}"));
            return said(&format!("{file}, which is not a file of the folder"));
        }
        if !regular(dir, file)? {
            return said(&format!("{}, which does not exist", shown(file)));
        }
    }
    Ok(Files::Sharded(index))
}

/// Whether the folder has a regular file of this name.
fn regular(dir: &Path, file: &str) -> Result<bool, Error> {
    let found = files::find(dir, file).map_err(|e| {
        let path = dir.join(shown(&file));
        refuse(format!("{} cannot be read: {e}", path.display())).with_source(e)
    })?;
    Ok(found.is_some())
}

/// All tensors of the folder. Their data is read on demand.
pub(super) fn read(dir: &Path) -> Result<Vec<PackTensor>, Error> {
    let index = match find(dir)? {
        Files::Single => return tensors(&dir.join(SINGLE)),
        Files::Sharded(index) => index,
    };
    // The tensors of each file according to the index.
    let mut files: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (tensor, file) in &index.weight_map {
        files.entry(file).or_default().insert(tensor);
    }
    let mut all = Vec::new();
    for (file, mut expected) in files {
        for tensor in tensors(&dir.join(file))? {
            if !expected.remove(tensor.name.as_str()) {
                return Err(refuse(format!(
                    "tensor {} is in {}, but {INDEX} does not list it there",
                    shown(&tensor.name),
                    dir.join(file).display()
                )));
            }
            all.push(tensor);
        }
        if let Some(tensor) = expected.first() {
            return Err(refuse(format!(
                "tensor {} is not in {}, where {INDEX} lists it",
                shown(tensor),
                dir.join(file).display()
            )));
        }
    }
    Ok(all)
}

fn tensors(path: &Path) -> Result<Vec<PackTensor>, Error> {
    let mut store = SafetensorsStore::from_file(path);
    match store.get_all_tensors() {
        Ok(tensors) => Ok(tensors.values().cloned().collect()),
        Err(e) => Err(refuse(format!(
            "{} cannot be read as safetensors ({e})",
            path.display()
        ))
        .with_help("it may be truncated: fetch it again")),
    }
}

fn refuse(message: String) -> Error {
    Error::new(ErrorKind::Checkpoint, message)
}
