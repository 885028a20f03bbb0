//! `metrics.jsonl`: one line per step, and the memory in use.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::tensor::Device;
use lisa_lm::files::write_atomically;
use serde::{Deserialize, Serialize};

use crate::number;

/// One line of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The step, counted from 1.
    pub step: u64,
    /// Mean loss of the step's batches.
    #[serde(
        default,
        with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub loss: Option<f64>,
    /// Held-out loss.
    #[serde(
        default,
        with = "number::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub held_out_loss: Option<f64>,
    /// The learning rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Tokens per second since the run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// The layers that were active in the step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active_layers: Vec<usize>,
    /// Bytes of optimizer state on the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_bytes: Option<u64>,
    /// Bytes in use, on the device or by the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

impl Line {
    /// A line with only a held-out loss.
    #[must_use]
    pub fn held_out(step: u64, loss: f64) -> Self {
        Self {
            step,
            held_out_loss: Some(loss),
            ..Self::default()
        }
    }
}

/// The open file.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
    /// Its lines.
    pub lines: Vec<Line>,
}

impl Metrics {
    /// Opens the file. A resumed run keeps the lines up to `step` and removes the others. The
    /// held-out loss of that step is kept if the step is `evaluated`; otherwise it is measured again.
    pub fn open(path: PathBuf, step: u64, evaluated: bool) -> Result<Self> {
        let failed = || format!("cannot write `{}`", path.display());
        let mut lines = Vec::new();
        if step > 0 && path.is_file() {
            let text = std::fs::read_to_string(&path).with_context(failed)?;
            lines = text
                .lines()
                .filter_map(|line| serde_json::from_str::<Line>(line).ok())
                .filter(|line| line.step <= step)
                .filter(|line| line.step < step || evaluated || line.loss.is_some())
                .collect();
        }
        let mut text = Vec::new();
        for line in &lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        write_atomically(&path, &text)?;
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .with_context(failed)?;
        Ok(Self { path, file, lines })
    }

    /// Appends a line.
    pub fn push(&mut self, line: Line) -> Result<()> {
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        self.file
            .write_all(&text)
            .with_context(|| format!("cannot write `{}`", self.path.display()))?;
        self.lines.push(line);
        Ok(())
    }
}

/// Bytes in use on the device. If the device does not report them, bytes of the process (Linux).
#[must_use]
pub fn memory_bytes(device: &Device) -> Option<u64> {
    if let Some(usage) = device.memory_pool_usage() {
        return Some(usage.bytes_in_use);
    }
    process_bytes("VmRSS:")
}

/// The peak resident memory of the process in bytes (Linux).
#[must_use]
pub fn peak_bytes() -> Option<u64> {
    process_bytes("VmHWM:")
}

fn process_bytes(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(key))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64) -> Line {
        Line {
            step,
            loss: Some(1.0),
            active_layers: vec![1],
            ..Line::default()
        }
    }

    #[test]
    fn a_resumed_run_removes_the_lines_that_it_writes_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(path.clone(), 0, false).unwrap();
        (1..=5).for_each(|step| metrics.push(line(step)).unwrap());
        let mut metrics = Metrics::open(path.clone(), 3, false).unwrap();
        metrics.push(line(4)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 4);
        assert_eq!(metrics.lines[3], line(4));
        assert_eq!(Metrics::open(path, 0, false).unwrap().lines, []);
    }

    #[test]
    fn every_number_is_read_as_it_was_written_and_infinite_losses_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let losses = [
            0.1 + 0.2,
            f64::INFINITY,
            1e-310,
            f64::MAX,
            15.720_000_000_000_001,
        ];
        let lines = (1..).zip(losses).map(|(step, loss)| Line {
            lr: Some(1.0 / loss.clamp(1e-9, 1e9)),
            held_out_loss: Some(loss),
            ..line(step)
        });
        let lines: Vec<Line> = lines.collect();
        let mut metrics = Metrics::open(path.clone(), 0, false).unwrap();
        lines
            .iter()
            .for_each(|line| metrics.push(line.clone()).unwrap());
        assert_eq!(Metrics::open(path, 9, false).unwrap().lines, lines);
    }
}
