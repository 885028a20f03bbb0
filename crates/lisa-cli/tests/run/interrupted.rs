//! Ctrl-C.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use super::commands::lisa;

#[test]
fn ctrl_c_saves_and_says_how_to_continue() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = "train --steps 100000 --eval-examples 1 --log-every 1 --out out";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let mut child = lisa(dir.path(), &arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("step 2 of") {
        line.clear();
        assert!(
            output.read_line(&mut line).unwrap() > 0,
            "it ended before it trained"
        );
    }
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(
        rest.contains("Continue with: lisa train --resume --out"),
        "{rest}"
    );
    assert_eq!(
        fs::read_dir(dir.path().join("out/checkpoints"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn ctrl_c_while_the_data_is_read_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let row = "{\"prompt\": \"Name the colour.\", \"completion\": \"Blue.\"}\n";
    fs::write(dir.path().join("rows.jsonl"), row.repeat(300_000)).unwrap();
    let arguments = "train --data rows.jsonl --pairs text --out runs/new";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let mut child = lisa(dir.path(), &arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lock = dir.path().join("runs/new/.lisa-lock");
    while !lock.exists() {
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::yield_now();
    }
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{errors}");
    assert!(errors.contains("stopped before training"), "{errors}");
    assert!(!dir.path().join("runs").exists());
}

/// Ctrl-C in the evaluation of all rows, after the model is written.
#[test]
fn ctrl_c_in_the_last_evaluation_says_where_the_model_is() {
    let dir = tempfile::tempdir().unwrap();
    let rows = include_str!("../../data/train.jsonl").repeat(3);
    fs::write(dir.path().join("rows.jsonl"), rows).unwrap();
    let arguments = "train --steps 1 --eval-rows 4 --eval-examples 0 --final-eval-all --batch-size 1 \
                     --eval rows.jsonl --out out";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let mut child = lisa(dir.path(), &arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("after: ") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0);
    }
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(sent.success());
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let mut error = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut error)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}{error}");
    assert!(
        error.contains("stopping after the current batch, token or step"),
        "{error}"
    );
    assert!(
        rest.contains("stopped after the last step, 1, in an evaluation"),
        "{rest}"
    );
    assert!(rest.contains("lisa train --resume --out"), "{rest}");
    assert!(!rest.contains("nothing to save"), "{rest}");
    assert!(dir.path().join("out/model/lisa.json").is_file());
}
