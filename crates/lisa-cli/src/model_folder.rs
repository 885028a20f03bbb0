//! [`model_folder`]: the folder of a model: the bundled one, one on this machine, or one from the
//! Hugging Face hub (feature `hub`).

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use crate::bundled;
use crate::hub_files::Need;
use crate::run_folder;
use crate::terminal::text::shell_word;
use crate::user_error::{UserError, require};

/// The flags that choose a model.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ModelFlags {
    /// Folder of a model, or a hub id [default: bundled model]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Branch, tag or commit of a model on the hub [default: main]
    #[arg(long, value_name = "REVISION", hide_short_help = true)]
    revision: Option<String>,
}

impl ModelFlags {
    /// Whether the model is the bundled one.
    #[must_use]
    pub(crate) fn is_bundled(&self) -> bool {
        self.model.is_none()
    }

    /// The folder of the model.
    pub(crate) fn folder(&self) -> Result<PathBuf> {
        let model = self.model.as_deref().unwrap_or(Path::new(""));
        model_folder(model, self.revision.as_deref().unwrap_or_default())
    }
}

/// The folder of this model. An empty path is the bundled model.
///
/// A model that is not a folder here and has the form `owner/name` is an id of the hub, with a branch, tag or
/// commit in `revision`, or the main branch if that is empty. With the feature `hub` it is
/// downloaded; without, it is an error.
pub(crate) fn model_folder(model: &Path, revision: &str) -> Result<PathBuf> {
    folder_with(model, revision, Need::Model)
}

/// The same, of which only these files are needed: of a model on the hub, the others are not
/// downloaded.
pub(crate) fn folder_with(model: &Path, revision: &str, need: Need) -> Result<PathBuf> {
    let is_local = model.as_os_str().is_empty() || is_path(model);
    require!(
        revision.is_empty() || !is_local,
        "leave --revision out, or give the id of a model on the hub: owner/name",
        "--revision is `{revision}`, but {} is not on the hub",
        if model.as_os_str().is_empty() {
            "the bundled model".to_owned()
        } else {
            format!("`{}`", model.display())
        }
    );
    if model.as_os_str().is_empty() {
        return bundled::model();
    }
    if !is_local {
        return download(&model.to_string_lossy(), revision, need);
    }
    if model.exists() {
        require_model(model)?;
        return Ok(model.to_path_buf());
    }
    Err(
        UserError::new(format!("there is no folder `{}`", model.display()))
            .with_help("check the path; a model on the Hugging Face hub is given as owner/name")
            .into(),
    )
}

/// Returns an error if this is the folder of a run or of an adapter, which says how to get the model.
fn require_model(folder: &Path) -> Result<()> {
    let has = |name: &str| folder.join(name).is_file();
    if has("config.json") {
        return Ok(());
    }
    let (shown, word) = (folder.display(), shell_word(folder));
    require!(
        !has("adapter_config.json"),
        format!(
            "merge it into its base model with `lisa export {word} --merge --out DIR`, and give that folder; \
             `lisa train --adapter {word}` trains the adapter further"
        ),
        "`{shown}` is the folder of an adapter, not of a model"
    );
    let model = folder.join("model");
    let help = if model.join("config.json").is_file() {
        format!("give the folder of its model, `{}`", model.display())
    } else if folder.join("adapter/adapter_config.json").is_file() {
        format!(
            "merge its adapter with `lisa export {word} --merge --out DIR`, and give that folder"
        )
    } else {
        format!(
            "the run has no finished model; write the model of its newest checkpoint with `lisa export {word} --out \
             DIR`, and give that folder"
        )
    };
    require!(
        !run_folder::holds_a_run(folder),
        help,
        "`{shown}` is the folder of a run, not of a model"
    );
    Ok(())
}

/// Whether this is a path on this machine, even if nothing is there.
pub(crate) fn is_path(model: &Path) -> bool {
    let id = model.to_string_lossy();
    let is_id = id
        .split_once('/')
        .is_some_and(|(owner, name)| is_hub_id(owner, name));
    model.exists() || !is_id
}

/// Whether `owner/name` can be an id of the hub. It is a mistyped path if `owner` is a folder here.
pub(crate) fn is_hub_id(owner: &str, name: &str) -> bool {
    let is_name = |part: &str| {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(is_allowed)
    };
    is_name(owner) && is_name(name) && !Path::new(owner).is_dir()
}

/// The id of a model whose folder is in the hub's cache, `models--OWNER--NAME/snapshots/REVISION`.
pub(crate) fn id_in_cache(folder: &Path) -> Option<String> {
    folder.components().find_map(|part| {
        let part = part.as_os_str().to_string_lossy();
        Some(part.strip_prefix("models--")?.replacen("--", "/", 1))
    })
}

#[cfg(not(feature = "hub"))]
fn download(id: &str, _: &str, _: Need) -> Result<PathBuf> {
    Err(UserError::new(format!("there is no folder `{id}`"))
        .with_help("if it is an id of the Hugging Face hub, build with `--features hub`")
        .into())
}

#[cfg(feature = "hub")]
use crate::hub::download;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_the_hubs_cache_has_an_id() {
        for (folder, id) in [
            ("/c/models--a--b/snapshots/0f", Some("a/b")),
            ("models--a--b--c", Some("a/b--c")),
            ("/models/a--b", None),
        ] {
            assert_eq!(id_in_cache(Path::new(folder)).as_deref(), id, "{folder}");
        }
    }

    #[test]
    fn only_owner_and_name_is_an_id_of_the_hub() {
        for id in ["HuggingFaceTB/SmolLM2-135M", "a/b", "org.x/model_1.5"] {
            assert!(!is_path(Path::new(id)), "{id}");
        }
        for path in [
            "model",
            "./a/b",
            "../a",
            "/a/b",
            "~/a",
            "a/b/c",
            "a/",
            "/a",
            "a\\b/c",
            "C:/models",
            "a b/c",
            ".cache/x",
            "-a/b",
            "a/..",
            "src/gone",
        ] {
            assert!(is_path(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn the_folder_of_a_run_or_of_an_adapter_says_how_to_get_the_model() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path();
        let write = |name: &str| {
            let path = run.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "{}").unwrap();
        };
        let refused = |path: &Path| {
            let error = model_folder(path, "").unwrap_err();
            anstream::adapter::strip_str(&crate::terminal::report::report(&error)).to_string()
        };
        // Neither is known: the error of the model's own files follows.
        model_folder(run, "").unwrap();
        write("events.out.tfevents.7.lisa");
        let error = refused(run);
        assert!(
            error.contains("is the folder of a run, not of a model"),
            "{error}"
        );
        assert!(
            error.contains("newest checkpoint with `lisa export "),
            "{error}"
        );
        write("adapter/adapter_config.json");
        let error = refused(run);
        assert!(
            error.contains("merge its adapter with `lisa export "),
            "{error}"
        );
        let error = refused(&run.join("adapter"));
        assert!(
            error.contains("is the folder of an adapter, not of a model"),
            "{error}"
        );
        assert!(error.contains("/adapter --merge --out DIR`"), "{error}");
        write("model/config.json");
        let error = refused(run);
        assert!(error.contains("give the folder of its model, `"), "{error}");
        model_folder(&run.join("model"), "").unwrap();
    }

    #[test]
    fn a_path_without_a_folder_is_an_error_that_says_so() {
        let message = |model: &str, revision: &str| {
            let error = model_folder(Path::new(model), revision).unwrap_err();
            crate::terminal::report::report(&error)
        };
        assert!(message("./smollm", "").contains("there is no folder `./smollm`"));
        // The folder `src` is here, so this is a mistyped path.
        assert!(message("src/smollm", "").contains("check the path"));
        assert!(message("src", "main").contains("--revision is `main`"));
        assert!(message("", "main").contains("--revision"));
    }
}
