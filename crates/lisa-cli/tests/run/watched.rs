//! Stopping, checkpoints, and the output folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Device;
use lisa_cli::terminal::interrupt::Point;
use lisa_cli::train::run::{Allowed, Outcome, Start, run as train};

use super::{
    HELD_OUT, file_of, flags, go, lines, message, only_out, parsed, run, summary, weights_of,
};

/// Runs until `stop` is true for a point and the number of points of its kind so far.
pub(super) fn until(
    flags: lisa_cli::settings::Flags,
    start: Start,
    stop: impl Fn(Point, usize) -> bool + Sync,
) -> Outcome {
    let counts: [AtomicUsize; 6] = Default::default();
    let counted = |point| {
        let count = counts[point as usize].fetch_add(1, Ordering::Relaxed) + 1;
        stop(point, count)
    };
    train(flags, start, &Device::flex(), &counted).unwrap()
}

pub(super) fn checkpoints(out: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(out.join("checkpoints")) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn before_the_first_step_a_stop_leaves_nothing_to_save() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for (point, count) in [
        (Point::Prepare, 1),
        (Point::Evaluate, 1),
        (Point::Evaluate, 3),
        (Point::Generate, 2),
        (Point::Batch, 1),
        (Point::Backward, 1),
    ] {
        let stop = |at, number| at == point && number == count;
        let outcome = until(flags(&out, ""), Start::Fresh, stop);
        assert_eq!(outcome, Outcome::Stopped, "{point:?}");
        // Nothing is left, so the same command begins again.
        assert!(!out.exists(), "{point:?}");
    }
    let error = message(only_out(&out), Start::Resume);
    assert!(
        error.contains("without --resume a new run begins here"),
        "{error}"
    );
}

#[test]
fn a_stop_in_a_batch_or_in_an_evaluation_changes_nothing_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let more = "--gradient-accumulation-steps 2 --eval-every 2";
    let whole = dir.path().join("whole");
    go(flags(&whole, more), Start::Fresh, false).unwrap();
    let out = dir.path().join("out");
    // Ten rows have five batches: the eighth is of the evaluation after step 2.
    let stop = |point, count| point == Point::Evaluate && count == 8;
    let outcome = until(flags(&out, more), Start::Fresh, stop);
    assert_eq!(outcome, Outcome::Stopped);
    assert_eq!(checkpoints(&out), ["step-00000002"]);
    // Within the second batch of a step.
    let stop = |point, count| point == Point::Backward && count == 4;
    assert_eq!(until(only_out(&out), Start::Resume, stop), Outcome::Stopped);
    assert_eq!(checkpoints(&out), ["step-00000002", "step-00000003"]);
    // The last evaluation: the model is written, the summary is not.
    let stop = |point, _| point == Point::Generate;
    assert_eq!(until(only_out(&out), Start::Resume, stop), Outcome::Stopped);
    assert_eq!(weights_of(&out), weights_of(&whole));
    assert!(!out.join("summary.json").exists());
    let outcome = go(only_out(&out), Start::Resume, false).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    assert_eq!(weights_of(&out), weights_of(&whole));
    assert_eq!(lines(&out), lines(&whole));
    let (stopped, whole) = (summary(&out), summary(&whole));
    for name in ["before", "after", "best", "tokens", "steps"] {
        assert_eq!(stopped[name], whole[name], "{name}");
    }
}

#[test]
fn the_best_adapter_is_merged_into_the_base_model_and_not_into_the_last_one() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let start = "--method lora --eval-every 1 --save-every 1 --steps 12 --lr 0.03";
    go(flags(&out, start), Start::Fresh, false).unwrap();
    let adapter = |folder: &str| {
        let path = out.join(folder).join("adapter_model.safetensors");
        fs::read(path).unwrap()
    };
    let best = (weights_of(&out), adapter("adapter"));
    let worse = parsed("--steps 14 --lr 100").or(only_out(&out));
    go(worse, Start::Resume, false).unwrap();
    assert_eq!(summary(&out)["best"]["step"], 12);
    assert!(weights_of(&out) != best.0 && adapter("adapter") != best.1);
    let model = fs::read(out.join("model-best/model.safetensors")).unwrap();
    assert!(model == best.0, "the models differ");
    assert!(adapter("adapter-best") == best.1, "the adapters differ");
}

#[test]
fn the_best_checkpoint_and_its_model_outlive_a_worse_continuation() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let start = "--eval-every 1 --save-every 1 --keep 1 --steps 3";
    go(flags(&out, start), Start::Fresh, false).unwrap();
    assert_eq!(checkpoints(&out), ["step-00000003"]);
    assert!(summary(&out)["best"].is_null() && !out.join("model-best").exists());
    let best = weights_of(&out);

    // Finished runs, and fewer steps than there are.
    let before = fs::metadata(out.join("summary.json"))
        .unwrap()
        .modified()
        .unwrap();
    let outcome = go(only_out(&out), Start::Resume, false).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    let after = fs::metadata(out.join("summary.json"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(before, after);
    let fewer = parsed("--steps 2").or(only_out(&out));
    let error = message(fewer, Start::Resume);
    assert!(error.contains("would end at step 2"), "{error}");
    assert!(
        error.contains("of step 3") && error.contains("--steps 3"),
        "{error}"
    );
    assert_eq!(weights_of(&out), best);

    let worse = parsed("--steps 6 --lr 0.3").or(only_out(&out));
    go(worse, Start::Resume, false).unwrap();
    assert_eq!(checkpoints(&out), ["step-00000003", "step-00000006"]);
    assert_ne!(weights_of(&out), best);
    assert_eq!(
        fs::read(out.join("model-best/model.safetensors")).unwrap(),
        best
    );
    let summary = summary(&out);
    assert_eq!(
        (&summary["steps"], &summary["best"]["step"]),
        (&6.into(), &3.into())
    );
    let card = |folder: &str| fs::read_to_string(out.join(folder).join("README.md")).unwrap();
    assert!(
        card("model").contains("step 6 of 6: the last step"),
        "{}",
        card("model")
    );
    assert!(card("model-best").contains("step 3 of 6: the checkpoint with the lowest"));
    let state = fs::read(out.join("checkpoints/step-00000003/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    let tokens = format!("| tokens, prompts included | {} |", state["tokens"]);
    assert!(card("model-best").contains(&tokens), "{tokens}");
    assert!(!card("model").contains(&tokens), "{tokens}");
    // An export has no `model-best`.
    assert!(card("model").contains("its model is in `model-best`."));
    run(dir.path(), "export out --out copy");
    let exported = fs::read_to_string(dir.path().join("copy/README.md")).unwrap();
    let in_run = card("model");
    let (before, rest) = in_run.split_once("The checkpoint of step 3").unwrap();
    let (_, after) = rest.split_once("\n\n").unwrap();
    assert_eq!(exported, [before, after].concat());
    for part in [
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- lisa\n",
        "| base model | the bundled model |",
        "| before training |",
        "active-layers = 2",
    ] {
        assert!(card("model").contains(part), "{part}: {}", card("model"));
    }
    assert!(!card("model").contains(out.to_str().unwrap()));

    // The finished model is newer than the checkpoint that is left.
    fs::remove_dir_all(out.join("checkpoints/step-00000006")).unwrap();
    let fewer = parsed("--steps 5").or(only_out(&out));
    let error = message(fewer, Start::Resume);
    assert!(error.contains("its finished model is of step 6"), "{error}");
}

#[test]
fn the_output_folder_is_checked_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("thesis.tex"), "text").unwrap();
    for start in [Start::Fresh, Start::Overwrite] {
        let error = message(flags(&out, "--model /nowhere/at/all"), start);
        assert!(
            error.contains("`thesis.tex`") && error.contains("--out"),
            "{error}"
        );
    }
    fs::remove_file(out.join("thesis.tex")).unwrap();
    go(flags(&out, "--steps 1"), Start::Fresh, false).unwrap();
    fs::write(out.join("notes.txt"), "mine").unwrap();
    fs::create_dir_all(out.join("checkpoints/mine")).unwrap();
    // A stop after the first step of the new run: nothing of the earlier run is left.
    go(flags(&out, "--steps 3"), Start::Overwrite, true).unwrap();
    assert!(!out.join("summary.json").exists() && !out.join("model").exists());
    assert_eq!(checkpoints(&out), ["mine", "step-00000001"]);
    assert_eq!(fs::read_to_string(out.join("notes.txt")).unwrap(), "mine");
}

#[test]
fn a_moved_run_writes_where_it_is_and_reads_other_files_only_if_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<&str> = HELD_OUT.lines().take(8).collect();
    let data = file_of(dir.path(), "train.jsonl", &rows);
    let (made, moved) = (dir.path().join("made"), dir.path().join("moved"));
    let more = format!("--data {data} --eval-first=false");
    go(flags(&made, &more), Start::Fresh, true).unwrap();
    fs::rename(&made, &moved).unwrap();
    let error = message(only_out(&moved), Start::Resume);
    for part in [
        "was made in `",
        "--data ",
        "train.jsonl",
        "--allow-changed paths",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let allowed = Start::ResumeChanged(Allowed {
        paths: true,
        ..Allowed::default()
    });
    go(only_out(&moved), allowed, true).unwrap();
    assert!(!made.exists());
    assert_eq!(checkpoints(&moved), ["step-00000001", "step-00000002"]);
    // Its place is the new one from now on.
    go(only_out(&moved), Start::Resume, true).unwrap();
    assert_eq!(checkpoints(&moved).last().unwrap(), "step-00000003");
}

#[test]
fn a_run_resumes_from_any_working_directory_and_prints_lines_in_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    for folder in [&here, &there] {
        fs::create_dir(folder).unwrap();
    }
    let rows: Vec<&str> = HELD_OUT.lines().take(20).collect();
    file_of(&here, "train.jsonl", &rows);
    let lisa = |folder: &PathBuf, line: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_lisa"))
            .args(line.split(' '))
            .env("BURN_DEVICE", "flex")
            .env("XDG_CACHE_HOME", dir.path())
            .current_dir(folder)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{error}");
        // The run has data, and the bundled model.
        let mut lines = error.lines();
        let is_known = |line: &str| line.starts_with("warning: no --model is given");
        assert!(lines.all(is_known), "{error}");
        String::from_utf8(output.stdout).unwrap()
    };
    let printed = lisa(
        &here,
        "train --data train.jsonl --steps 5 --log-every 2 --batch-size 2 --out run",
    );
    let begins = |text: &str| {
        let line = printed.lines().find(|line| line.starts_with(text));
        line.unwrap_or_else(|| panic!("no line begins with `{text}`: {printed}"))
    };
    for name in [
        "model ",
        "data ",
        "method ",
        "trainable ",
        "training ",
        "evaluation ",
        "memory ",
    ] {
        begins(name);
    }
    let line = begins("step 2 of 5: loss ");
    for part in [", lr ", " tokens/s", " left"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!begins("step 5 of 5: loss ").contains("left"));
    assert!(!printed.contains("step 3 of 5"), "{printed}");
    let estimate = begins("about ");
    assert!(
        estimate.contains("for 2 more steps") && estimate.contains("on disk"),
        "{estimate}"
    );
    assert!(begins("time: ").contains("backward"));

    let run = here.join("run");
    let resumed = lisa(&there, &format!("train --resume {}", run.display()));
    assert!(
        resumed.contains("finished at step 5; give --steps M"),
        "{resumed}"
    );
    // Without a summary of the data, which is not trained on.
    assert!(!resumed.contains("training data"), "{resumed}");
    lisa(
        &there,
        &format!("train --resume {} --steps 6", run.display()),
    );
    assert_eq!(summary(&run)["steps"], 6);
    assert_eq!(fs::read_dir(&there).unwrap().count(), 0);
}
