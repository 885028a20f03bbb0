//! Ctrl-C.

use std::fs;
use std::process::Command;

use super::commands::lisa;

#[test]
fn ctrl_c_saves_and_says_how_to_continue() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::Stdio;

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

/// Ctrl-C in the evaluation of all rows, after the model is written.
#[test]
fn ctrl_c_in_the_last_evaluation_says_where_the_model_is() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::Stdio;

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
