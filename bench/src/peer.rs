//! PyTorch's methods, run by `peer.py` on the same weights, tokens and draws.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lisa::policy::{Draw, SamplingPolicy, Uniform};

use crate::child::Event;
use crate::method::Method;
use crate::preset::{self, Preset};
use crate::report::highest;
use crate::settings::Settings;

/// A prepared interpreter.
pub(crate) struct Peer<'a> {
    python: &'a Path,
    settings: &'a Settings,
    dir: PathBuf,
    /// What PyTorch holds beside a model: the high-water mark of a tiny one.
    pub(crate) floor: u64,
}

impl<'a> Peer<'a> {
    /// Writes weights and tokens, and measures the floor.
    pub(crate) fn prepare(python: &'a Path, settings: &'a Settings) -> Result<Self> {
        let tiny = Settings {
            preset: Preset::Tiny,
            shrink: 1,
            steps: 2,
            warmup: 1,
            ..settings.clone()
        };
        let dir = settings.out.join("peer");
        let events = Peer {
            python,
            settings: &tiny,
            dir: dir.join("tiny"),
            floor: 0,
        };
        events.write()?;
        let floor = highest(&events.run(Method::TorchLisa)?, |event| event.rss);
        let peer = Self {
            python,
            settings,
            dir,
            floor: floor.context("PyTorch's process tells no high-water mark")?,
        };
        peer.write()?;
        Ok(peer)
    }

    fn write(&self) -> Result<()> {
        std::fs::create_dir_all(&self.dir)
            .with_context(|| format!("cannot make the folder `{}`", self.dir.display()))?;
        let mut command = Command::new(std::env::current_exe()?);
        let status = command
            .args(self.settings.to_args())
            .arg("--save-weights")
            .arg(self.dir.join("model"))
            .status()?;
        ensure!(
            status.success(),
            "the weights for PyTorch could not be written"
        );
        let bytes: Vec<u8> = preset::tokens(self.settings)
            .iter()
            .flat_map(|token| token.to_le_bytes())
            .collect();
        Ok(lisa_lm::write_atomically(&self.dir.join("tokens"), &bytes)?)
    }

    /// The layers of each period, as our own runs draw them.
    fn schedule(&self) -> Result<String> {
        let settings = self.settings;
        let layers = settings.preset.config(settings.shrink).num_layers();
        let periods = settings.steps.div_ceil(settings.period) as u64;
        let draws: Vec<Vec<usize>> = (0..periods)
            .map(|period| {
                Uniform.draw(&Draw::new(
                    settings.seed,
                    period,
                    layers,
                    settings.active_layers,
                ))
            })
            .collect();
        Ok(serde_json::to_string(&draws)?)
    }

    /// Runs one method.
    pub(crate) fn run(&self, method: Method) -> Result<Vec<Event>> {
        let settings = self.settings;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peer.py");
        let mut command = Command::new(self.python);
        command
            .arg(script)
            .arg("--model")
            .arg(self.dir.join("model"))
            .arg("--tokens")
            .arg(self.dir.join("tokens"))
            .args(["--method", &method.to_string()])
            .args(["--schedule", &self.schedule()?])
            .args(["--batch", &settings.batch.to_string()])
            .args(["--sequence", &settings.sequence.to_string()])
            .args(["--steps", &settings.steps.to_string()])
            .args(["--period", &settings.period.to_string()])
            .args(["--lora-rank", &settings.lora_rank.to_string()])
            .args(["--lr", &settings.lr.to_string()])
            .args(["--dtype", &settings.dtype.to_string()])
            .args(["--threads", &settings.threads.to_string()])
            .env("OMP_NUM_THREADS", settings.threads.to_string())
            .env("MKL_NUM_THREADS", settings.threads.to_string());
        crate::events_of(command, &method.to_string())
    }
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        // Half a gigabyte and more that is of no use later.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
