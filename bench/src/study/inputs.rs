//! [`Inputs`]: the weights and rows of a run. A job has the names of its folders only, so without them a
//! study that continues with other weights or rows of the same names would mix both.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::log::Log;
use super::plan::{Plan, name};

/// The first 16 hexadecimal digits of SHA-256 digests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inputs {
    /// Of the weights of the checkpoint.
    pub(crate) weights: String,
    /// Of the rows of the task.
    pub(crate) rows: String,
}

impl Inputs {
    /// The contents of these folders.
    pub(crate) fn of(model: &Path, task: &Path) -> Result<Self> {
        Ok(Self {
            weights: digest(model, "safetensors")?,
            rows: digest(task, "jsonl")?,
        })
    }
}

/// The digest of the names, lengths and contents of all files of a folder with this extension, in the order
/// of their names.
fn digest(folder: &Path, extension: &str) -> Result<String> {
    let failed = || format!("cannot read `{}`", folder.display());
    let files = fs::read_dir(folder).with_context(failed)?;
    let files = files.map(|file| Ok(file?.path()));
    let mut files: Vec<PathBuf> = files.collect::<io::Result<_>>().with_context(failed)?;
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    let mut digest = Sha256::new();
    for path in files {
        let failed = || format!("cannot read `{}`", path.display());
        let mut file = File::open(&path).with_context(failed)?;
        let length = file.metadata().with_context(failed)?.len();
        digest.update(name(&path));
        digest.update(length.to_le_bytes());
        io::copy(&mut file, &mut digest).with_context(failed)?;
    }
    Ok(format!("{:x}", digest.finalize())[..16].to_owned())
}

/// Refuses a log that has runs of the plan's names with other contents.
pub(crate) fn check(plan: &Plan, log: &Log) -> Result<()> {
    for task in &plan.tasks {
        let mine = Inputs::of(&plan.model, task)?;
        for (index, (job, run)) in log.all().iter().enumerate() {
            if job.model != name(&plan.model) || job.task != name(task) {
                continue;
            }
            let Some(theirs) = &run.inputs else { continue };
            let of = [
                (&plan.model, "weights", &mine.weights, &theirs.weights),
                (task, "rows", &mine.rows, &theirs.rows),
            ];
            for (folder, what, mine, theirs) in of {
                ensure!(
                    mine == theirs,
                    "the {what} of `{}` are not those of line {} of the log (SHA-256 {mine}.. and \
                     {theirs}..); give another --out, or the folder of the log's runs",
                    folder.display(),
                    index + 1
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::arm::Arm;
    use super::super::job::{Job, Outcome};
    use super::*;

    #[test]
    fn other_weights_or_rows_of_the_same_names_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let [model, task] = ["base", "data"].map(|name| dir.path().join(name));
        let write = |folder: &Path, name: &str, text: &str| {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join(name), text).unwrap();
        };
        write(&model, "model.safetensors", "abc");
        write(&model, "config.json", "{}");
        write(&task, "train.jsonl", "a");
        write(&task, "heldout.jsonl", "bc");
        let inputs = Inputs::of(&model, &task).unwrap();
        // By sha256sum.
        assert_eq!(inputs.weights, "f150ef7f12b900ab");

        let mut log = Log::open(&dir.path().join("runs.jsonl")).unwrap();
        let plan = Plan::full(model.clone(), vec![task.clone()]);
        let line = Outcome {
            inputs: Some(inputs),
            ..Outcome::sample(0.5)
        };
        log.add(Job::sample(Arm::Full, 1), line).unwrap();
        // An older line does not say.
        log.add(Job::sample(Arm::Full, 2), Outcome::sample(0.5))
            .unwrap();
        check(&plan, &log).unwrap();
        write(&model, "config.json", "{\"a\": 1}");
        check(&plan, &log).unwrap();
        // A row that moves from one file to the other.
        write(&task, "train.jsonl", "ca");
        write(&task, "heldout.jsonl", "b");
        let error = check(&plan, &log).unwrap_err().to_string();
        assert!(error.starts_with("the rows of `"), "{error}");
        assert!(
            error.contains("data` are not those of line 1 of the log"),
            "{error}"
        );
        write(&model, "model.safetensors", "abd");
        let error = check(&plan, &log).unwrap_err().to_string();
        assert!(error.starts_with("the weights of `"), "{error}");
    }
}
