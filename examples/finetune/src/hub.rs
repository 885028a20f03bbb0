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
    use hf_hub::api::sync::ApiBuilder;

    let id = model.to_string_lossy().to_string();
    if model.exists() || id.split('/').count() != 2 {
        return Ok(model.to_path_buf());
    }
    let failed = || format!("cannot fetch `{id}` from the hub");
    let repository = ApiBuilder::from_env().build().with_context(failed)?.model(id.clone());
    let info = repository.info().with_context(failed)?;
    let mut folder = None;
    for file in info.siblings.iter().map(|sibling| sibling.rfilename.as_str()) {
        let wanted = [".json", ".safetensors", ".jinja", ".model", ".txt"]
            .iter()
            .any(|ending| file.ends_with(ending));
        if wanted && !file.contains('/') {
            let path = repository.get(file).with_context(failed)?;
            folder = path.parent().map(Path::to_path_buf);
        }
    }
    folder.with_context(|| format!("`{id}` on the hub has no checkpoint in it"))
}
