//! Downloads from the Hugging Face hub, into the cache that other programs use.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context, Result};
use hf_hub::progress::{DownloadEvent, Progress, ProgressEvent, ProgressHandler};
use hf_hub::repository::RepoTreeEntry;
use hf_hub::{HFClientSync, HFError};

use crate::hub_files::Need;
use crate::terminal::output::say;
use crate::terminal::progress::Slow;
use crate::terminal::text::{counted, size};
use crate::user_error::UserError;

/// Downloads what is needed of a model, and returns its folder. Prints the size before. Files that are
/// in the cache are not downloaded again; without a network, the cached model is used.
pub(crate) fn download(id: &str, revision: &str, need: Need) -> Result<PathBuf> {
    let (owner, name) = id.split_once('/').unwrap_or((id, ""));
    let revision = if revision.is_empty() {
        "main"
    } else {
        revision
    };
    let failed = || format!("cannot download `{id}` at `{revision}` from the hub");
    let repository = HFClientSync::new().with_context(failed)?.model(owner, name);
    let info = match repository.info().revision(revision).send() {
        Ok(info) => info,
        Err(error) => {
            let help = if is_unreachable(&error) {
                let cached = repository.snapshot_download().revision(revision);
                if let Ok(folder) = cached.local_files_only(true).send() {
                    let shown = folder.display();
                    say(format_args!(
                        "the hub cannot be reached; {id} is read from {shown}"
                    ))?;
                    return Ok(folder);
                }
                "the hub cannot be reached, and the model is not in the cache: check the network"
            } else {
                "check the id and the revision; a private or gated model needs HF_TOKEN"
            };
            let error = UserError::new(failed()).with_help(help).with_source(error);
            return Err(error.into());
        }
    };
    let commit = info.sha.unwrap_or_else(|| revision.to_owned());
    let tree = repository.list_tree().revision(commit.clone());
    let tree = tree.recursive(true).send().with_context(failed)?;
    let files: Vec<(&str, u64)> = tree
        .iter()
        .filter_map(|entry| match entry {
            RepoTreeEntry::File { path, size, .. } => Some((path.as_str(), *size)),
            RepoTreeEntry::Directory { .. } => None,
        })
        .collect();
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    let names = need.of(&names);
    let bytes: u64 = files
        .iter()
        .filter(|(name, _)| names.contains(name))
        .map(|(_, bytes)| bytes)
        .sum();
    say(format_args!(
        "{id} at {revision} ({commit:.12}): {}, {}",
        counted(names.len(), "file"),
        size(bytes)
    ))?;
    repository
        .snapshot_download()
        .revision(revision)
        .allow_patterns(names.into_iter().map(String::from).collect())
        .progress(Progress::new(Bar::new(bytes)))
        .send()
        .with_context(failed)
}

/// Whether the hub did not answer.
fn is_unreachable(error: &HFError) -> bool {
    matches!(error, HFError::Request { .. })
}

/// A progress bar over the bytes of all files.
struct Bar {
    slow: Slow,
    total: u64,
    /// The bytes of each file, and those of files that are transferred together.
    done: Mutex<(HashMap<String, u64>, u64)>,
}

impl Bar {
    fn new(total: u64) -> Self {
        Self {
            slow: Slow::bytes("downloading"),
            total,
            done: Mutex::default(),
        }
    }
}

impl ProgressHandler for Bar {
    fn on_progress(&self, event: &ProgressEvent) {
        let (ProgressEvent::Download(event), Ok(mut done)) = (event, self.done.lock()) else {
            return;
        };
        match event {
            DownloadEvent::Progress { files } => {
                for file in files {
                    done.0.insert(file.filename.clone(), file.bytes_completed);
                }
            }
            DownloadEvent::AggregateProgress {
                bytes_completed, ..
            } => done.1 = *bytes_completed,
            _ => {}
        }
        let bytes = done.0.values().sum::<u64>() + done.1;
        self.slow.set(bytes.min(self.total), self.total);
    }
}
