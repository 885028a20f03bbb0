//! PyTorch's methods, run by `peer.py` on the same weights, tokens and draws.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::row::highest;
use super::worker::{Event, Weights};
use crate::method::Method;
use crate::settings::Settings;
use crate::{files, process, workload};

/// A Python interpreter, and a folder with its input.
pub(crate) struct Peer<'a> {
    python: &'a Path,
    settings: &'a Settings,
    folder: PathBuf,
    /// The resident set of PyTorch with a tiny model.
    pub(crate) floor: u64,
}

impl<'a> Peer<'a> {
    /// Writes weights and tokens, and measures the floor.
    pub(crate) fn prepare(python: &'a Path, settings: &'a Settings, folder: &Path) -> Result<Self> {
        let tiny = settings.tiny();
        let tiny = Peer::new(python, &tiny, folder.join("tiny"))?;
        let floor = highest(&tiny.run(Method::TorchLisa)?, |event| event.rss);
        let mut peer = Self::new(python, settings, folder.to_path_buf())?;
        peer.floor = floor.context("PyTorch's process reports no high-water mark")?;
        Ok(peer)
    }

    fn new(python: &'a Path, settings: &'a Settings, folder: PathBuf) -> Result<Self> {
        files::make_folder(&folder)?;
        let order = Weights {
            settings: settings.clone(),
            folder: folder.join("model"),
        };
        process::worker::<Event>("weights", &order, settings.threads)?;
        let tokens = workload::tokens(settings)?;
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|token| token.to_le_bytes())
            .collect();
        std::fs::write(folder.join("tokens"), bytes)?;
        Ok(Self {
            python,
            settings,
            folder,
            floor: 0,
        })
    }

    /// Runs one method.
    pub(crate) fn run(&self, method: Method) -> Result<Vec<Event>> {
        let settings = self.settings;
        let layers = settings.config()?.num_layers();
        let draws = serde_json::to_string(&workload::draws(settings, layers))?;
        let threads = settings.threads.to_string();
        let mut command = Command::new(self.python);
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peer.py"))
            .arg("--model")
            .arg(self.folder.join("model"))
            .arg("--tokens")
            .arg(self.folder.join("tokens"))
            .env("OMP_NUM_THREADS", &threads)
            .env("MKL_NUM_THREADS", &threads);
        for (flag, value) in [
            ("--method", method.to_string()),
            ("--schedule", draws),
            ("--batch", settings.batch.to_string()),
            ("--sequence", settings.sequence.to_string()),
            ("--steps", settings.steps.to_string()),
            ("--period", settings.period.to_string()),
            ("--lora-rank", settings.lora_rank.to_string()),
            ("--lr", settings.lr.to_string()),
            ("--dtype", settings.dtype.to_string()),
            ("--threads", threads),
        ] {
            command.args([flag, &value]);
        }
        process::lines(command)
    }
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        // Half a gigabyte and more that nothing needs later.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
