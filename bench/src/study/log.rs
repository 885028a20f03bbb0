//! [`Log`]: the finished runs, a JSON line each.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::job::{Job, Outcome};

#[derive(Serialize, Deserialize)]
struct Line {
    job: Job,
    outcome: Outcome,
}

/// The finished runs, on disk and in memory.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    /// None where runs are only read.
    file: Option<File>,
    /// By line.
    done: Vec<(Job, Outcome)>,
}

impl Log {
    /// Opens the log, or starts one, for one study at a time. An incomplete last line is removed: its run
    /// is repeated.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = || format!("cannot write `{}`", path.display());
        let mut options = OpenOptions::new();
        let options = options.create(true).append(true);
        let file = options.open(path).with_context(failed)?;
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            bail!("another study writes to `{}` now", path.display());
        }
        let mut log = Self::read(path)?;
        let text = std::fs::read(path).with_context(failed)?;
        if !text.ends_with(b"\n") {
            let whole = text.iter().rposition(|byte| *byte == b'\n');
            let whole = whole.map_or(0, |end| end as u64 + 1);
            file.set_len(whole).with_context(failed)?;
        }
        log.file = Some(file);
        Ok(log)
    }

    /// Reads the finished runs of a log.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let failed = || format!("cannot read `{}`", path.display());
        let text = std::fs::read_to_string(path).with_context(failed)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut done = Vec::new();
        for (number, line) in text[..whole].lines().enumerate() {
            let line: Line = serde_json::from_str(line)
                .with_context(|| format!("line {} of `{}`", number + 1, path.display()))?;
            done.push((line.job, line.outcome));
        }
        check(&done).with_context(|| format!("the log `{}`", path.display()))?;
        Ok(Self {
            path: path.to_path_buf(),
            file: None,
            done,
        })
    }

    /// Adds a run: one write of one line, which is on the disk when this returns.
    pub(crate) fn add(&mut self, job: Job, outcome: Outcome) -> Result<()> {
        let line = Line { job, outcome };
        let text = serde_json::to_string(&line)? + "\n";
        let failed = || format!("cannot write `{}`", self.path.display());
        let file = self.file.as_mut().with_context(failed)?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_data())
            .with_context(failed)?;
        self.done.push((line.job, line.outcome));
        Ok(())
    }

    /// The outcome of a run; none where it is missing.
    pub(crate) fn get(&self, job: &Job) -> Option<&Outcome> {
        let mut done = self.done.iter();
        done.find_map(|(other, outcome)| (other == job).then_some(outcome))
    }

    /// All finished runs, by line.
    pub(crate) fn all(&self) -> &[(Job, Outcome)] {
        &self.done
    }
}

/// Refuses a log in which a run would count twice, or in which runs on the same rows have other tokens.
fn check(done: &[(Job, Outcome)]) -> Result<()> {
    for (second, (job, run)) in done.iter().enumerate() {
        for (first, (other, earlier)) in done[..second].iter().enumerate() {
            let lines = || format!("lines {} and {}", first + 1, second + 1);
            ensure!(
                job != other,
                "{} are the same run; remove one of them",
                lines()
            );
            let (mine, theirs) = (&run.inputs, &earlier.inputs);
            let is_known = job.model == other.model && job.task == other.task;
            ensure!(
                !is_known || mine.is_none() || theirs.is_none() || mine == theirs,
                "{} have other weights or rows",
                lines()
            );
            let has_same_rows = job.model == other.model
                && job.task == other.task
                && job.purpose == other.purpose
                && job.sizes.scored == other.sizes.scored
                && job.sizes.max_length == other.sizes.max_length;
            ensure!(
                !has_same_rows || run.scores.counts == earlier.scores.counts,
                "the rows of {} have other numbers of trained tokens, so their losses cannot be compared",
                lines()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::arm::Arm;
    use super::super::job::{Point, Scores};
    use super::*;

    #[test]
    fn an_interrupted_log_continues() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runs.jsonl");
        let mut log = Log::open(&path).unwrap();
        let (one, two) = (Job::sample(Arm::Full, 1), Job::sample(Arm::Full, 2));
        log.add(one.clone(), Outcome::sample(0.1)).unwrap();
        log.add(two.clone(), Outcome::sample(0.2)).unwrap();
        drop(log);
        let text = std::fs::read_to_string(&path).unwrap();
        let cut = &text[..text.len() - 9];
        std::fs::write(&path, cut).unwrap();
        assert_eq!(Log::read(&path).unwrap().get(&two), None);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), cut);

        let mut log = Log::open(&path).unwrap();
        let error = Log::open(&path).unwrap_err().to_string();
        assert!(error.starts_with("another study writes to"), "{error}");
        assert_eq!(log.get(&one), Some(&Outcome::sample(0.1)));
        assert_eq!(log.get(&two), None);
        log.add(two.clone(), Outcome::sample(0.2)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let read = Log::read(&path).unwrap();
        assert_eq!(read.get(&two), Some(&Outcome::sample(0.2)));
    }

    #[test]
    fn a_run_that_diverged_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runs.jsonl");
        let job = Job::sample(Arm::Full, 1);
        let point = Point {
            train: f64::INFINITY,
            cpu: 1.0 / 11.0,
            ..Point::default()
        };
        let outcome = Outcome {
            scores: Scores {
                losses: vec![f64::NAN, 0.1 + 0.2],
                ..Scores::default()
            },
            curve: vec![point],
            ..Outcome::default()
        };
        let mut log = Log::open(&path).unwrap();
        log.add(job.clone(), outcome).unwrap();
        let log = Log::read(&path).unwrap();
        let read = log.get(&job).unwrap();
        assert!(read.scores.loss().is_nan() && read.curve[0].train.is_nan());
        assert_eq!(
            (read.scores.losses[1], read.curve[0].cpu),
            (0.1 + 0.2, 1.0 / 11.0)
        );
    }

    #[test]
    fn a_run_that_would_count_twice_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runs.jsonl");
        let mut log = Log::open(&path).unwrap();
        let jobs = [1, 2].map(|seed| Job::sample(Arm::Full, seed));
        for job in &jobs {
            log.add(job.clone(), Outcome::sample(0.5)).unwrap();
        }
        Log::read(&path).unwrap();
        log.add(jobs[0].clone(), Outcome::sample(0.25)).unwrap();
        let error = format!("{:#}", Log::read(&path).unwrap_err());
        assert!(error.contains("lines 1 and 3 are the same run"), "{error}");
    }

    #[test]
    fn rows_with_other_tokens_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runs.jsonl");
        let mut log = Log::open(&path).unwrap();
        log.add(Job::sample(Arm::Full, 1), Outcome::sample(0.5))
            .unwrap();
        let mut other = Outcome::sample(0.5);
        other.scores.counts = vec![2, 5];
        let job = Job {
            purpose: super::super::job::Purpose::Choice,
            ..Job::sample(Arm::Full, 2)
        };
        // Other rows.
        log.add(job, other.clone()).unwrap();
        Log::read(&path).unwrap();
        log.add(Job::sample(Arm::Full, 2), other).unwrap();
        let error = format!("{:#}", Log::read(&path).unwrap_err());
        assert!(error.contains("the rows of lines 1 and 3"), "{error}");
    }

    #[test]
    fn an_invalid_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runs.jsonl");
        std::fs::write(&path, "{}\n").unwrap();
        let error = format!("{:#}", Log::read(&path).unwrap_err());
        assert!(
            error.contains("line 1") && error.contains("runs.jsonl"),
            "{error}"
        );
    }
}
