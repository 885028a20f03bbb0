//! `lisa evaluate`.

use std::fs;
use std::path::Path;

use burn::tensor::{Device, FloatDType};
use clap::Parser;
use lisa_cli::bundled;
use lisa_cli::commands::{Command, Program, evaluate};
use lisa_cli::terminal::report::report;
use lisa_cli::train::evaluation::result::Evaluation;
use lisa_cli::train::run::Start;
use lisa_lm::Checkpoint;
use lisa_lm::checkpoint::{SaveOptions, save};

use super::{HELD_OUT, file_of, flags, go, output, printed, run, summary};

/// What `lisa evaluate` finds with these arguments.
fn evaluated(arguments: &str) -> anyhow::Result<Evaluation> {
    let line = ["lisa", "evaluate"].into_iter();
    let line = line.chain(arguments.split_whitespace());
    match Program::try_parse_from(line).unwrap().command {
        Some(Command::Evaluate(options)) => evaluate::evaluate(&options, &Device::flex()),
        _ => unreachable!(),
    }
}

/// The error of these arguments as the program prints it.
fn refused(arguments: &str) -> String {
    let report = report(&evaluated(arguments).unwrap_err());
    anstream::adapter::strip_str(&report).to_string()
}

/// The bundled model with its weights as bf16.
fn in_bf16(folder: &Path) -> String {
    let from = bundled::model().unwrap();
    let checkpoint = Checkpoint::open(&from).unwrap();
    let model = checkpoint
        .load(&Device::flex(), Some(FloatDType::BF16))
        .unwrap();
    let files = ["tokenizer.json", "tokenizer_config.json"]
        .map(|name| (name.to_owned(), fs::read(from.join(name)).unwrap()));
    let options = SaveOptions {
        files: &files,
        ..SaveOptions::default()
    };
    save(&model, folder, &options).unwrap();
    folder.to_str().unwrap().to_owned()
}

#[test]
fn the_loss_and_the_answers_are_those_that_a_run_has_before_training() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut rows: Vec<String> = HELD_OUT.lines().take(20).map(str::to_owned).collect();
    // One that is cut, and one without a trained token.
    let long = "a ring and ".repeat(30);
    rows.push(format!(
        r#"{{"prompt": "Say it.", "completion": "{long}"}}"#
    ));
    rows.push(format!(r#"{{"prompt": "{long}", "completion": "no"}}"#));
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let file = file_of(dir.path(), "held.jsonl", &rows);
    let half = in_bf16(&dir.path().join("half"));
    for model in ["--dtype f32", "--dtype bf16", &format!("--model {half}")] {
        let before = format!("--eval {file} --eval-rows 0 --eval-first --steps 1");
        // The data of the run is not that which is evaluated.
        let train = file_of(dir.path(), "train.jsonl", &rows[..4]);
        let more = format!("{before} --data {train} --eval-examples 5 {model}");
        go(flags(&out, &more), Start::Overwrite, false).unwrap();
        let before = summary(&out)["before"].clone();

        let same = "--batch-size 2 --max-seq-length 48 --eval-examples 5 --max-new-tokens 3";
        let found = evaluated(&format!("--data {file} {same} {model}")).unwrap();
        let loss = before["loss"].as_f64().unwrap();
        assert!(
            (found.loss - loss).abs() < 1e-6,
            "{model}: {found:?}, {before}"
        );
        assert_eq!((before["rows"].as_u64(), found.rows), (Some(21), 21));
        let answers = serde_json::to_value(found.answers).unwrap();
        assert_eq!(answers, before["answers"], "{model}");
        assert_eq!(answers["asked"], 5);
        let samples = serde_json::to_value(&found.samples).unwrap();
        assert_eq!(samples, before["samples"], "{model}");
    }
    // In batches of another size, and without answers.
    let line = format!("--data {file} --max-seq-length 48");
    let found = evaluated(&line).unwrap();
    let same = evaluated(&format!("{line} --batch-size 3")).unwrap();
    assert!((found.loss - same.loss).abs() < 1e-4, "{found:?}");
    assert!(found.answers.is_none() && found.samples.is_empty());
}

#[test]
fn the_data_and_the_loss_are_printed_and_rows_above_the_models_limit_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let long = "ring ".repeat(400);
    let long = format!(r#"{{"prompt": "Say it.", "completion": "{long}"}}"#);
    let mut rows: Vec<&str> = HELD_OUT.lines().take(4).collect();
    rows.push(&long);
    file_of(dir.path(), "held.jsonl", &rows);
    let names = || {
        let entries = fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    // The bundled model is unpacked into the folder before.
    run(dir.path(), "show");
    let before = names();
    let line = "evaluate --data held.jsonl --eval-examples 2 --max-new-tokens 2";
    let (said, warnings) = printed(dir.path(), line);
    for part in [
        "held-out data: 5 rows, ",
        "cut: 1 row at 256 tokens (--max-seq-length), ",
        "evaluating 5 held-out rows, generating 2 answers\n",
        " trained tokens: loss ",
        ", perplexity ",
        ", 5 rows, exact match ",
        "\n  prompt:    ",
    ] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
    assert!(!said.contains("training data"), "{said}");
    assert!(
        warnings.contains("held-out data: 1 of 5 rows (20.0 %) is cut at 256 tokens"),
        "{warnings}"
    );
    assert!(warnings.contains("no --model is given"), "{warnings}");
    // No file is left.
    assert_eq!(names(), before);

    // Of a folder, the held-out files.
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    file_of(&folder, "train.jsonl", &rows[..3]);
    file_of(&folder, "valid.jsonl", &rows[3..4]);
    file_of(&folder, "notes.txt", &["a"]);
    let said = run(dir.path(), "evaluate --data folder");
    assert!(said.contains("held-out data: 1 row, "), "{said}");
    assert!(said.contains("not read: folder/train.jsonl"), "{said}");
    assert!(said.contains("format not read: folder/notes.txt"), "{said}");
}

#[test]
fn a_folder_without_training_data_is_evaluated() {
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<&str> = HELD_OUT.lines().take(6).collect();
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let data = folder.to_str().unwrap();
    let test = file_of(&folder, "test.jsonl", &rows[..2]);
    let found = evaluated(&format!("--data {data}")).unwrap();
    let same = evaluated(&format!("--data {test}")).unwrap();
    assert_eq!((found.rows, found.loss), (2, same.loss));
    let valid = file_of(&folder, "valid.jsonl", &rows[2..]);
    let found = evaluated(&format!("--data {data}")).unwrap();
    let same = evaluated(&format!("--data {valid}")).unwrap();
    assert_eq!((found.rows, found.loss), (4, same.loss));
}

#[test]
fn a_model_is_evaluated_with_an_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let line = "train --method lora --lora-rank 4 --steps 4 --lr 1e-2 --no-eval --out r";
    run(dir.path(), line);
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let rows: Vec<&str> = HELD_OUT.lines().take(6).collect();
    let data = file_of(dir.path(), "held.jsonl", &rows);
    let loss = |more: &str| {
        let found = evaluated(&format!("--data {data} {more}"));
        found.unwrap().loss
    };
    let (adapter, merged) = (path("r/adapter"), path("r/model"));
    let (base, merged) = (loss(""), loss(&format!("--model {merged}")));
    assert!((base - merged).abs() > 1e-3, "{base} {merged}");
    let found = loss(&format!("--adapter {adapter}"));
    assert!((found - merged).abs() < 1e-4, "{found} {merged}");
    // With the settings of a run with another method.
    let other = "method = \"lisa\"\nlora-rank = 8\nquantize = \"int8\"\n";
    fs::write(dir.path().join("other.toml"), other).unwrap();
    let other = path("other.toml");
    let found = loss(&format!("--config {other} --adapter {adapter}"));
    assert!((found - merged).abs() < 1e-4, "{found} {merged}");
    // Named in the file.
    let file = format!("adapter = \"{adapter}\"\n");
    fs::write(dir.path().join("adapter.toml"), file).unwrap();
    let found = loss(&format!("--config {}", path("adapter.toml")));
    assert!((found - merged).abs() < 1e-4, "{found} {merged}");

    for (name, part) in [
        ("nowhere", "there is no folder"),
        ("r", "which is the folder of a run"),
    ] {
        let wrong = path(name);
        let error = refused(&format!("--data {data} --adapter {wrong}"));
        assert!(error.contains(part), "{error}");
        fs::write(
            dir.path().join("wrong.toml"),
            format!("adapter = \"{wrong}\"\n"),
        )
        .unwrap();
        let file = path("wrong.toml");
        let error = refused(&format!("--data {data} --config {file}"));
        assert!(
            error.contains(part) && error.contains("wrong.toml:1"),
            "{error}"
        );
    }
}

#[test]
fn a_file_of_settings_is_that_of_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<&str> = HELD_OUT.lines().take(4).collect();
    for (name, rows) in [("train.jsonl", &rows[..2]), ("held.jsonl", &rows[2..])] {
        file_of(dir.path(), name, rows);
    }
    let settings = "data = \"train.jsonl\"\neval = \"held.jsonl\"\nno-eval = false\npack = true\n\
                    eval-rows = 1\nmethod = \"lora\"\nmetric = \"contains\"\nlr = 1e-3\n";
    fs::write(dir.path().join("run.toml"), settings).unwrap();
    let run = |line: &str| printed(dir.path(), line);
    let loss = |said: &str| {
        let (_, rest) = said.split_once(" trained tokens: loss ").unwrap();
        rest.split_once(',').unwrap().0.to_owned()
    };
    let (said, warnings) = run("evaluate --config run.toml");
    assert!(said.contains("held-out data: 2 rows, "), "{said}");
    assert!(
        warnings.contains("the `data` of run.toml is evaluated, not its `eval`"),
        "{warnings}"
    );
    let (other, warnings) = run("evaluate --config run.toml --data held.jsonl");
    assert!(!warnings.contains("is evaluated, not"), "{warnings}");
    assert_ne!(loss(&said), loss(&other));
    let (same, _) = run("evaluate --data held.jsonl");
    assert_eq!(loss(&other), loss(&same));

    let share = "data = \"train.jsonl\"\neval-fraction = 0.5\n";
    fs::write(dir.path().join("share.toml"), share).unwrap();
    let (all, warnings) = run("evaluate --config share.toml");
    assert_eq!(loss(&all), loss(&said));
    assert!(
        warnings.contains("not the share of it that its `eval-fraction` holds out"),
        "{warnings}"
    );
}

#[test]
fn what_cannot_be_evaluated_is_an_error_that_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let good = file_of(
        dir.path(),
        "good.jsonl",
        &[r#"{"prompt": "a", "completion": "b"}"#; 3],
    );
    let texts = file_of(dir.path(), "texts.jsonl", &[r#"{"text": "a red ring"}"#]);
    let empty = file_of(dir.path(), "empty.jsonl", &[]);
    let bad = file_of(dir.path(), "bad.jsonl", &[r#"{"text": "a"}"#, "{"]);
    let missing = dir.path().join("missing.jsonl");
    let adapter = dir.path().join("adapter");
    fs::create_dir(&adapter).unwrap();
    fs::write(adapter.join("adapter_config.json"), "{}").unwrap();
    let adapter = adapter.display();
    let good = format!("--data {good}");
    for (line, parts) in [
        (String::new(), &["no data is given", "--data"][..]),
        (format!("--data {empty}"), &["has no example"]),
        (format!("--data {}", missing.display()), &["missing.jsonl"]),
        (
            format!("--data {bad}"),
            &["not JSON", "bad.jsonl:2", "--on-bad-line skip"],
        ),
        (
            format!("{good} --eval-fraction 0.2"),
            &[
                "--eval-fraction has no effect with `lisa evaluate`",
                "with --data",
            ],
        ),
        (
            format!("{good} --eval {texts}"),
            &["--eval has no effect with `lisa evaluate`"],
        ),
        (
            format!("{good} --metric contains"),
            &["--metric has no effect with --eval-examples 0"],
        ),
        (
            format!("--data {texts} --eval-examples 2"),
            &["--eval-examples has no effect with held-out data without answers"],
        ),
        (
            format!("{good} --max-seq-length 9000"),
            &["the model has 256 positions"],
        ),
        (format!("{good} --batch-size 0"), &["--batch-size is 0"]),
    ] {
        let error = refused(&line);
        for part in parts {
            assert!(error.contains(part), "{line}: `{part}` is not in: {error}");
        }
    }
    let skipped = evaluated(&format!("--data {bad} --on-bad-line skip")).unwrap();
    assert_eq!(skipped.rows, 1);
    // As `lisa generate` says it.
    let line = format!("generate --prompt a --model {adapter}");
    let generate = super::refused(dir.path(), &line);
    assert_eq!(refused(&format!("{good} --model {adapter}")), generate);
    let unknown = output(dir.path(), &format!("evaluate {good} --lr 1"));
    assert_eq!(unknown.status.code(), Some(2));
}
