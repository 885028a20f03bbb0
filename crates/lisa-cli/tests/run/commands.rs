//! The program as a process: its output, its errors and Ctrl-C.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use burn::tensor::Device;
use lisa_cli::bundled;
use lisa_lm::ModelConfig;
use lisa_lm::checkpoint::{SaveOptions, save};

use super::{refused, run};

/// The program with these arguments, on flex, with a cache of its own.
pub(super) fn lisa(cache: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lisa"));
    command
        .args(arguments)
        .env("BURN_DEVICE", "flex")
        .env("XDG_CACHE_HOME", cache)
        .current_dir(cache);
    command
}

pub(super) fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn errors_have_a_line_for_message_place_and_help_and_no_colours_in_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.jsonl");
    fs::write(&bad, "{\"text\": \"fine\"}\n{\"txt\": 1}\n").unwrap();
    let text = refused(dir.path(), &format!("train --data {}", bad.display()));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("error: the keys are"), "{text}");
    assert_eq!(lines[1], format!("  --> {}:2", bad.display()));
    assert!(lines.last().unwrap().starts_with("  help: "), "{text}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn a_demo_of_a_few_steps_is_exported_and_generates() {
    let dir = tempfile::tempdir().unwrap();
    let run = |line: &str| run(dir.path(), line);
    let demo = "train --steps 2 --eval-examples 0 --eval-every 0 --save-every 1";
    let printed = run(demo);
    assert!(
        printed.contains("the bundled model") && printed.contains("lisa demo"),
        "{printed}"
    );
    let written = dir.path().join("runs/lisa/model/model.safetensors");

    // The finished model as it is, and in half the bytes.
    run("export runs/lisa --out copy");
    let bytes = fs::read(dir.path().join("copy/model.safetensors")).unwrap();
    assert!(bytes == fs::read(&written).unwrap());
    assert!(dir.path().join("copy/tokenizer.json").is_file());
    run("export runs/lisa --out half --dtype bf16");
    let half = fs::metadata(dir.path().join("half/model.safetensors"))
        .unwrap()
        .len();
    assert!(half < 6 * bytes.len() as u64 / 10);
    // A folder with a model is not replaced, and a step without a checkpoint is named.
    let found = refused(dir.path(), "export runs/lisa --out copy");
    assert!(found.contains("--overwrite"), "{found}");
    run("export runs/lisa --out copy --overwrite --step 1");
    assert!(bytes != fs::read(dir.path().join("copy/model.safetensors")).unwrap());
    let found = refused(dir.path(), "export runs/lisa --out x --step 7");
    assert!(found.contains("checkpoints of steps 1"), "{found}");

    let answer = run("generate --model copy --chat colour --max-new-tokens 3");
    assert!(!answer.trim().is_empty());
    assert!(run("show --model copy").contains("8 of"));
}

/// A folder with a model of 24 layers and 11 M parameters, which has the bundled tokenizer.
pub(super) fn of_studied_size(folder: &Path) {
    let mut config: serde_json::Value = serde_json::from_str(bundled::CONFIG).unwrap();
    for (key, value) in [
        ("hidden_size", 192),
        ("intermediate_size", 512),
        ("num_hidden_layers", 24),
        ("num_attention_heads", 6),
        ("num_key_value_heads", 6),
        ("head_dim", 32),
    ] {
        config[key] = value.into();
    }
    let model = ModelConfig::from_json(&config.to_string()).unwrap();
    let model = model.init(&Device::flex()).unwrap();
    let tokenizer = fs::read(bundled::model().unwrap().join("tokenizer.json")).unwrap();
    let options = SaveOptions {
        files: &[("tokenizer.json".to_owned(), tokenizer)],
        ..SaveOptions::default()
    };
    save(&model, folder, &options).unwrap();
}

#[test]
fn commands_print_what_they_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let run = |line: &str| run(dir.path(), line);
    let plan = run("plan --memory 0.001");
    assert!(
        plan.contains("--method lisa") && plan.contains("does not fit"),
        "{plan}"
    );
    assert_eq!(plan.matches(": does not fit").count(), 12, "{plan}");
    let plan = run("plan --device cpu --memory 0.03 --max-seq-length 128");
    let limits = plan.split("what fits into 31 MiB").nth(1).unwrap();
    let line = limits
        .lines()
        .find(|line| line.contains("--method lisa --recompute --update-in-backward"))
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let (tokens, rows): (usize, usize) = (words[0].parse().unwrap(), words[1].parse().unwrap());
    // More rows of half the length fit than one of the whole length, which the model ends at.
    assert!(tokens == 256 && rows > 1, "{plan}");
    // No more rows than a run has.
    let flags = format!("--batch-size {} --max-seq-length 128", rows.min(8));
    assert!(line.ends_with(&flags), "{plan}");
    let show = run("show");
    for part in [
        "llama",
        "1509504",
        "8 of",
        "tied",
        "1024 tokens",
        "2 of 8 layers",
    ] {
        assert!(show.contains(part), "`{part}` is not in: {show}");
    }
    let preview = run("preview --row 2");
    assert!(
        preview.starts_with("row 2 of 1200 (") && preview.contains('['),
        "{preview}"
    );
    assert!(preview.contains("training data: 1200 rows, "), "{preview}");
    assert!(run("completions bash").contains("complete"));
}

#[test]
fn a_resumed_run_says_what_changed_and_a_run_without_checkpoints_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let line = "train --steps 1 --lr 1e-3 --save-every 0 --eval-rows 2 --eval-examples 0 --out r";
    let begun = run(dir.path(), line);
    assert!(
        begun.contains("a checkpoint at the end only, none of the best step"),
        "{begun}"
    );
    let line = "train --resume r --steps 2 --lr 5e-4 --eval-every 1";
    let resumed = run(dir.path(), line);
    let changes: Vec<&str> = resumed
        .lines()
        .filter_map(|line| line.strip_prefix("  changed: "))
        .collect();
    assert_eq!(
        changes,
        [
            "eval-every 1, was 200",
            "lr 5e-4, was 0.001",
            "steps 2, was 1"
        ]
    );
}

#[test]
fn commands_without_a_device_ignore_an_unknown_one() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["completions", "bash"][..], &["preview"]] {
        let mut command = lisa(dir.path(), arguments);
        let output = command.env("BURN_DEVICE", "nonsense").output().unwrap();
        assert!(!text(&output).is_empty());
    }
}

#[test]
fn an_unknown_device_is_an_error_and_devices_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["show", "plan", "devices", "demo"] {
        let mut command = lisa(dir.path(), &[command]);
        let output = command.env("BURN_DEVICE", "nonsense").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            text.starts_with("error: BURN_DEVICE is `nonsense`, which is no backend\n  help: "),
            "{text}"
        );
    }
    let listed = run(dir.path(), "devices");
    assert!(
        listed.contains("flex ") && listed.contains("(used by `lisa train`)"),
        "{listed}"
    );
    assert!(listed.contains("CPU thread"), "{listed}");
}

#[test]
fn without_evaluation_all_rows_are_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let rows = (0..20).map(|i| format!("{{\"text\": \"the number {i}\"}}\n"));
    std::fs::write(dir.path().join("data.jsonl"), rows.collect::<String>()).unwrap();
    for (more, expected) in [
        ("", "18 rows to train on, 2 held out"),
        (" --no-eval", "20 rows to train on, 0 held out"),
        (
            " --no-eval --eval-fraction 0.2",
            "16 rows to train on, 4 held out",
        ),
    ] {
        let line = format!("train --data data.jsonl --dry-run{more}");
        let said = run(dir.path(), &line);
        assert!(said.contains(expected), "{more}: {said}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    for line in [
        "show",
        "preview",
        "plan",
        "completions bash",
        "train --dry-run",
        "generate --prompt red --max-new-tokens 1",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = lisa(dir.path(), &arguments);
        let output = command.stdout(writer).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        assert!(output.stderr.is_empty(), "{line}: {output:?}");
    }
}
