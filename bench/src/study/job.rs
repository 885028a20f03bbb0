//! [`Job`]: one run, by everything that determines it; [`Log`]: the runs that are done, a line each.
//! Tests: at the foot.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::tasks::Task;
use crate::settings::display_as_value;

/// A way to train in the study.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Method {
    /// The base model as it is
    Base,
    /// AdamW on everything
    Full,
    /// LoRA as a side path, rank 8
    #[value(name = "lora-8")]
    Lora8,
    /// LoRA as a side path, rank 64
    #[value(name = "lora-64")]
    Lora64,
    /// LISA: exactly gamma layers, uniformly
    Uniform,
    /// LISA: each layer by itself with probability gamma / N
    Bernoulli,
    /// LISA: exactly gamma layers, by the weight norms of LoRA and full training
    Weighted,
    /// LISA: one layer after the other, in an order that is shuffled each time
    Cyclic,
    /// LISA: exactly gamma layers, by the size of their gradients
    Gradient,
    /// LISA: halves of layers, by their gradients, up to the size of gamma layers
    Budget,
}

display_as_value!(Method);

impl Method {
    /// The rank of the side paths.
    pub(crate) fn rank(self) -> Option<usize> {
        match self {
            Self::Lora8 => Some(8),
            Self::Lora64 => Some(64),
            _ => None,
        }
    }

    /// Whether layers are drawn.
    pub(crate) fn draws(self) -> bool {
        !matches!(self, Self::Base | Self::Full) && self.rank().is_none()
    }
}

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// Weight norms over a short run.
    Probe,
    /// A score on the validation questions, to choose the learning rate by.
    Choice,
    /// A score on the test questions.
    Test,
    /// The same, after pretraining on the text of the domain in the same way.
    Continual,
}

/// A run. Two that are equal give the same result.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Job {
    /// [`Scale::print`](super::scale::Scale::print).
    pub(crate) scale: String,
    pub(crate) purpose: Purpose,
    pub(crate) task: Task,
    pub(crate) method: Method,
    /// The highest learning rate is 2 to the power of this, in thousandths.
    pub(crate) rate: i32,
    /// Of the order of the data, the draws and the side paths.
    pub(crate) seed: u64,
    /// Layers that train in a period; 0 where none are drawn.
    pub(crate) active_layers: usize,
    /// Steps of a period; 0: no second draw.
    pub(crate) period: usize,
}

impl Job {
    /// The highest learning rate.
    pub(crate) fn learning_rate(&self) -> f64 {
        1e-3 * 2f64.powi(self.rate)
    }
}

/// What a run gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Mean loss of a target token of the held-out questions in nats.
    pub(crate) loss: f64,
    /// Answers that were right in every word, of so many.
    pub(crate) hits: usize,
    pub(crate) asked: usize,
    /// Mean training loss of the last tenth of the steps.
    pub(crate) training_loss: f64,
    /// Numbers that trained together, at the most, and bytes of their moments.
    pub(crate) trained: u64,
    pub(crate) state_bytes: u64,
    /// CPU seconds of the training steps.
    pub(crate) cpu: f64,
    /// By layer: the share of the steps in which it trained, halves counted as halves.
    pub(crate) drawn: Vec<f64>,
    /// By layer: the norm of the weights afterwards, and of what was added to the base's.
    pub(crate) norms: Vec<f64>,
    pub(crate) updates: Vec<f64>,
    /// By layer: w~ / w of the probes.
    #[serde(default)]
    pub(crate) probabilities: Vec<f64>,
}

impl Outcome {
    /// The share of answers that were right.
    pub(crate) fn exact_match(&self) -> f64 {
        self.hits as f64 / self.asked.max(1) as f64
    }
}

#[derive(Serialize, Deserialize)]
struct Line {
    job: Job,
    outcome: Outcome,
}

/// The runs that are done, on disk and in memory.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    done: HashMap<Job, Outcome>,
}

impl Log {
    /// Reads what there is. A last line that was cut off is taken away: that run is done again.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = || format!("cannot read `{}`", path.display());
        let text = if path.exists() {
            std::fs::read_to_string(path).with_context(failed)?
        } else {
            String::new()
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut done = HashMap::new();
        for (number, line) in text[..whole].lines().enumerate() {
            let line: Line = serde_json::from_str(line)
                .with_context(|| format!("line {} of `{}`", number + 1, path.display()))?;
            done.insert(line.job, line.outcome);
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(failed)?;
        if whole < text.len() {
            file.set_len(whole as u64).with_context(failed)?;
        }
        Ok(Self {
            path: path.to_path_buf(),
            file,
            done,
        })
    }

    /// Adds a run: one write of one line, on the disk when this returns.
    pub(crate) fn add(&mut self, job: Job, outcome: Outcome) -> Result<()> {
        let line = Line { job, outcome };
        let text = serde_json::to_string(&line)? + "\n";
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data())
            .with_context(|| format!("cannot write `{}`", self.path.display()))?;
        self.done.insert(line.job, line.outcome);
        Ok(())
    }

    /// What this run gave.
    pub(crate) fn get(&self, job: &Job) -> Option<&Outcome> {
        self.done.get(job)
    }

    /// All of these, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Job, &Outcome)> {
        self.done.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn job(seed: u64) -> Job {
        Job {
            scale: "x".into(),
            purpose: Purpose::Test,
            task: Task::Form,
            method: Method::Uniform,
            rate: 1,
            seed,
            active_layers: 2,
            period: 5,
        }
    }

    fn outcome(loss: f64) -> Outcome {
        Outcome {
            loss,
            hits: 3,
            asked: 4,
            ..Outcome::default()
        }
    }

    #[test]
    fn a_log_that_was_cut_off_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runs.jsonl");
        let mut log = Log::open(&path).unwrap();
        log.add(job(1), outcome(0.1)).unwrap();
        log.add(job(2), outcome(0.2)).unwrap();
        drop(log);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 9]).unwrap();

        let mut log = Log::open(&path).unwrap();
        assert_eq!(log.get(&job(1)), Some(&outcome(0.1)));
        assert_eq!(log.get(&job(2)), None);
        log.add(job(2), outcome(0.2)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert_eq!(Log::open(&path).unwrap().iter().count(), 2);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runs.jsonl");
        std::fs::write(&path, "{}\n").unwrap();
        let error = format!("{:#}", Log::open(&path).unwrap_err());
        assert!(
            error.contains("line 1") && error.contains("runs.jsonl"),
            "{error}"
        );
    }

    #[test]
    fn rates_are_powers_of_two() {
        assert_eq!(job(1).learning_rate(), 2e-3);
        assert_eq!(job(1).method.to_string(), "uniform");
        assert_eq!(outcome(0.0).exact_match(), 0.75);
    }
}
