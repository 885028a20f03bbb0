//! The adapters of a LoRA run: the adapter that it begins with, the adapters of its checkpoints, and the
//! adapters that it writes at its end. Tests: `tests/run/adapters.rs`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use lisa_lm::checkpoint::{Adapter, AdapterOptions, save_adapter};
use lisa_lm::{CausalLm, Checkpoint};

use crate::bundled;
use crate::model_folder::id_in_cache;
use crate::settings::MethodSettings;
use crate::terminal::output::warn;

/// The model with the adapter that the run goes on with, if there is one and the run is not resumed.
pub(crate) fn begun_with(
    settings: &MethodSettings,
    model: CausalLm,
    (base, revision): (&Path, &str),
    is_resumed: bool,
) -> Result<CausalLm> {
    if is_resumed || settings.adapter.as_os_str().is_empty() {
        return Ok(model);
    }
    let adapter = Adapter::open(&settings.adapter)?;
    check_base(&adapter, base, revision)?;
    Ok(adapter.with_dropout(settings.lora_dropout).apply(model)?)
}

/// Prints a warning if the adapter names another base model than the one that is used.
pub(crate) fn check_base(adapter: &Adapter, folder: &Path, revision: &str) -> Result<()> {
    let (used, _) = base(folder, revision)?;
    let Some(named) = adapter.base().filter(|named| *named != used) else {
        return Ok(());
    };
    let real = |path: &str| Path::new(path).canonicalize().ok();
    // An id of the hub and a folder of the same name may be the same model.
    let last = |path: &str| path.rsplit('/').next().map(str::to_owned);
    // The bundled model is another one in each version.
    let version = |path| bundled::version_in(Path::new(path));
    let is_same = match (real(named), real(&used)) {
        (Some(named), Some(used)) => {
            named == used || (bundled::is_model(&named) && bundled::is_model(&used))
        }
        _ => match (version(named), version(&used)) {
            (Some(named), Some(used)) => named == used,
            _ => last(named) == last(&used),
        },
    };
    let revision = base(folder, "")?.1.filter(|used| is_commit(used));
    let trained = adapter.revision().filter(|named| is_commit(named));
    if let (Some(used), Some(trained)) = (revision, trained)
        && is_same
        && used != trained
    {
        warn(format!(
            "the adapter in `{}` was trained on revision {trained} of `{named}`, and is used on {used}; \
             its weights may differ",
            adapter.dir().display()
        ));
    }
    if !is_same {
        warn(format!(
            "the adapter in `{}` was trained on `{named}`, and is used on `{used}`; on another base \
             model than its own, an adapter makes the results worse",
            adapter.dir().display()
        ));
    }
    Ok(())
}

/// The folder of a run's adapter, next to the folder of its model: `adapter` or `adapter-best`.
pub(crate) fn folder_of(model: &Path) -> PathBuf {
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    model.with_file_name(name.replacen("model", "adapter", 1))
}

/// Writes the adapters of a model in PEFT's format, with the tokenizer.
pub(crate) fn write(
    model: &CausalLm,
    revision: &str,
    source: &Checkpoint,
    files: &[(String, Vec<u8>)],
    folder: &Path,
) -> Result<()> {
    let (base, revision) = base(source.dir(), revision)?;
    let options = AdapterOptions {
        base: &base,
        revision: revision.as_deref(),
        source: Some(source),
        files,
    };
    Ok(save_adapter(model, folder, &options)?)
}

/// The same without the tokenizer, for a checkpoint; the base model is in a folder.
pub(crate) fn write_alone(
    model: &CausalLm,
    revision: &str,
    base_folder: &Path,
    folder: &Path,
) -> Result<()> {
    let (base, revision) = base(base_folder, revision)?;
    let options = AdapterOptions {
        revision: revision.as_deref(),
        ..AdapterOptions::new(&base)
    };
    Ok(save_adapter(model, folder, &options)?)
}

/// The model with the adapters of a checkpoint in place of its own.
pub(crate) fn restored(folder: &Path, model: CausalLm) -> Result<CausalLm> {
    Ok(Adapter::open(folder)?.restore(model)?)
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The base model as PEFT finds it: its id on the hub and the revision, or an absolute path.
fn base(folder: &Path, revision: &str) -> Result<(String, Option<String>)> {
    Ok(match id_in_cache(folder) {
        Some(id) => {
            let commit = folder.file_name().map(|name| name.to_string_lossy());
            let revision = match (revision.is_empty(), commit) {
                (false, _) => Some(revision.to_owned()),
                (true, commit) => commit.map(String::from),
            };
            (id, revision)
        }
        None => {
            let path = std::path::absolute(folder)?;
            (path.to_string_lossy().into_owned(), None)
        }
    })
}
