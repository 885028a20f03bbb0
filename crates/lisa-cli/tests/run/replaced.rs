//! What takes the place of what in an output folder.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use lisa_cli::commands::Program;
use lisa_cli::lock::Lock;
use lisa_cli::terminal::interrupt::Point;
use lisa_cli::terminal::report::report;
use lisa_cli::train::run::{Allowed, Outcome, Start};

use super::watched::{checkpoints, until};
use super::{
    HELD_OUT, copy_model, file_of, flags, go, lines, message, only_out, parsed, run, summary,
    weights_of,
};

/// The files below a folder, with their bytes.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

fn export(run: &Path, out: &Path, more: &str) -> Result<Vec<u8>, String> {
    let (run, to) = (run.display(), out.display());
    let line = format!("lisa export {run} --overwrite --out {to} {more}");
    let program = Program::try_parse_from(line.split_whitespace());
    let done = program.unwrap().run();
    let said = |error| anstream::adapter::strip_str(&report(&error)).to_string();
    done.map_err(said)?;
    Ok(fs::read(out.join("model.safetensors")).unwrap())
}

#[test]
fn a_run_does_not_replace_the_folder_of_files_that_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    go(flags(&out, "--steps 1 --no-eval"), Start::Fresh, false).unwrap();
    let rows: Vec<&str> = HELD_OUT.lines().take(4).collect();
    let data = file_of(&out, "data.jsonl", &rows);
    let template = file_of(&out, "own.jinja", &["{{ messages[0].content }}"]);
    let model = out.join("model").to_str().unwrap().to_owned();
    let before = files(&out);
    for (name, path, more) in [
        ("model", &model, ""),
        ("data", &data, ""),
        ("eval", &data, ""),
        ("importance", &data, "--policy weighted"),
        ("chat-template", &template, ""),
    ] {
        let more = format!("--{name} {path} {more}");
        let error = message(flags(&out, &more), Start::Overwrite);
        for part in [
            "--overwrite replaces the run in `",
            &format!("and --{name} `"),
            "give another folder with --out",
        ] {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }
    assert!(files(&out) == before);
}

#[test]
fn a_folder_with_files_of_another_program_is_no_run() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    fs::create_dir_all(out.join("model")).unwrap();
    file_of(&out, "metrics.jsonl", &[r#"{"step": 1, "loss": 2.5}"#]);
    file_of(&out, "summary.json", &[r#"{"steps": 1}"#]);
    file_of(&out, "model/config.json", &["{}"]);
    let before = files(&out);
    for start in [Start::Fresh, Start::Overwrite] {
        let error = message(flags(&out, ""), start);
        assert!(error.contains("files that are not of a run"), "{error}");
    }
    assert!(files(&out) == before);
    // In the folder of a run, a model of others is not replaced.
    let out = dir.path().join("run");
    go(flags(&out, ""), Start::Fresh, true).unwrap();
    fs::create_dir(out.join("model")).unwrap();
    file_of(&out, "model/config.json", &["{}"]);
    for start in [Start::Resume, Start::Overwrite] {
        let error = message(flags(&out, ""), start);
        assert!(error.contains("model` is not of a run"), "{error}");
    }
}

#[test]
fn an_earlier_run_stays_until_the_new_one_has_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let first = "--steps 2 --save-every 1";
    go(flags(&out, first), Start::Fresh, false).unwrap();
    let before = files(&out);
    for point in [Point::Evaluate, Point::Batch, Point::Backward] {
        let stop = |at, _| at == point;
        let outcome = until(flags(&out, ""), Start::Overwrite, stop);
        assert_eq!(outcome, Outcome::Stopped);
        assert!(files(&out) == before, "{point:?}");
    }
    // An error after the first step.
    let error = message(flags(&out, "--lr 1e39 --no-eval"), Start::Overwrite);
    assert!(error.contains("are not finite"), "{error}");
    assert!(files(&out) == before);
    // A run that is going on in the same folder.
    let lock = Lock::of(&out).unwrap();
    for start in [Start::Fresh, Start::Overwrite, Start::Resume] {
        let error = message(flags(&out, ""), start);
        assert!(error.contains("another command writes into"), "{error}");
    }
    drop(lock);
    assert!(files(&out) == before);
    // The new one has a checkpoint.
    go(flags(&out, ""), Start::Overwrite, true).unwrap();
    assert_eq!(checkpoints(&out), ["step-00000001"]);
    assert!(!out.join("model").exists() && !out.join(".lisa-earlier-run").exists());
}

#[test]
fn the_first_checkpoint_of_a_new_run_says_that_the_earlier_one_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let part = "/out is removed\n";
    let said = |more: &str| {
        let line = format!("train --steps 2 --no-eval --save-every 1 --out out {more}");
        run(dir.path(), &line).matches(part).count()
    };
    assert_eq!([said(""), said("--overwrite")], [0, 1]);
}

#[cfg(unix)]
#[test]
fn a_run_that_was_killed_gives_the_earlier_one_back() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let killed = |how: &str| {
        let line = "train --steps 100000 --save-every 0 --no-eval --log-every 1 --out out";
        let mut child = Command::new(env!("CARGO_BIN_EXE_lisa"))
            .args(line.split(' '))
            .args(Some(how).filter(|how| !how.is_empty()))
            .env("BURN_DEVICE", "flex")
            .env("XDG_CACHE_HOME", dir.path())
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().starts_with("step 2 of")));
        child.kill().unwrap();
        child.wait().unwrap();
    };
    // Without an earlier run there is nothing to lose: the same command begins again.
    killed("");
    assert!(out.join("metrics.jsonl").is_file());
    killed("");
    let short = "--steps 2 --no-eval";
    go(flags(&out, short), Start::Fresh, false).unwrap();
    let before = files(&out);
    killed("--overwrite");
    assert!(!out.join("model").exists());
    let outcome = go(only_out(&out), Start::Resume, false).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    assert!(files(&out) == before);
    // As it is for a command that does not replace it.
    killed("--overwrite");
    let error = message(flags(&out, short), Start::Fresh);
    assert!(error.contains("contains a run already"), "{error}");
    assert!(files(&out) == before);
}

#[test]
fn the_step_of_a_model_is_its_own_and_not_that_of_the_summary() {
    let dir = tempfile::tempdir().unwrap();
    let (out, copy) = (dir.path().join("out"), dir.path().join("copy"));
    go(flags(&out, "--steps 2"), Start::Fresh, false).unwrap();
    let two = weights_of(&out);
    // A run to step 3 that ends after it has written the model: the summary is of step 2.
    let stop = |point, _| point == Point::Generate;
    let more = || parsed("--steps 3").or(only_out(&out));
    assert_eq!(until(more(), Start::Resume, stop), Outcome::Stopped);
    assert_eq!(summary(&out)["steps"], 2);
    let three = weights_of(&out);
    assert!(two != three);
    assert!(export(&out, &copy, "--step 2").unwrap() == two);
    assert!(export(&out, &copy, "--step 3").unwrap() == three);
    assert!(export(&out, &copy, "").unwrap() == three);
    go(only_out(&out), Start::Resume, false).unwrap();
    assert_eq!(summary(&out)["steps"], 3);
}

#[test]
fn a_model_that_was_removed_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let more = "--eval-every 1 --save-every 1 --steps 2";
    go(flags(&out, more), Start::Fresh, false).unwrap();
    let worse = parsed("--steps 4 --lr 0.3").or(only_out(&out));
    go(worse, Start::Resume, false).unwrap();
    let last = weights_of(&out);
    let best = || fs::read(out.join("model-best/model.safetensors")).unwrap();
    let was_best = best();
    for name in ["model", "model-best", "summary.json"] {
        let path = out.join(name);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        let outcome = go(only_out(&out), Start::Resume, false).unwrap();
        assert_eq!(outcome, Outcome::Finished);
        assert!(weights_of(&out) == last && best() == was_best, "{name}");
        assert_eq!(summary(&out)["steps"], 4);
    }
}

#[test]
fn a_checkpoint_is_exported_with_the_base_model_that_it_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let (base, moved) = (dir.path().join("base"), dir.path().join("moved"));
    let (out, copy) = (dir.path().join("out"), dir.path().join("copy"));
    copy_model(&base);
    let template = "{% for m in messages %}{{ m.role + ':' + m.content + eos_token }}{% endfor %}";
    fs::write(base.join("chat_template.jinja"), template).unwrap();
    let model = format!("--model {}", base.display());
    let more = format!("{model} --no-eval --dtype f32");
    go(flags(&out, &more), Start::Fresh, true).unwrap();
    let exported = export(&out, &copy, "").unwrap();
    // Another configuration, with which the tensors load as well.
    let config = fs::read_to_string(base.join("config.json")).unwrap();
    let other = config.replacen("\"rms_norm_eps\": 1e-", "\"rms_norm_eps\": 2e-", 1);
    assert_ne!(config, other);
    fs::write(base.join("config.json"), other).unwrap();
    let error = export(&out, &copy, "").unwrap_err();
    for part in [
        "since the run began, this has changed in `",
        "the configuration of the model",
        "--allow-changed model",
    ] {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    assert!(export(&out, &copy, "--allow-changed model").unwrap() == exported);
    // The weights of the base model are not read: the checkpoint has all of them.
    let header = r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let size = (header.len() as u64).to_le_bytes();
    let unrelated = [&size[..], header.as_bytes(), &[0; 4]].concat();
    let weights = fs::read(base.join("model.safetensors")).unwrap();
    fs::write(base.join("model.safetensors"), unrelated).unwrap();
    assert!(export(&out, &copy, "--allow-changed model").unwrap() == exported);
    fs::write(base.join("model.safetensors"), weights).unwrap();
    // The base model itself is not replaced.
    let error = export(&out, &base, "--allow-changed model").unwrap_err();
    assert!(error.contains("is the base model"), "{error}");

    fs::write(base.join("config.json"), config).unwrap();
    fs::rename(&out, &moved).unwrap();
    let error = export(&moved, &copy, "").unwrap_err();
    assert!(error.contains("was made in `"), "{error}");
    assert!(
        error.contains("--model ") && error.contains("--allow-changed paths"),
        "{error}"
    );
    for more in ["--allow-changed paths", &model] {
        assert!(export(&moved, &copy, more).unwrap() == exported, "{more}");
    }
}

#[test]
fn losses_of_other_held_out_rows_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let rows: Vec<&str> = HELD_OUT.lines().collect();
    let held_out = file_of(dir.path(), "held.jsonl", &rows[..4]);
    let more = format!("--eval {held_out} --eval-every 1 --save-every 1 --steps 2");
    go(flags(&out, &more), Start::Fresh, false).unwrap();
    assert!(!summary(&out)["before"].is_null());
    let other = file_of(dir.path(), "held.jsonl", &rows[4..9]);
    assert_eq!(other, held_out);
    // Steps that make the model worse, so that step 2 would be the best one.
    let worse = || parsed("--steps 4 --lr 0.3").or(only_out(&out));
    assert!(message(worse(), Start::Resume).contains("the held-out data"));
    let allowed = Start::ResumeChanged(Allowed {
        data: true,
        ..Allowed::default()
    });
    go(worse(), allowed, false).unwrap();
    let summary = summary(&out);
    assert!(summary["before"].is_null(), "{}", summary["before"]);
    let evaluated: Vec<u64> = lines(&out)
        .iter()
        .filter(|line| line.held_out_loss.is_some())
        .map(|line| line.step)
        .collect();
    // Step 2 is evaluated on the new rows, and it is the best by their loss.
    assert_eq!(evaluated, [2, 3, 4]);
    let lines = lines(&out);
    let two = lines
        .iter()
        .find(|line| line.step == 2 && line.loss.is_none());
    assert_eq!(summary["best"]["step"], 2);
    assert_eq!(
        summary["best"]["held_out_loss"],
        two.unwrap().held_out_loss.unwrap()
    );
}

#[test]
fn a_checkpoint_without_its_state_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (out, copy) = (dir.path().join("out"), dir.path().join("copy"));
    let more = "--save-every 1 --no-eval --steps 2";
    go(flags(&out, more), Start::Fresh, false).unwrap();
    let state = |step: u64| out.join(format!("checkpoints/step-{step:08}/state.json"));
    let goes_on = || parsed("--steps 3").or(only_out(&out));
    for damaged in [false, true] {
        if damaged {
            fs::write(state(2), "{").unwrap();
        } else {
            fs::remove_file(state(2)).unwrap();
        }
        fs::remove_dir_all(out.join("model")).unwrap_or_default();
        for error in [
            message(goes_on(), Start::Resume),
            export(&out, &copy, "").unwrap_err(),
        ] {
            for part in [
                "step-00000002` cannot be used",
                "state.json`",
                "continues from the checkpoint of step 1",
            ] {
                assert!(error.contains(part), "`{part}` is not in: {error}");
            }
        }
    }
    fs::remove_dir_all(state(1).parent().unwrap()).unwrap();
    let error = message(goes_on(), Start::Resume);
    assert!(error.contains("begin again with --overwrite"), "{error}");
}

#[test]
fn settings_of_a_resumed_run_are_checked_with_those_of_its_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    go(flags(&out, "--recompute --no-eval"), Start::Fresh, true).unwrap();
    for more in ["--sublayers", "--update-in-backward --max-grad-norm 0"] {
        let outcome = go(parsed(more).or(only_out(&out)), Start::Resume, true).unwrap();
        assert_eq!(outcome, Outcome::Stopped, "{more}");
    }
    assert_eq!(checkpoints(&out).last().unwrap(), "step-00000003");
    let without = parsed("--recompute 0").or(only_out(&out));
    let error = message(without, Start::Resume);
    assert!(error.contains("without recomputation"), "{error}");
}
