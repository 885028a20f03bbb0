//! Where a model's folder is: a folder as it is, or a hub id downloaded (feature `hub`).

use std::path::{Path, PathBuf};

use anyhow::Result;

/// The folder of this model.
#[cfg(not(feature = "hub"))]
pub fn folder(model: &Path) -> Result<PathBuf> {
    let id = model.to_string_lossy();
    let hub = !model.exists() && id.split('/').count() == 2 && !id.starts_with(['.', '/']);
    anyhow::ensure!(
        !hub,
        "there is no folder `{id}`; to fetch it as a hub id, build with `--features hub`"
    );
    Ok(model.to_path_buf())
}

/// The folder of this model, fetched from the hub where there is no such folder.
#[cfg(feature = "hub")]
pub fn folder(model: &Path) -> Result<PathBuf> {
    use anyhow::Context;

    let id = model.to_string_lossy().to_string();
    let (Some((owner, name)), false) = (id.split_once('/'), model.exists()) else {
        return Ok(model.to_path_buf());
    };
    let failed = || format!("cannot fetch `{id}` from the hub");
    let wanted = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"];
    hf_hub::HFClientSync::new()
        .with_context(failed)?
        .model(owner, name)
        .snapshot_download()
        .allow_patterns(wanted.map(String::from).to_vec())
        .send()
        .with_context(failed)
}
