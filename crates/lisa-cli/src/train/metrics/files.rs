//! `metrics.jsonl` and its copies for other tools: one line per step.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lisa_lm::files::write_atomically;

use super::events::Events;
use super::table;

use super::line::Line;

/// Which held-out losses a resumed run keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldOut {
    /// All of them.
    All,
    /// Those before the step, which is evaluated again.
    Earlier,
    /// None: they are of other rows.
    None,
}

/// The open files: `metrics.jsonl`, `metrics.csv` and TensorBoard's events.
#[derive(Debug)]
pub(crate) struct Metrics {
    json: Appended,
    table: Appended,
    events: Events,
    folder: PathBuf,
    /// The lines of the files.
    pub(crate) lines: Vec<Line>,
}

impl Metrics {
    /// Opens the files in the folder of a run. A resumed run keeps the lines up to `step` and removes
    /// the others.
    pub(crate) fn open(folder: &Path, step: u64, held_out: HeldOut) -> Result<Self> {
        let path = folder.join("metrics.jsonl");
        let mut lines = Vec::new();
        if step > 0 && path.is_file() {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read `{}`", path.display()))?;
            lines = text
                .lines()
                .filter_map(|line| serde_json::from_str::<Line>(line).ok())
                .filter(|line| line.step <= step)
                .filter(|line| match held_out {
                    HeldOut::All => true,
                    HeldOut::Earlier => line.step < step || line.loss.is_some(),
                    HeldOut::None => line.loss.is_some(),
                })
                .collect();
        }
        let (mut json, mut table) = (String::new(), table::HEADER.to_owned());
        for line in &lines {
            json += &serde_json::to_string(line)?;
            json.push('\n');
            table += &table::row(line);
        }
        // The first file in the folder, by which it is known as that of a run if this one is killed now.
        // A session replaces the earlier files from a step on: from the first one, if a loss of it is dropped.
        let from = if held_out == HeldOut::All { step } else { 0 };
        let mut events = Events::begin(folder, step, from).with_context(|| failed(folder))?;
        for line in lines.iter().filter(|_| from == 0) {
            events.push(line).with_context(|| failed(folder))?;
        }
        Ok(Self {
            json: Appended::open(path, &json)?,
            table: Appended::open(folder.join("metrics.csv"), &table)?,
            events,
            folder: folder.to_path_buf(),
            lines,
        })
    }

    /// Appends a line.
    pub(crate) fn push(&mut self, line: Line) -> Result<()> {
        self.json.push(&(serde_json::to_string(&line)? + "\n"))?;
        self.table.push(&table::row(&line))?;
        self.events
            .push(&line)
            .with_context(|| failed(&self.folder))?;
        self.lines.push(line);
        Ok(())
    }
}

fn failed(path: &Path) -> String {
    format!("cannot write `{}`", path.display())
}

/// A text file that grows.
#[derive(Debug)]
struct Appended {
    path: PathBuf,
    file: File,
}

impl Appended {
    fn open(path: PathBuf, text: &str) -> Result<Self> {
        write_atomically(&path, text.as_bytes())?;
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .with_context(|| failed(&path))?;
        Ok(Self { path, file })
    }

    fn push(&mut self, text: &str) -> Result<()> {
        self.file
            .write_all(text.as_bytes())
            .with_context(|| failed(&self.path))
    }
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
    fn a_folder_is_known_as_that_of_a_run_before_its_metrics_are_written() {
        let dir = tempfile::tempdir().unwrap();
        // The file cannot be written.
        std::fs::create_dir(dir.path().join("metrics.jsonl")).unwrap();
        Metrics::open(dir.path(), 0, HeldOut::Earlier).unwrap_err();
        assert!(crate::run_folder::holds_a_run(dir.path()));
    }

    #[test]
    fn a_resumed_run_removes_the_lines_that_it_writes_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(dir.path(), 0, HeldOut::Earlier).unwrap();
        (1..=5).for_each(|step| metrics.push(line(step)).unwrap());
        let mut metrics = Metrics::open(dir.path(), 3, HeldOut::Earlier).unwrap();
        metrics.push(line(4)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 4);
        let table = std::fs::read_to_string(dir.path().join("metrics.csv")).unwrap();
        assert_eq!(table.lines().count(), 5);
        assert!(table.ends_with("\n4,1,,,,,1,,,,\n"), "{table}");
        assert_eq!(metrics.lines[3], line(4));
        assert_eq!(
            Metrics::open(dir.path(), 0, HeldOut::Earlier)
                .unwrap()
                .lines,
            []
        );
    }

    #[test]
    fn the_held_out_loss_of_a_step_that_is_evaluated_again_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::open(dir.path(), 0, HeldOut::Earlier).unwrap();
        metrics.push(line(1)).unwrap();
        metrics.push(Line::held_out(1, 2.0)).unwrap();
        drop(metrics);
        let kept = |held_out| Metrics::open(dir.path(), 1, held_out).unwrap().lines;
        assert_eq!(kept(HeldOut::All).len(), 2);
        assert_eq!(kept(HeldOut::Earlier), [line(1)]);
    }

    #[test]
    fn losses_of_other_held_out_rows_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::open(dir.path(), 0, HeldOut::Earlier).unwrap();
        for new in [
            Line::held_out(0, 3.0),
            line(1),
            Line::held_out(1, 2.0),
            line(2),
        ] {
            metrics.push(new).unwrap();
        }
        let kept = Metrics::open(dir.path(), 2, HeldOut::None).unwrap().lines;
        assert_eq!(kept, [line(1), line(2)]);
        // TensorBoard drops the earlier file, too: the new one starts at step 0, and has the lines that are kept.
        let names = std::fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
        names.retain(|path| path.extension().is_some_and(|end| end == "lisa"));
        names.sort();
        let written = std::fs::read(names.last().unwrap()).unwrap();
        let count = |part: &[u8]| {
            written
                .windows(part.len())
                .filter(|found| found == &part)
                .count()
        };
        assert_eq!((count(b"loss/train"), count(b"loss/held_out")), (2, 0));
        // The step, 0, and a session log with the status START.
        assert_eq!(count(&[0x10, 0, 0x3a, 2, 8, 1]), 1);
    }

    #[test]
    fn every_number_is_read_as_it_was_written_and_infinite_losses_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let losses = [0.1 + 0.2, f64::INFINITY, 1e-310, f64::MAX, 1.0 / 3.0];
        let lines = (1..).zip(losses).map(|(step, loss)| Line {
            lr: Some(1.0 / loss.clamp(1e-9, 1e9)),
            held_out_loss: Some(loss),
            ..line(step)
        });
        let lines: Vec<Line> = lines.collect();
        let mut metrics = Metrics::open(dir.path(), 0, HeldOut::Earlier).unwrap();
        for line in &lines {
            metrics.push(line.clone()).unwrap();
        }
        assert_eq!(
            Metrics::open(dir.path(), 9, HeldOut::Earlier)
                .unwrap()
                .lines,
            lines
        );
    }
}
