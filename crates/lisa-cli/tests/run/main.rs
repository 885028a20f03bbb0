//! Whole runs on the bundled model.

use std::fs;
use std::path::Path;
use std::process::Output;

use burn::tensor::Device;
use clap::Parser;
use lisa_cli::bundled;
use lisa_cli::commands::{Command, Program};
use lisa_cli::settings::Flags;
use lisa_cli::terminal::interrupt::Point;
use lisa_cli::terminal::report::report;
use lisa_cli::train::metrics::line::Line;
use lisa_cli::train::run::{Outcome, Start, run as train};
use serde_json::Value;

use commands::lisa;

mod adapters;
mod commands;
mod crashes;
mod data;
mod evaluate;
mod evaluated;
mod first_hour;
mod folders;
mod given;
#[cfg(unix)]
mod interrupted;
mod not_finite;
mod planned;
mod policies;
mod preview;
mod refusals;
mod replaced;
mod resumed;
mod runs;
mod steps;
mod tokens;
mod watched;
mod wrong_flags;

/// What the program prints in this folder, and its exit code. Blanks separate the arguments.
fn output(folder: &Path, line: &str) -> Output {
    let arguments: Vec<&str> = line.split_whitespace().collect();
    lisa(folder, &arguments).output().unwrap()
}

/// Standard output of a command that succeeds.
fn run(folder: &Path, line: &str) -> String {
    printed(folder, line).0
}

/// Standard output and standard error of a command that succeeds.
fn printed(folder: &Path, line: &str) -> (String, String) {
    let output = output(folder, line);
    assert!(output.status.success(), "{line}: {output:?}");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

/// The same as one text.
fn said(folder: &Path, line: &str) -> String {
    let (text, warnings) = printed(folder, line);
    text + &warnings
}

/// Standard error of a command that fails.
fn refused(folder: &Path, line: &str) -> String {
    let output = output(folder, line);
    assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A copy of the bundled model.
fn copy_model(to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(bundled::model().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// The flags of `lisa train` in a line.
fn parsed(line: &str) -> Flags {
    let line = ["lisa", "train"].into_iter().chain(line.split_whitespace());
    match Program::try_parse_from(line).unwrap().command {
        Some(Command::Train(options)) => options.flags,
        _ => unreachable!(),
    }
}

/// Flags for a run of seven short steps into `out`, and those in `more`, as a user gives them.
fn flags(out: &Path, more: &str) -> Flags {
    let words: Vec<&str> = more.split_whitespace().collect();
    // A flag without effect would be refused.
    let gives = |flag: &str, value: &str| words.windows(2).any(|pair| pair == [flag, value]);
    let evaluation = if words.contains(&"--no-eval") || gives("--eval-fraction", "0") {
        ""
    } else if gives("--eval-examples", "0") {
        "--eval-every 0"
    } else {
        "--eval-every 0 --eval-examples 3 --max-new-tokens 3"
    };
    let no_periods = ["full", "lora", "fixed"]
        .iter()
        .any(|method| words.contains(method));
    let period = if no_periods { "" } else { "--period 3" };
    let short = "--steps 7 --batch-size 2 --save-every 0 --max-seq-length 48";
    let folder = out.display();
    let line = format!("--out {folder} {short} {evaluation} {period} {more}");
    let mut flags = parsed(&line);
    // The loss of the first ten held-out examples is enough here.
    if flags.input.eval.is_none() && flags.input.data.is_none() {
        let few: Vec<&str> = HELD_OUT.lines().take(10).collect();
        let file = out.parent().unwrap().join("few.jsonl");
        fs::write(&file, few.join("\n")).unwrap();
        flags.input.eval = Some(file);
    }
    flags
}

const HELD_OUT: &str = include_str!("../../data/heldout.jsonl");

/// The output folder alone, for a run that is resumed.
fn only_out(out: &Path) -> Flags {
    let mut flags = Flags::default();
    flags.output.out = Some(out.to_path_buf());
    flags
}

fn go(flags: Flags, start: Start, stop: bool) -> anyhow::Result<Outcome> {
    train(flags, start, &Device::flex(), &|point| {
        stop && point == Point::Step
    })
}

/// Runs one step at a time, each in a call of its own; the number of calls.
fn go_in_parts(flags: Flags, out: &Path) -> usize {
    let mut outcome = go(flags, Start::Overwrite, true).unwrap();
    let mut calls = 1;
    while outcome == Outcome::Stopped {
        assert!(!out.join("summary.json").exists());
        outcome = go(only_out(out), Start::Resume, true).unwrap();
        calls += 1;
    }
    calls
}

fn weights_of(out: &Path) -> Vec<u8> {
    fs::read(out.join("model/model.safetensors")).unwrap()
}

fn summary(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap()
}

fn file_of(dir: &Path, name: &str, rows: &[&str]) -> String {
    let path = dir.join(name);
    fs::write(&path, rows.join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The lines of `metrics.jsonl` without what depends on the machine.
fn lines(out: &Path) -> Vec<Line> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .map(|line: Line| Line {
            tokens_per_second: None,
            memory_bytes: None,
            peak_bytes: None,
            ..line
        })
        .collect()
}

/// The error of a run as the program prints it.
fn message(flags: Flags, start: Start) -> String {
    let report = report(&go(flags, start, false).unwrap_err());
    anstream::adapter::strip_str(&report).to_string()
}
