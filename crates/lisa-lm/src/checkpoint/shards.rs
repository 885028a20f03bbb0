//! The files of the weights: one file, `model.safetensors`, or several files that an index lists.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;

use burn::store::burn_pack::Tensor as PackTensor;
use burn::store::{ModuleStore, SafetensorsStore};
use serde::{Deserialize, Serialize};

use super::floats::{self, Found};
use super::formats::no_weights;
use crate::error::{Error, ErrorKind};
use crate::files::{self, INDEX_BYTES, help_of, read_text, shown};

/// The file of the weights if there is only one.
pub(super) const SINGLE: &str = "model.safetensors";
/// The index if the weights are in several files.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// The folder, inside that of the model, in which a save writes the new files.
pub(super) const STAGING: &str = ".lisa-saving";
/// The end of an index's name.
const INDEX_END: &str = ".safetensors.index.json";

/// The content of `model.safetensors.index.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    #[serde(default)]
    pub(super) metadata: serde_json::Map<String, serde_json::Value>,
    /// The file of each tensor.
    pub(super) weight_map: BTreeMap<String, String>,
}

/// The files of the weights, and the index if there is one.
#[derive(Debug)]
pub(super) struct Files {
    names: BTreeSet<String>,
    index: Index,
}

/// Finds the files of the weights, and checks that each is a regular file of the folder. `entry` is
/// the file or the index that `config.json` names.
pub(super) fn find(dir: &Path, entry: Option<&str>) -> Result<Files, Error> {
    let single = match entry {
        Some(name) if !is_plain(name) => {
            let name = shown(&format!("{name:?}"));
            return Err(refuse(format!(
                "{}: transformers_weights is {name}, which is not a file of the folder",
                dir.join("config.json").display()
            )));
        }
        Some(name) if !name.ends_with(INDEX_END) => name,
        Some(_) => "",
        None => SINGLE,
    };
    if !single.is_empty() && regular(dir, single)? {
        return Ok(Files {
            names: BTreeSet::from([single.to_owned()]),
            index: Index::default(),
        });
    }
    let name = entry.unwrap_or(INDEX);
    let path = dir.join(name);
    let text = read_text(dir, name, INDEX_BYTES)
        .map_err(|e| refuse(format!("{} cannot be read ({e})", path.display())).with_source(e))?;
    let text = text.ok_or_else(|| {
        let missing = entry.map_or(format!("no {SINGLE} and no {INDEX}"), |name| {
            format!("no {name}, which config.json names as transformers_weights")
        });
        let error = no_weights(dir, &missing);
        let staging = dir.join(STAGING);
        if [SINGLE, INDEX]
            .iter()
            .any(|name| staging.join(name).is_file())
        {
            let (staging, dir) = (staging.display(), dir.display());
            error.with_help(format!(
                "a save was interrupted: save again, or move the files of {staging} to {dir}"
            ))
        } else {
            error
        }
    })?;
    let index: Index = serde_json::from_str(&text)
        .map_err(|e| refuse(format!("{} is not an index: {e}", path.display())).with_source(e))?;
    if index.weight_map.is_empty() {
        return Err(refuse(format!("{} names no tensors", path.display())));
    }
    let mut names = BTreeSet::new();
    for (tensor, file) in &index.weight_map {
        if names.contains(file) {
            continue;
        }
        let said = |what: &str| {
            let (tensor, path) = (shown(&tensor.escape_debug()), path.display());
            Err(refuse(format!("{path} lists tensor {tensor} in {what}")))
        };
        if !is_plain(file) {
            let file = shown(&format!("{file:?}"));
            return said(&format!("{file}, which is not a file of the folder"));
        }
        if !regular(dir, file)? {
            return said(&format!("{}, which does not exist", shown(file)));
        }
        names.insert(file.clone());
    }
    Ok(Files { names, index })
}

/// Whether this is the name of a file, and not a path out of the folder.
fn is_plain(file: &str) -> bool {
    Path::new(file).file_name() == Some(OsStr::new(file)) && file != ".."
}

/// Whether the folder has a regular file of this name.
fn regular(dir: &Path, file: &str) -> Result<bool, Error> {
    let found = files::find(dir, file).map_err(|e| {
        let path = dir.join(shown(&file));
        refuse(format!("{} cannot be read: {e}", path.display())).with_source(e)
    })?;
    Ok(found.is_some())
}

impl Files {
    /// The names of the files with tensors, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.names.iter()
    }

    /// All tensors of the files. The data of those with a dtype that is known is read on demand.
    ///
    /// An index says only which files there are, as in transformers: it may list a tensor that no
    /// file has, and omit one. Of tensors with one name, the one in the listed file counts.
    pub(super) fn read(&self, dir: &Path) -> Result<Stored, Error> {
        let mut all: BTreeMap<String, (Found, &str)> = BTreeMap::new();
        let mut unlisted = 0;
        for file in &self.names {
            for (name, tensor) in found(&dir.join(file))? {
                let listed = self.index.weight_map.get(&name);
                unlisted += usize::from(listed.is_none());
                let Some((_, other)) = all.get(&name) else {
                    all.insert(name, (tensor, file));
                    continue;
                };
                match listed {
                    Some(listed) if listed == file => {
                        all.insert(name, (tensor, file));
                    }
                    Some(listed) if listed == other => {}
                    _ => {
                        let name = shown(&name.escape_debug());
                        let dir = dir.display();
                        return Err(refuse(format!(
                            "{dir}: tensor {name} is stored twice, in {other} and {file}"
                        )));
                    }
                }
            }
        }
        if unlisted > 0 && self.names.len() > 1 {
            log::info!(
                "{}: {INDEX} does not list {unlisted} tensors of its files; they are read too",
                dir.display()
            );
        }
        let mut stored = Stored::default();
        for (name, (found, _)) in all {
            match found {
                Found::Tensor(tensor) => stored.tensors.push(tensor),
                Found::Other(dtype) => stored.others.push((name, dtype)),
            }
        }
        Ok(stored)
    }

    /// The file in which the index lists a tensor.
    pub(super) fn file_of(&self, tensor: &str) -> Option<&str> {
        self.index.weight_map.get(tensor).map(String::as_str)
    }
}

/// What the files store.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) tensors: Vec<PackTensor>,
    /// The names and dtypes of tensors whose dtype Burn does not have.
    pub(super) others: Vec<(String, String)>,
}

/// The tensors of a file, all of which are read on demand.
pub(super) fn tensors(path: &Path) -> Result<Vec<PackTensor>, Error> {
    let found = found(path)?.into_iter();
    found
        .map(|(name, found)| match found {
            Found::Tensor(tensor) => Ok(tensor),
            Found::Other(dtype) => Err(refuse(format!(
                "{}: tensor {} is {dtype}, but only floats of 16, 32 or 64 bits are supported",
                path.display(),
                shown(&name.escape_debug())
            ))),
        })
        .collect()
}

/// The tensors of a file, with their names.
fn found(path: &Path) -> Result<Vec<(String, Found)>, Error> {
    let failed = |cause: String| {
        let path = path.display();
        refuse(format!("{path} cannot be read as safetensors ({cause})"))
            .with_help("it may be truncated: fetch it again")
    };
    // The store's error has only a text.
    std::fs::File::open(path).map_err(|e| {
        refuse(format!("{} cannot be read ({e})", path.display()))
            .with_help(help_of(&e, "fetch the files of the model again"))
            .with_source(e)
    })?;
    let mut store = SafetensorsStore::from_file(path);
    match store.get_all_tensors() {
        Ok(tensors) => Ok(tensors
            .values()
            .map(|tensor| (tensor.name.clone(), Found::Tensor(tensor.clone())))
            .collect()),
        // One tensor of such a dtype makes the whole file unreadable.
        Err(e) if e.to_string().contains("Unsupported dtype") => {
            floats::read(path).map_err(|e| failed(e.to_string()))
        }
        Err(e) => Err(failed(e.to_string())),
    }
}

fn refuse(message: String) -> Error {
    Error::new(ErrorKind::Checkpoint, message).with_help("fetch the files of the model again")
}
