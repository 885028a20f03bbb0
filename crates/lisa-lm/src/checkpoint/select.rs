//! [`select`]: which tensors of a checkpoint a model uses, for which parameters, in which dtype.

use std::collections::BTreeMap;
use std::path::Path;

use burn::store::bridge::to_data;
use burn::store::burn_pack::Tensor as PackTensor;
use burn::tensor::{DType, FloatDType};

use super::names::{EMBEDDING, HEAD, Names, Role};
use super::shards::Stored;
use crate::error::{Error, ErrorKind};
use crate::files::shown;
use crate::model::config::ModelConfig;

/// The tensors that [`select`] found.
pub(super) struct Selected {
    /// The tensors of the model; their names are the paths of their parameters.
    pub(super) tensors: Vec<PackTensor>,
    /// The tensors that are not floats, by the path that a parameter of this name would have.
    pub(super) not_floats: BTreeMap<String, (String, String)>,
}

impl Selected {
    /// Returns an error if one of these missing parameters is stored, but not as floats. Logs the
    /// names of the other tensors that are not floats, such as masks: they are left out.
    pub(super) fn check_dtypes<'a>(
        dir: &Path,
        not_floats: BTreeMap<String, (String, String)>,
        mut missing: impl Iterator<Item = &'a str>,
    ) -> Result<(), Error> {
        if let Some((name, dtype)) = missing.find_map(|path| not_floats.get(path)) {
            let name = shown(&name.escape_debug());
            let message = format!(
                "tensor {name} is {dtype}, but only floats of 16, 32 or 64 bits are supported"
            );
            return Err(refuse(dir, message)
                .with_help("if the checkpoint is quantized, use the unquantized one"));
        }
        let names: Vec<String> = not_floats.into_values().map(|(name, _)| name).collect();
        warn_left_out(dir, &names);
        Ok(())
    }
}

/// The tensors of the model. Buffers and tensors of other parts are left out. The copy of a tied
/// weight is, too: if the embedding is missing, the head is used for it.
pub(super) fn select(dir: &Path, config: &ModelConfig, stored: Stored) -> Result<Selected, Error> {
    let names = Names::of(config);
    let mut not_floats = BTreeMap::new();
    let mut found: BTreeMap<String, PackTensor> = BTreeMap::new();
    let mut others = Vec::new();
    for (name, dtype) in stored.others {
        match names.role(&name) {
            Role::Parameter(path) => drop(not_floats.insert(path, (name, dtype))),
            Role::Buffer => {}
            Role::Other => others.push(name),
        }
    }
    for mut tensor in stored.tensors {
        let path = match names.role(&tensor.name) {
            Role::Parameter(path) => path,
            Role::Buffer => continue,
            Role::Other => {
                others.push(tensor.name);
                continue;
            }
        };
        if !is_float(&tensor) {
            not_floats.insert(path, (tensor.name, format!("{:?}", tensor.dtype)));
            continue;
        }
        let name = std::mem::replace(&mut tensor.name, path.clone());
        if found.insert(path, tensor).is_some() {
            let name = shown(&name.escape_debug());
            return Err(refuse(dir, format!("tensor {name} is stored twice")));
        }
    }
    warn_left_out(dir, &others);
    if config.is_tied()
        && let Some(mut head) = found.remove(HEAD)
        && !found.contains_key(EMBEDDING)
    {
        EMBEDDING.clone_into(&mut head.name);
        found.insert(head.name.clone(), head);
    }
    Ok(Selected {
        tensors: found.into_values().collect(),
        not_floats,
    })
}

/// Logs the names of tensors that are not read.
fn warn_left_out(dir: &Path, names: &[String]) {
    if !names.is_empty() {
        log::warn!(
            "{}: {} tensors do not belong to the language model and are left out, also when the \
             model is saved: {}",
            dir.display(),
            names.len(),
            some_of(names)
        );
    }
}

/// Whether the stored tensors have a head that differs from the embedding. Such a head is not tied,
/// whatever `config.json` says.
///
/// The values are compared in the dtype in which the model is loaded; `-0.0` is equal to `0.0`. Cost:
/// a copy of both tensors in host memory.
pub(super) fn has_own_head(
    dir: &Path,
    config: &ModelConfig,
    stored: &[PackTensor],
) -> Result<bool, Error> {
    let names = Names::of(config);
    let find = |wanted: &str| {
        let is_wanted = |tensor: &&PackTensor| matches!(names.role(&tensor.name), Role::Parameter(path) if path == wanted);
        stored.iter().find(is_wanted)
    };
    let (Some(head), Some(embedding)) = (find(HEAD), find(EMBEDDING)) else {
        return Ok(false);
    };
    // Loading reports a dtype that is not supported.
    if head.shape != embedding.shape || !is_float(head) || !is_float(embedding) {
        return Ok(true);
    }
    let dtype = one_dtype(config, stored).map_or(embedding.dtype, DType::from);
    let values = |tensor: &PackTensor| {
        let data = to_data(tensor).map_err(|e| refuse(dir, e.to_string()).with_source(e))?;
        Ok::<_, Error>(data.convert_dtype(dtype))
    };
    let (head, embedding) = (values(head)?, values(embedding)?);
    // The bytes are compared faster.
    Ok(head.as_bytes() != embedding.as_bytes() && !head.iter::<f64>().eq(embedding.iter::<f64>()))
}

/// The dtype for tensors of different dtypes: that of `config.json`, or that of most elements. If
/// all tensors have one dtype, they keep it, and this is `None`.
pub(super) fn one_dtype(config: &ModelConfig, tensors: &[PackTensor]) -> Option<FloatDType> {
    let (most, is_mixed) = most_elements(tensors);
    is_mixed.then(|| config.common().dtype.or(most))?
}

/// The dtype of most elements, and whether there are several.
pub(super) fn most_elements(tensors: &[PackTensor]) -> (Option<FloatDType>, bool) {
    let mut elements = [
        (DType::F64, FloatDType::F64, 0),
        (DType::F32, FloatDType::F32, 0),
        (DType::BF16, FloatDType::BF16, 0),
        (DType::F16, FloatDType::F16, 0),
    ];
    for tensor in tensors {
        for (dtype, _, count) in &mut elements {
            if tensor.dtype == *dtype {
                *count += tensor.byte_len() / dtype.size();
            }
        }
    }
    let is_mixed = elements.iter().filter(|entry| entry.2 > 0).count() > 1;
    let most = elements.iter().max_by_key(|entry| entry.2);
    (
        most.filter(|entry| entry.2 > 0).map(|entry| entry.1),
        is_mixed,
    )
}

fn is_float(tensor: &PackTensor) -> bool {
    let floats = [DType::F64, DType::F32, DType::F16, DType::BF16];
    floats.contains(&tensor.dtype)
}

/// An error about the weights in this folder.
pub(super) fn refuse(dir: &Path, message: String) -> Error {
    Error::new(
        ErrorKind::Checkpoint,
        format!("{}: {message}", dir.display()),
    )
    .with_help("check that config.json and the weights are of one model, or fetch them again")
}

/// The first names of a list.
pub(super) fn some_of(names: &[String]) -> String {
    let first = names.iter().take(5);
    let first: Vec<String> = first.map(|name| shown(&name.escape_debug())).collect();
    let end = if names.len() > 5 { ", ..." } else { "" };
    format!("{}{end}", first.join(", "))
}
