//! The bundled model and data, which are part of the program.
//!
//! The libraries read folders, so the files are written to the cache folder of the user, once.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use lisa_lm::files::write_atomically;

use crate::user_error::UserError;

/// Settings of `lisa demo`, and of `lisa train` without a model and without data.
pub(crate) const DEMO: &str = include_str!("../demo.toml");

/// `config.json` of the bundled model.
pub const CONFIG: &str = include_str!("../base/config.json");

const FILES: [(&str, &[u8]); 7] = [
    ("base/config.json", CONFIG.as_bytes()),
    (
        "base/generation_config.json",
        include_bytes!("../base/generation_config.json"),
    ),
    (
        "base/model.safetensors",
        include_bytes!("../base/model.safetensors"),
    ),
    (
        "base/tokenizer.json",
        include_bytes!("../base/tokenizer.json"),
    ),
    (
        "base/tokenizer_config.json",
        include_bytes!("../base/tokenizer_config.json"),
    ),
    ("data/train.jsonl", include_bytes!("../data/train.jsonl")),
    (
        "data/heldout.jsonl",
        include_bytes!("../data/heldout.jsonl"),
    ),
];

/// The bundled model, as a Hugging Face folder.
pub fn model() -> Result<PathBuf> {
    Ok(folder()?.join("base"))
}

/// Whether this folder is the bundled model, perhaps in the cache of another user.
pub(crate) fn is_model(folder: &Path) -> bool {
    let of_model = FILES
        .iter()
        .filter_map(|(name, bytes)| Some((name.strip_prefix("base/")?, bytes)));
    let mut same = of_model
        .map(|(name, bytes)| fs::read(folder.join(name)).is_ok_and(|found| found == *bytes));
    folder.ends_with(concat!("lisa-", env!("CARGO_PKG_VERSION"), "/base")) && same.all(|same| same)
}

/// The version in a path where the program keeps its bundled model, perhaps on another machine.
pub(crate) fn version_in(folder: &Path) -> Option<&str> {
    let version = folder.parent()?.file_name()?.to_str()?;
    let version = version.strip_prefix("lisa-")?;
    let mut parts = version.split('.');
    let is_version = parts.clone().count() == 3 && parts.all(|part| part.parse::<u32>().is_ok());
    (folder.has_root() && folder.ends_with("base") && is_version).then_some(version)
}

/// Whether this is a [path of the bundled model](version_in) that is not here: of another machine or cache.
pub(crate) fn is_elsewhere(folder: &Path) -> bool {
    version_in(folder).is_some() && !folder.exists()
}

/// The bundled training data.
pub(crate) fn data() -> Result<PathBuf> {
    Ok(folder()?.join("data/train.jsonl"))
}

/// The bundled held-out data.
pub(crate) fn held_out() -> Result<PathBuf> {
    Ok(folder()?.join("data/heldout.jsonl"))
}

/// The folder with all files. A file that is missing or differs is written again.
fn folder() -> Result<PathBuf> {
    let mut last = None;
    for cache in caches() {
        let folder = cache.join(concat!("lisa-", env!("CARGO_PKG_VERSION")));
        match fill(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) => last = Some((folder, error)),
        }
    }
    let (folder, error) = last.unwrap_or_else(|| (PathBuf::new(), anyhow::anyhow!("no folder")));
    let message = format!("cannot write the bundled model to `{}`", folder.display());
    Err(UserError::new(message)
        .with_help("set XDG_CACHE_HOME to a folder that can be written")
        .with_source(error)
        .into())
}

/// Where a user's caches are, by preference.
fn caches() -> Vec<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let mut caches: Vec<PathBuf> = of("XDG_CACHE_HOME")
        .into_iter()
        .map(PathBuf::from)
        .collect();
    caches.extend(of("LOCALAPPDATA").map(PathBuf::from));
    caches.extend(of("HOME").map(|home| Path::new(&home).join(".cache")));
    caches.push(std::env::temp_dir());
    caches
}

fn fill(folder: &Path) -> Result<()> {
    for (name, bytes) in FILES {
        let path = folder.join(name);
        if fs::read(&path).is_ok_and(|found| found == bytes) {
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        write_atomically(&path, bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_another_machine_is_that_of_the_bundled_model() {
        let elsewhere = |path: &str| is_elsewhere(Path::new(path));
        assert!(elsewhere("/nowhere/.cache/lisa-0.0.9/base"));
        for path in [
            "/nowhere/base",
            "/nowhere/lisa-mine/base",
            "/nowhere/lisa-7b/base",
            "/nowhere/lisa-0.1.0/model",
            "lisa-0.1.0/base",
        ] {
            assert!(!elsewhere(path), "{path}");
        }
        // A folder that is here is used as it is.
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().join("lisa-0.0.9/base");
        fs::create_dir_all(&here).unwrap();
        assert_eq!(version_in(&here), Some("0.0.9"));
        assert!(!is_elsewhere(&here));
    }

    #[test]
    fn a_damaged_file_is_written_again_and_a_good_one_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path()).unwrap();
        let (config, model) = (
            dir.path().join("base/config.json"),
            dir.path().join("base/model.safetensors"),
        );
        let written = fs::metadata(&model).unwrap().modified().unwrap();
        fs::write(&config, "").unwrap();
        fill(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(&config).unwrap(), CONFIG);
        assert_eq!(fs::metadata(&model).unwrap().modified().unwrap(), written);
    }
}
