//! The files of a run in its output folder: which of them are a run's own.

use std::path::{Path, PathBuf};

use anyhow::Result;
use lisa_lm::checkpoint::is_model_file;
use serde_json::{Value, json};

use crate::output_folder::{entries, remove};
use crate::settings::Dtype;
use crate::user_error::require;

/// The start of the names of TensorBoard's event files.
pub(crate) const EVENTS: &str = "events.out.tfevents.";
/// The end of the names of event files of this program.
pub(crate) const OUR_EVENTS: &str = ".lisa";

/// The file of a finished model or adapter that says its step, and the dtype and the vocabulary of
/// the run.
pub(crate) const STEP: &str = "lisa.json";
/// The file of a model's or an adapter's card.
pub(crate) const CARD: &str = "README.md";
/// The files of a checkpoint: the weights, the optimizer state, and everything else.
pub(crate) const CHECKPOINT: [&str; 3] = ["weights.bpk", "optimizer.bpk", "state.json"];
/// The folder of a checkpoint of LoRA, which has adapters instead of weights.
pub(crate) const ADAPTER: &str = "adapter";

pub(crate) const CHECKPOINTS: &str = "checkpoints";
const SUMMARY: &str = "summary.json";
/// The files that a run writes at each step, and at its end.
const METRICS: [&str; 2] = ["metrics.jsonl", "metrics.csv"];
const AT_THE_END: [&str; 3] = [SUMMARY, "losses.svg", "memory.svg"];
/// The folders of finished models, and of the adapters of LoRA.
pub(crate) const MODELS: [&str; 4] = ["model", "model-best", "adapter", "adapter-best"];

/// What a folder has while a model is written into it.
pub(crate) const SAVING: &str = ".lisa-saving";

/// Whether a run of this program has written to the folder: it has an event file, a summary or a
/// checkpoint of the program. Files of these names that others wrote do not count.
#[must_use]
pub(crate) fn holds_a_run(out: &Path) -> bool {
    let found = list(out);
    let is_event = |path: &PathBuf| is_event(&name_of(path));
    found.iter().any(is_event)
        || summary(out).is_some()
        || list(&out.join(CHECKPOINTS))
            .iter()
            .any(|path| is_checkpoint(path))
}

/// Whether there is something to lose: a checkpoint or a finished model of a run.
#[must_use]
pub(crate) fn is_saved(out: &Path) -> bool {
    let mut checkpoints = list(&out.join(CHECKPOINTS)).into_iter();
    let is_whole = |path: PathBuf| is_checkpoint(&path) && path.extension().is_none();
    checkpoints.any(is_whole) || summary(out).is_some() || finished_step(out).is_some()
}

/// The step of a finished model or adapter; `None` if the folder has none of a run.
#[must_use]
pub(crate) fn step_of_model(folder: &Path) -> Option<u64> {
    if !has_model(folder) || folder.join(SAVING).exists() {
        return None;
    }
    json(&folder.join(STEP))?["step"].as_u64()
}

/// The dtype of the run that wrote a model or an adapter; `None` if it is not known.
#[must_use]
pub(crate) fn dtype_of_run(folder: &Path) -> Option<String> {
    Some(json(&folder.join(STEP))?["dtype"].as_str()?.to_owned())
}

/// The rows of the embedding in the run that wrote a model or an adapter; 0 if they are not known.
#[must_use]
pub(crate) fn rows_of_run(folder: &Path) -> usize {
    let about = json(&folder.join(STEP)).unwrap_or_default();
    let rows = about["vocab_size"].as_u64();
    rows.and_then(|rows| usize::try_from(rows).ok())
        .unwrap_or_default()
}

/// The text of the file [`STEP`]: the step, the dtype in which `lisa export` merges an adapter, and
/// the rows of the embedding, of which it adds those that the base does not have.
#[must_use]
pub(crate) fn about(step: Option<u64>, dtype: Dtype, rows: usize) -> Vec<u8> {
    let mut about = json!({ "dtype": dtype, "vocab_size": rows });
    if let Some(step) = step {
        about["step"] = step.into();
    }
    format!("{about}\n").into_bytes()
}

/// Whether a folder has a model or an adapter.
#[must_use]
pub(crate) fn has_model(folder: &Path) -> bool {
    let names = ["config.json", "adapter_config.json"];
    names.iter().any(|name| folder.join(name).is_file())
}

/// The step of the newest finished model or adapter of a run.
#[must_use]
pub(crate) fn finished_step(out: &Path) -> Option<u64> {
    step_of(out, "model").max(step_of(out, "adapter"))
}

/// The step of the model or adapter in this folder of a run.
#[must_use]
pub(crate) fn step_of(out: &Path, name: &str) -> Option<u64> {
    step_of_model(&out.join(name))
}

/// The summary of a run.
#[must_use]
pub(crate) fn summary(out: &Path) -> Option<Value> {
    let summary = json(&out.join(SUMMARY))?;
    let has = |key: &str| summary.get(key).is_some();
    let is_ours = has("settings") && has("steps") && has("seconds") && has("before");
    is_ours.then_some(summary)
}

/// Returns an error if a new or a resumed run would replace something that no run has made.
pub(crate) fn require_replaceable(out: &Path) -> Result<()> {
    let models = MODELS.map(|name| out.join(name)).into_iter();
    let foreign = models.filter(|path| path.exists() && !is_model(path));
    let checkpoints = list(&out.join(CHECKPOINTS)).into_iter();
    let named = |path: &PathBuf| step_of_name(path).is_some() && !is_checkpoint(path);
    let foreign = foreign.chain(checkpoints.filter(named)).next();
    require!(
        foreign.is_none(),
        "move it to another place, or begin a new run in another folder with --out",
        "`{}` is not of a run, and the run would replace it",
        foreign.unwrap_or_default().display()
    );
    Ok(())
}

/// Returns an error if a folder of the run has a file that no run has written: to replace the run would
/// remove it.
pub(crate) fn require_own_files(out: &Path) -> Result<()> {
    let of_model = |name: &str| {
        let is_hidden = name.starts_with('.');
        is_model_file(name) || name == STEP || is_hidden || is_half(name, CARD)
    };
    let in_models = MODELS.iter().flat_map(|name| list(&out.join(name)));
    let mut foreign = in_models.filter(|path| !of_model(&name_of(path)));
    let steps = list(&out.join(CHECKPOINTS)).into_iter();
    let in_steps = steps.filter(|path| is_checkpoint(path));
    let in_steps = in_steps.flat_map(|path| list(&path));
    let mut in_steps = in_steps.filter(|path| !is_of_checkpoint(&name_of(path)));
    let foreign = foreign.next().or_else(|| in_steps.next());
    require!(
        foreign.is_none(),
        "move it to another place, or give another folder with --out",
        "`{}` is not of the run, and would be removed with it",
        foreign.unwrap_or_default().display()
    );
    Ok(())
}

/// Removes what a run has written, and nothing else.
pub(crate) fn remove_own(out: &Path) -> Result<()> {
    own(out).iter().try_for_each(|name| remove(&out.join(name)))
}

/// Removes the files and folders that an interrupted save or removal has left.
pub(crate) fn clean(out: &Path) -> Result<()> {
    for name in MODELS {
        remove(&out.join(format!("{name}.partial")))?;
        remove_all(&out.join(name), |file| is_half(file, CARD))?;
    }
    remove_all(out, is_half_of_run)?;
    for path in list(&out.join(CHECKPOINTS)) {
        if path.extension().is_some() && is_checkpoint(&path) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes the files of a folder with such names.
fn remove_all(folder: &Path, is_one: impl Fn(&str) -> bool) -> Result<()> {
    let mut found = list(folder)
        .into_iter()
        .filter(|path| is_one(&name_of(path)));
    found.try_for_each(|path| remove(&path))
}

/// The files and folders of a run, as paths in its folder.
pub(crate) fn own(out: &Path) -> Vec<PathBuf> {
    if !holds_a_run(out) {
        return Vec::new();
    }
    let mut names = METRICS.to_vec();
    if summary(out).is_some() {
        names.extend(AT_THE_END);
    }
    names.extend(MODELS.iter().filter(|name| is_model(&out.join(name))));
    let names = names.into_iter().map(PathBuf::from);
    let mut own: Vec<PathBuf> = names.filter(|name| out.join(name).exists()).collect();
    let files = list(out).into_iter().map(|path| name_of(&path));
    let ours = files.filter(|name| is_event(name) || is_half_of_run(name));
    own.extend(ours.map(PathBuf::from));
    let checkpoints = list(&out.join(CHECKPOINTS)).into_iter();
    let checkpoints = checkpoints.filter(|path| is_checkpoint(path));
    own.extend(checkpoints.map(|path| Path::new(CHECKPOINTS).join(name_of(&path))));
    own
}

/// Whether a run has written this model, or a part of it.
fn is_model(folder: &Path) -> bool {
    let is_begun = folder.join(SAVING).exists() || folder.is_dir() && list(folder).is_empty();
    is_begun || step_of_model(folder).is_some()
}

/// Whether a path has the name and the files of a checkpoint, which may be incomplete.
fn is_checkpoint(path: &Path) -> bool {
    let files = list(path);
    let has_own = files.iter().any(|file| is_of_checkpoint(&name_of(file)));
    let is_begun = files.is_empty() && path.extension().is_some() && path.is_dir();
    step_of_name(path).is_some() && (has_own || is_begun)
}

/// Whether this is the name of a part of a checkpoint, or of one that is being written.
fn is_of_checkpoint(name: &str) -> bool {
    let is_part = |part: &&str| name == *part || is_half(name, part);
    name == ADAPTER || CHECKPOINT.iter().any(is_part)
}

/// Whether this is the name of a file that a killed run was writing in its folder.
fn is_half_of_run(name: &str) -> bool {
    let mut files = METRICS.iter().chain(&AT_THE_END);
    files.any(|file| is_half(name, file))
}

/// Whether this is the name of what is written before it takes the place of a file:
/// `weights.bpk.1234-5.tmp`.
fn is_half(name: &str, file: &str) -> bool {
    let rest = name.strip_prefix(file);
    rest.is_some_and(|rest| rest.starts_with('.') && rest.rsplit('.').next() == Some("tmp"))
}

/// The step in the name of a checkpoint, complete or not.
fn step_of_name(path: &Path) -> Option<u64> {
    let name = name_of(path);
    let digits = name.strip_prefix("step-")?;
    let digits = digits.strip_suffix(".partial").unwrap_or(digits);
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

fn is_event(name: &str) -> bool {
    name.starts_with(EVENTS) && name.ends_with(OUR_EVENTS)
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The entries of a folder; none if it cannot be read.
fn list(folder: &Path) -> Vec<PathBuf> {
    entries(folder).unwrap_or_default()
}

fn json(path: &Path) -> Option<Value> {
    let text = lisa_lm::files::read_small_text(path).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const OURS: &str = r#"{"settings": {}, "steps": 4, "seconds": 1.0, "before": null}"#;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The files below a folder, with their texts.
    fn files(folder: &Path) -> Vec<(String, String)> {
        fn add(folder: &Path, root: &Path, to: &mut Vec<(String, String)>) {
            for path in entries(folder).unwrap() {
                if path.is_dir() {
                    add(&path, root, to);
                } else {
                    let name = path
                        .strip_prefix(root)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned();
                    to.push((name, fs::read_to_string(path).unwrap()));
                }
            }
        }
        let mut found = Vec::new();
        add(folder, folder, &mut found);
        found.sort();
        found
    }

    /// A finished run, with files of others.
    fn run(out: &Path) {
        for name in [
            "model/config.json",
            "checkpoints/step-00000004/weights.bpk",
            "checkpoints/step-00000004/state.json",
            "checkpoints/of-mine/file",
            "metrics.jsonl",
            "metrics.csv",
            "metrics.jsonl.1234-5.tmp",
            "memory.svg.1234-5.tmp",
            "model/README.md.1234-6.tmp",
            "losses.svg",
            "events.out.tfevents.7.lisa",
            "events.out.tfevents.7.host",
            "notes.txt",
        ] {
            write(&out.join(name), name);
        }
        write(&out.join("model").join(STEP), r#"{"step": 4}"#);
        write(&out.join(SUMMARY), OURS);
    }

    const OTHERS: [&str; 3] = [
        "checkpoints/of-mine/file",
        "events.out.tfevents.7.host",
        "notes.txt",
    ];

    #[test]
    fn only_what_a_run_wrote_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        run(out);
        write(&out.join("model-best/config.json"), "of mine");
        write(&out.join("model-best").join(STEP), "not a step");
        assert!(holds_a_run(out) && is_saved(out));
        let error = require_replaceable(out).unwrap_err().to_string();
        assert!(error.contains("model-best` is not of a run"), "{error}");
        remove_own(out).unwrap();
        assert!(!holds_a_run(out));
        let left: Vec<String> = files(out).into_iter().map(|file| file.0).collect();
        let best = ["model-best/config.json", "model-best/lisa.json"];
        let mut expected = [&OTHERS[..], &best].concat();
        expected.sort_unstable();
        assert_eq!(left, expected);
    }

    #[test]
    fn a_file_in_a_folder_of_the_run_that_no_run_wrote_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        run(out);
        require_own_files(out).unwrap();
        for name in ["model/notes.txt", "checkpoints/step-00000004/notes.txt"] {
            write(&out.join(name), "of mine");
            let error = require_own_files(out).unwrap_err().to_string();
            let expected = format!("`{}` is not of the run", out.join(name).display());
            assert!(error.starts_with(&expected), "{error}");
            fs::remove_file(out.join(name)).unwrap();
        }
        require_own_files(out).unwrap();
    }

    #[test]
    fn files_that_a_killed_run_was_writing_are_removed_when_it_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        run(out);
        write(&out.join("notes.tmp"), "of mine");
        write(&out.join("model/memory.svg.1234-5.tmp"), "of mine");
        let before = files(out);
        clean(out).unwrap();
        let after = files(out);
        let removed = before.iter().filter(|file| !after.contains(file));
        let removed: Vec<&str> = removed.map(|file| &file.0[..]).collect();
        assert_eq!(
            removed,
            [
                "memory.svg.1234-5.tmp",
                "metrics.jsonl.1234-5.tmp",
                "model/README.md.1234-6.tmp"
            ]
        );
    }

    #[test]
    fn the_rows_of_the_embedding_are_known_if_the_run_has_written_them() {
        let dir = tempfile::tempdir().unwrap();
        let about = |text: &[u8]| {
            fs::write(dir.path().join(STEP), text).unwrap();
            rows_of_run(dir.path())
        };
        assert_eq!(rows_of_run(dir.path()), 0);
        assert_eq!(about(&super::about(Some(3), Dtype::Bf16, 1026)), 1026);
        assert_eq!(dtype_of_run(dir.path()).as_deref(), Some("bf16"));
        // As an earlier version wrote it.
        assert_eq!(about(br#"{"dtype": "f32"}"#), 0);
    }

    #[test]
    fn files_of_others_with_the_names_of_a_run_are_no_run() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        write(&out.join("metrics.jsonl"), r#"{"step": 1, "loss": 2.0}"#);
        write(&out.join(SUMMARY), r#"{"steps": 3, "accuracy": 0.5}"#);
        write(&out.join("model/config.json"), "{}");
        write(&out.join("checkpoints/step-100/model.safetensors"), "");
        assert!(!holds_a_run(out) && !is_saved(out));
        let before = files(out);
        remove_own(out).unwrap();
        assert_eq!(files(out), before);
        assert_eq!(finished_step(out), None);
        // Nor are they of a run that is in the same folder.
        write(&out.join("events.out.tfevents.7.lisa"), "");
        fs::remove_file(out.join(SUMMARY)).unwrap();
        let error = require_replaceable(out).unwrap_err().to_string();
        assert!(error.contains("model` is not of a run"), "{error}");
        fs::remove_dir_all(out.join("model")).unwrap();
        let error = require_replaceable(out).unwrap_err().to_string();
        assert!(error.contains("step-100` is not of a run"), "{error}");
        remove_own(out).unwrap();
        let left: Vec<String> = files(out).into_iter().map(|file| file.0).collect();
        assert_eq!(left, ["checkpoints/step-100/model.safetensors"]);
    }

    #[test]
    fn a_checkpoint_that_is_begun_is_one_of_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        run(out);
        // A run that was killed while it wrote its first file.
        let begun = out.join("checkpoints/step-00000006.partial");
        write(&begun.join("weights.bpk.1234-5.tmp"), "half");
        require_replaceable(out).unwrap();
        clean(out).unwrap();
        assert!(!begun.exists());
        // The same folder with a file of another program.
        write(&begun.join("mine.tmp"), "");
        let error = require_replaceable(out).unwrap_err().to_string();
        assert!(
            error.contains("step-00000006.partial` is not of a run"),
            "{error}"
        );
        clean(out).unwrap();
        assert!(begun.exists());
    }

    #[test]
    fn the_step_of_a_model_is_that_of_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        run(out);
        // The summary is of an earlier model, as after a kill.
        write(&out.join("model").join(STEP), r#"{"step": 9}"#);
        assert_eq!(finished_step(out), Some(9));
        fs::remove_file(out.join("model").join(STEP)).unwrap();
        assert_eq!(finished_step(out), None);
    }
}
