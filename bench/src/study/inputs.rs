//! [`Inputs`]: the weights and rows of a run. A job has the names of its folders only, so without them a
//! study that continues with other weights or rows of the same names would mix both.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The first 16 hexadecimal digits of SHA-256 digests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inputs {
    /// Of the weights of the checkpoint.
    pub(crate) weights: String,
    /// Of the rows of the task.
    pub(crate) rows: String,
}

impl Inputs {
    /// The contents of these folders.
    pub(crate) fn of(model: &Path, task: &Path) -> Result<Self> {
        Ok(Self {
            weights: digest(model, "safetensors")?,
            rows: digest(task, "jsonl")?,
        })
    }
}

/// The digest of the names, lengths and contents of all files of a folder with this extension, in the order
/// of their names.
fn digest(folder: &Path, extension: &str) -> Result<String> {
    let failed = || format!("cannot read `{}`", folder.display());
    let files = fs::read_dir(folder).with_context(failed)?;
    let files = files.map(|file| Ok(file?.path()));
    let mut files: Vec<PathBuf> = files.collect::<io::Result<_>>().with_context(failed)?;
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    let mut digest = Sha256::new();
    for path in files {
        let failed = || format!("cannot read `{}`", path.display());
        let mut file = File::open(&path).with_context(failed)?;
        let length = file.metadata().with_context(failed)?.len();
        digest.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        digest.update(length.to_le_bytes());
        io::copy(&mut file, &mut digest).with_context(failed)?;
    }
    Ok(format!("{:x}", digest.finalize())[..16].to_owned())
}
