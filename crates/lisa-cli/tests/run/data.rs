//! The files that `--data` and `--eval` name.

use std::fs;
use std::path::Path;

use lisa_cli::settings::Flags;
use lisa_cli::train::run::{Outcome, Start};
use tempfile::TempDir;

use super::{
    HELD_OUT, file_of, flags, go, go_in_parts, lines, message, only_out, parsed, refused, run,
    said, summary, weights_of,
};

fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[test]
fn data_is_a_list_of_files_on_the_command_line_and_in_a_settings_file() {
    let line = "--data a.jsonl --data b.csv,c.json --columns Title=prompt,Body=completion";
    let given = parsed(line).input;
    let names = ["a.jsonl", "b.csv", "c.json"].map(Into::into);
    assert_eq!(given.data.as_deref(), Some(&names[..]));
    let toml = |text: &str| Flags::from_toml(text, "x.toml".as_ref()).map(|flags| flags.input);
    let list =
        toml("data = ['a.jsonl', 'b.csv', 'c.json']\ncolumns = 'Title=prompt,Body=completion'");
    assert_eq!(list.unwrap(), given);
    assert_eq!(toml("data = 'a.jsonl'").unwrap().data.unwrap(), names[..1]);
    let error = format!("{:?}", toml("data = 3").unwrap_err());
    assert!(error.contains("a path or a list of paths"), "{error}");
    let error = format!("{:?}", toml("columns = 'a'").unwrap_err());
    assert!(error.contains("is not KEY=NAME"), "{error}");
}

#[test]
fn a_folder_is_trained_on_its_train_file_and_tested_on_its_valid_file() {
    let row = |text: &str| format!("{{\"Title\": \"{text}\", \"Body\": \"{text}\"}}\n");
    let train = row("red").repeat(6);
    let dir = folder(&[
        ("train.jsonl", &train),
        ("valid.jsonl", &row("blue").repeat(3)),
        // Neither read nor checked.
        ("test.jsonl", "{"),
    ]);
    let out = dir.path().join("out");
    let data = dir.path().display();
    let given = format!("--data {data} --columns Title=prompt,Body=completion");
    assert_eq!(
        go(flags(&out, &given), Start::Fresh, false).unwrap(),
        Outcome::Finished
    );
    let summary = fs::read_to_string(out.join("summary.json")).unwrap();
    assert!(summary.contains("\"data\""), "{summary}");

    // The same file by another path.
    let both = format!("{given} --eval {data}/out/../train.jsonl");
    let message = message(flags(&dir.path().join("new"), &both), Start::Fresh);
    assert!(
        message.contains("is training data and held-out data"),
        "{message}"
    );
}

#[test]
fn files_of_a_folder_in_a_format_that_is_not_read_are_listed() {
    let row = "{\"prompt\": \"a\", \"completion\": \"b\"}\n";
    let dir = folder(&[("a.jsonl", &row.repeat(4)), ("b.jsonl.bak", row)]);
    let line = "train --dry-run --no-eval --data . --out out";
    let said = said(dir.path(), line);
    let is_listed =
        |line: &str| line.starts_with("format not read: ") && line.ends_with("/b.jsonl.bak");
    assert!(said.lines().any(is_listed), "{said}");
}

#[test]
fn a_folder_to_evaluate_on_without_held_out_files_is_refused_if_it_has_tests() {
    let row = "{\"prompt\": \"a\", \"completion\": \"b\"}\n";
    let dir = folder(&[("a.jsonl", row)]);
    let both = folder(&[("train.jsonl", row), ("test.jsonl", row)]);
    let (data, both) = (dir.path().display(), both.path().display());
    let given = format!("--data {data}/a.jsonl --eval {both}");
    let error = message(flags(&dir.path().join("out"), &given), Start::Fresh);
    assert!(
        error.contains("has no held-out files, but training files and"),
        "{error}"
    );
    assert!(error.contains("test.jsonl"), "{error}");
}

#[test]
fn what_the_chat_template_leaves_out_is_said() {
    let chat = r#"{"messages": [{"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        "tools": [{"name": "add"}]}"#
        .replace('\n', "");
    let template = "{% for m in messages %}{% if m.role in ['user', 'assistant'] %}{{ m.content }} \
                    {% endif %}{% endfor %}";
    let dir = folder(&[
        ("a.jsonl", &format!("{chat}\n").repeat(4)),
        ("t.jinja", template),
    ]);
    let line = "train --data a.jsonl --chat-template t.jinja --steps 1 --no-eval --out out";
    let printed = said(dir.path(), line);
    for part in [
        "does not write the messages of developer (first in ",
        "a.jsonl:1), the tools (first in ",
        "--chat-template",
    ] {
        assert!(printed.contains(part), "{printed}");
    }
    let pairs = folder(&[(
        "a.jsonl",
        &"{\"prompt\": \"a\", \"completion\": \"b\"}\n".repeat(4),
    )]);
    let data = pairs.path().join("a.jsonl");
    let data = data.display();
    let given = format!("--data {data} --chat-template chatml --no-eval");
    let error = message(flags(&pairs.path().join("out"), &given), Start::Fresh);
    assert!(error.contains("--pairs chat"), "{error}");
}

#[test]
fn a_table_that_is_broken_as_a_whole_is_no_line_to_leave_out() {
    let dir = tempfile::tempdir().unwrap();
    let tables = [
        (
            "question,answer\nA?,x\nWhy?,\"because\nB?,y\n",
            "line 3 is not closed",
        ),
        ("text,text\n1,2\n", "has the column \"text\" twice"),
    ];
    for (table, what) in tables {
        let data = dir.path().join("a.csv");
        fs::write(&data, table).unwrap();
        let given = format!("--data {}", data.display());
        let error = message(flags(&dir.path().join("out"), &given), Start::Fresh);
        assert!(error.contains(what), "{error}");
        assert!(
            error.contains("a.csv") && !error.contains("--on-bad-line"),
            "{error}"
        );
    }
}

#[test]
fn columns_that_no_row_has_are_named() {
    let dir = folder(&[("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n")]);
    let data = dir.path().join("a.jsonl");
    let given = format!("--data {} --columns txt=text", data.display());
    let message = message(flags(&dir.path().join("out"), &given), Start::Fresh);
    assert!(message.contains("has the column `txt`"), "{message}");
}

/// The names of the files in a folder.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with("events.")).collect();
    names.sort();
    names
}

#[test]
fn rows_in_a_file_train_as_rows_in_memory_also_when_the_run_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<&str> = HELD_OUT.lines().take(40).collect();
    let data = file_of(dir.path(), "rows.jsonl", &rows);
    let [memory, file] = ["memory", "file"].map(|name| dir.path().join(name));
    for more in ["", "--pack --gradient-accumulation-steps 2"] {
        let given = |out: &Path, memory: &str| {
            let rows = format!("--data {data} --data-memory {memory} --max-seq-length 24");
            flags(out, &format!("{rows} {more}"))
        };
        let outcome = go(given(&memory, "1"), Start::Overwrite, false).unwrap();
        assert_eq!(outcome, Outcome::Finished);
        assert_eq!(go_in_parts(given(&file, "1e-9"), &file), 7);
        assert_eq!(weights_of(&memory), weights_of(&file));
        assert_eq!(lines(&memory), lines(&file));
        let scores = |out: &Path| {
            let summary = summary(out);
            ["before", "after"].map(|when| summary[when].clone())
        };
        assert_eq!(scores(&memory), scores(&file));
        // The file of the rows is gone.
        assert_eq!(names(&memory), names(&file));
    }
    // Where the rows are is no property of a run, and their file counts as space on the disk.
    let mut again = only_out(&memory);
    again.input.data_memory = Some(1e-9);
    again.training.steps = Some(8);
    assert_eq!(go(again, Start::Resume, false).unwrap(), Outcome::Finished);
}

#[test]
fn rows_in_a_file_are_said_with_their_size_and_the_flag() {
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<&str> = HELD_OUT.lines().take(40).collect();
    file_of(dir.path(), "rows.jsonl", &rows);
    let line = "train --data rows.jsonl --steps 1 --no-eval --out out --data-memory";
    let text = run(dir.path(), &format!("{line} 1e-9"));
    let start = "encoded rows: ";
    let found = text.lines().find(|line| line.starts_with(start)).unwrap();
    assert!(found.contains(" in a temporary file in `"), "{found}");
    assert!(
        found.ends_with("since they are more than 0 MiB (--data-memory)"),
        "{found}"
    );
    let text = said(dir.path(), &format!("{line} 1 --overwrite"));
    assert!(!text.contains(start), "{text}");
    let error = refused(dir.path(), &format!("{line} -1 --overwrite"));
    assert!(error.contains("--data-memory is -1"), "{error}");
}

#[test]
fn a_file_that_is_there_twice_is_warned_about_if_a_share_is_held_out() {
    let row = "{\"instruction\": \"a\", \"output\": \"b\"}\n";
    let dir = folder(&[("train.jsonl", &row.repeat(10)), ("eval.jsonl", row)]);
    let warned = |line: &str| {
        let said = said(dir.path(), &format!("train --dry-run --out r {line}"));
        said.contains("train.jsonl` is there twice, so held-out rows are also trained on")
    };
    assert!(warned("--data train.jsonl,./train.jsonl"));
    assert!(!warned("--data train.jsonl"));
    assert!(!warned("--data train.jsonl,train.jsonl --eval eval.jsonl"));
}

#[test]
fn packed_rows_that_no_two_examples_share_are_warned_about() {
    let dir = folder(&[("rows.jsonl", &"{\"text\": \"a\"}\n".repeat(6))]);
    let said = |more: &str| said(dir.path(), &format!("preview --data rows.jsonl {more}"));
    let part = "--pack has no effect: no two of 6 examples share a row of ";
    let packed = said("--pack");
    assert!(packed.contains(part), "{packed}");
    let longer = said("--pack --max-seq-length 64");
    assert!(longer.contains("  packed: 1 row of 64 tokens"), "{longer}");
    for text in [longer, said("")] {
        assert!(!text.contains("has no effect"), "{text}");
    }
}

#[test]
fn a_step_is_said_to_have_no_more_rows_than_an_epoch() {
    let dir = folder(&[("rows.jsonl", &"{\"text\": \"a\"}\n".repeat(6))]);
    let line = "train --dry-run --data rows.jsonl --no-eval --steps 1 --out r";
    for (more, expected) in [
        ("--batch-size 2", "1 step of 2 rows, 0.33 epochs"),
        (
            "--batch-size 2 --gradient-accumulation-steps 100",
            "1 step of 3 batches of 2 rows, 1 epoch",
        ),
        ("--batch-size 9", "1 step of 6 rows, 1 epoch"),
    ] {
        let text = run(dir.path(), &format!("{line} {more}"));
        let expected = format!("\ntraining    {expected};");
        assert!(text.contains(&expected), "`{expected}` is not in: {text}");
    }
}

#[test]
fn a_resumed_run_is_not_asked_for_another_model() {
    let dir = folder(&[("rows.jsonl", &"{\"text\": \"a\"}\n".repeat(6))]);
    let short = "--steps 1 --no-eval --out r";
    let first = said(dir.path(), &format!("train --data rows.jsonl {short}"));
    let second = said(dir.path(), "train --resume r --steps 2");
    let asks = [first, second].map(|text| text.contains("give yours with --model"));
    assert_eq!(asks, [true, false]);
}

#[test]
fn the_warning_about_empty_completions_does_not_blame_a_template() {
    let row = "{\"prompt\": \"a\", \"completion\": \"\"}\n";
    let dir = folder(&[("rows.jsonl", &row.repeat(3))]);
    let said = said(dir.path(), "preview --data rows.jsonl --pairs text");
    let (_, warning) = said.split_once("answers of which").unwrap();
    assert!(
        warning.starts_with(" only the end of the turn is in the loss: 3. They train the model"),
        "{warning}"
    );
}
