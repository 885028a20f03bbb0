//! Which files hold the weights, and the tensors in them.
//!
//! One file, `model.safetensors`, or several that an index names. Tests: beside this file.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use burn::store::burn_pack::Tensor as PackTensor;
use burn::store::{ModuleStore, SafetensorsStore};
use lisa::{ErrorKind, LisaError};
use serde::{Deserialize, Serialize};

/// The file of a checkpoint that is not sharded.
pub(super) const SINGLE: &str = "model.safetensors";
/// The index of one that is.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// `model.safetensors.index.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Index {
    #[serde(default)]
    pub(super) metadata: serde_json::Map<String, serde_json::Value>,
    /// Which file each tensor is in.
    pub(super) weight_map: BTreeMap<String, String>,
}

/// Where the weights are.
#[derive(Debug)]
pub(super) enum Layout {
    Single,
    Sharded(Index),
}

/// Finds the files, and checks that they are there.
pub(super) fn find(dir: &Path) -> Result<Layout, LisaError> {
    if dir.join(SINGLE).is_file() {
        return Ok(Layout::Single);
    }
    let path = dir.join(INDEX);
    if !path.is_file() {
        let hint = if dir.join("pytorch_model.bin").is_file() {
            "; pytorch_model.bin is not read: save the model with transformers once more"
        } else {
            ""
        };
        return Err(refuse(format!(
            "{} has no {SINGLE} and no {INDEX}{hint}",
            dir.display()
        )));
    }
    let text = fs::read_to_string(&path)
        .map_err(|e| refuse(format!("{} cannot be read ({e})", path.display())).with_source(e))?;
    let index: Index = serde_json::from_str(&text)
        .map_err(|e| refuse(format!("{} is not an index: {e}", path.display())).with_source(e))?;
    if index.weight_map.is_empty() {
        return Err(refuse(format!("{} names no tensors", path.display())));
    }
    for (tensor, file) in &index.weight_map {
        let is_plain = Path::new(file).file_name() == Some(OsStr::new(file)) && file != "..";
        if !is_plain {
            return Err(refuse(format!(
                "{}: tensor {tensor} is said to be in {file:?}, which is not a file of the folder",
                path.display()
            )));
        }
        if !dir.join(file).is_file() {
            return Err(refuse(format!(
                "{}: tensor {tensor} is said to be in {file}, which is not there",
                path.display()
            )));
        }
    }
    Ok(Layout::Sharded(index))
}

/// All tensors of the folder; their data is read when it is asked for.
pub(super) fn read(dir: &Path) -> Result<Vec<PackTensor>, LisaError> {
    let index = match find(dir)? {
        Layout::Single => return tensors(&dir.join(SINGLE)),
        Layout::Sharded(index) => index,
    };
    let mut files: Vec<&String> = index.weight_map.values().collect();
    files.sort_unstable();
    files.dedup();
    let mut all = Vec::new();
    for file in files {
        let found = tensors(&dir.join(file))?;
        let expected = index
            .weight_map
            .iter()
            .filter(|(_, holder)| *holder == file);
        for (tensor, _) in expected {
            if !found.iter().any(|found| found.name == *tensor) {
                return Err(refuse(format!(
                    "tensor {tensor} is not in {}, where {INDEX} says it is",
                    dir.join(file).display()
                )));
            }
        }
        for tensor in found {
            if index.weight_map.get(&tensor.name) != Some(file) {
                return Err(refuse(format!(
                    "tensor {} is in {}, but {INDEX} does not say so",
                    tensor.name,
                    dir.join(file).display()
                )));
            }
            all.push(tensor);
        }
    }
    Ok(all)
}

fn tensors(path: &Path) -> Result<Vec<PackTensor>, LisaError> {
    let mut store = SafetensorsStore::from_file(path);
    match store.get_all_tensors() {
        Ok(tensors) => Ok(tensors.values().cloned().collect()),
        Err(e) => Err(refuse(format!(
            "{} cannot be read as safetensors ({e}); it may be truncated: fetch it again",
            path.display()
        ))),
    }
}

fn refuse(message: String) -> LisaError {
    LisaError::new(ErrorKind::Checkpoint, message)
}
