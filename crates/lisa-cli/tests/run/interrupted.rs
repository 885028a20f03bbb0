//! Ctrl-C.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::commands::lisa;

/// A run with piped output.
fn start(folder: &Path, arguments: &str) -> Child {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let mut command = lisa(folder, &arguments);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// The output of a run after the first line that begins like this.
fn after_line(child: &mut Child, start: &str) -> BufReader<ChildStdout> {
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with(start) {
        line.clear();
        assert!(
            output.read_line(&mut line).unwrap() > 0,
            "no line `{start}`"
        );
    }
    output
}

fn press_ctrl_c(child: &Child) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn ctrl_c_saves_and_says_how_to_continue() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = "train --steps 100000 --eval-examples 1 --log-every 1 --out out";
    let mut child = start(dir.path(), arguments);
    let mut output = after_line(&mut child, "step 2 of");
    press_ctrl_c(&child);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let part = "Continue with: lisa train --resume --out";
    assert!(rest.contains(part), "{rest}");
    let checkpoints = fs::read_dir(dir.path().join("out/checkpoints"));
    assert_eq!(checkpoints.unwrap().count(), 1);
}

#[test]
fn ctrl_c_while_the_data_is_read_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let row = "{\"prompt\": \"Name the colour.\", \"completion\": \"Blue.\"}\n";
    fs::write(dir.path().join("rows.jsonl"), row.repeat(300_000)).unwrap();
    let arguments = "train --data rows.jsonl --pairs text --out runs/new";
    let mut child = start(dir.path(), arguments);
    let lock = dir.path().join("runs/new/.lisa-lock");
    while !lock.exists() {
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::yield_now();
    }
    press_ctrl_c(&child);
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
    let mut child = start(dir.path(), arguments);
    let mut output = after_line(&mut child, "after: ");
    press_ctrl_c(&child);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let ended = child.wait_with_output().unwrap();
    let error = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{rest}{error}");
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

/// The program gets these signals at about the same time, as some systems send them.
fn saves_at(signals: [&str; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let arguments = "train --steps 100000 --no-eval --log-every 1 --out out";
    let mut child = start(dir.path(), arguments);
    let mut output = after_line(&mut child, "step 2 of");
    for signal in signals {
        let id = child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
    }
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(rest.contains("stopped after step "), "{signals:?}: {rest}");
    let checkpoints = fs::read_dir(dir.path().join("out/checkpoints"));
    assert_eq!(checkpoints.unwrap().count(), 1);
}

#[test]
fn a_run_that_the_system_ends_is_saved() {
    saves_at(["-TERM", "-TERM"]);
    saves_at(["-TERM", "-INT"]);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let ignored = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.map(|mask| u64::from_str_radix(mask.trim(), 16).unwrap());
    // A program under `nohup` ignores it.
    if ignored.is_some_and(|mask| mask & 1 == 0) {
        saves_at(["-HUP", "-HUP"]);
        saves_at(["-HUP", "-INT"]);
    }
}

#[test]
fn under_nohup_a_run_goes_on_when_its_terminal_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let line = "train --steps 100000 --no-eval --log-every 1 --out out";
    let arguments: Vec<&str> = line.split_whitespace().collect();
    let program = lisa(dir.path(), &arguments);
    let mut command = Command::new("nohup");
    let command = command.arg(program.get_program()).args(program.get_args());
    let variables = program.get_envs();
    let command = command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.current_dir(dir.path()).spawn() {
        // Not every system has it.
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        child => child.unwrap(),
    };
    let mut output = after_line(&mut child, "step 2 of");
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-HUP", &id]).status().unwrap();
    assert!(sent.success());
    let mut line = String::new();
    while !line.starts_with("step 20 of") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the run stopped");
    }
    press_ctrl_c(&child);
    output.read_to_string(&mut line).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
