//! The files that `--data` and `--eval` name.

use std::fs;

use lisa_cli::settings::Flags;
use lisa_cli::train::run::{Outcome, Start};
use tempfile::TempDir;

use super::{flags, go, message, parsed};

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
    let given = parsed(&line.split(' ').collect::<Vec<_>>()).input;
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
    let data = dir.path().to_str().unwrap();
    let columns = "Title=prompt,Body=completion";
    let given = flags(&out, &["--data", data, "--columns", columns]);
    assert_eq!(go(given, Start::Fresh, false).unwrap(), Outcome::Finished);
    let summary = fs::read_to_string(out.join("summary.json")).unwrap();
    assert!(summary.contains("\"data\""), "{summary}");

    // The same file by another path.
    let train = dir.path().join("out/../train.jsonl");
    let both = [
        "--data",
        data,
        "--columns",
        columns,
        "--eval",
        train.to_str().unwrap(),
    ];
    let message = message(flags(&dir.path().join("new"), &both), Start::Fresh);
    assert!(
        message.contains("is training data and held-out data"),
        "{message}"
    );
}

#[test]
fn columns_that_no_row_has_are_named() {
    let dir = folder(&[("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n")]);
    let data = dir.path().join("a.jsonl");
    let given = ["--data", data.to_str().unwrap(), "--columns", "txt=text"];
    let message = message(flags(&dir.path().join("out"), &given), Start::Fresh);
    assert!(message.contains("has the column `txt`"), "{message}");
}
