//! [`model_folder`]: the folder of a model: the bundled one, one on this machine, or one from the
//! Hugging Face hub (feature `hub`).

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::bundled;

/// The folder of this model. An empty path is the bundled model.
///
/// A path that does not exist and has the form `owner/name` is an id of the hub. With the feature
/// `hub` it is downloaded; without, it is an error.
pub fn model_folder(model: &Path) -> Result<PathBuf> {
    if model.as_os_str().is_empty() {
        return bundled::model();
    }
    let id = model.to_string_lossy();
    if model.exists() || id.split('/').count() != 2 || id.starts_with(['.', '/']) {
        return Ok(model.to_path_buf());
    }
    download(&id)
}

#[cfg(not(feature = "hub"))]
fn download(id: &str) -> Result<PathBuf> {
    use crate::user_error::UserError;

    Err(UserError::new(format!("there is no folder `{id}`"))
        .with_help("if it is an id of the Hugging Face hub, build with `--features hub`")
        .into())
}

#[cfg(feature = "hub")]
fn download(id: &str) -> Result<PathBuf> {
    use anyhow::Context;

    let failed = || format!("cannot download `{id}` from the hub");
    let (owner, name) = id.split_once('/').unwrap_or((id, ""));
    let wanted = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"];
    hf_hub::HFClientSync::new()
        .with_context(failed)?
        .model(owner, name)
        .snapshot_download()
        .allow_patterns(wanted.map(String::from).to_vec())
        .send()
        .with_context(failed)
}
