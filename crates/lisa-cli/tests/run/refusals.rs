//! What is refused, and with which words.

use std::fs;

use lisa_cli::train::run::Start;

use super::{HELD_OUT, flags, go, message, only_out, parsed};

#[test]
fn options_of_one_policy_are_refused_with_another() {
    let dir = tempfile::tempdir().unwrap();
    let message = |more: &[&str]| message(flags(&dir.path().join("out"), more), Start::Fresh);
    assert!(message(&["--policy", "weighted"]).contains("lisa importance"));
    assert!(
        message(&["--probabilities", "1,0"]).contains("--policy weighted or --policy bernoulli")
    );
    assert!(message(&["--policy", "fixed"]).contains("--fixed-layers"));
    assert!(message(&["--fixed-layers", "1"]).contains("--policy fixed"));
    let absent = message(&["--policy", "weighted", "--importance", "nowhere.json"]);
    assert!(absent.contains("nowhere.json"), "{absent}");
    let few = message(&["--policy", "weighted", "--probabilities", "1,1"]);
    assert!(few.contains("8 layers"), "{few}");
}

#[test]
fn a_refused_run_leaves_no_folder_that_it_made() {
    let dir = tempfile::tempdir().unwrap();
    let (out, model) = (dir.path().join("a/b"), dir.path().join("nowhere"));
    fs::create_dir(dir.path().join("a")).unwrap();
    let error = message(
        flags(&out, &["--model", model.to_str().unwrap()]),
        Start::Fresh,
    );
    assert!(error.contains("nowhere"), "{error}");
    assert!(!out.exists());
    fs::create_dir(&out).unwrap();
    message(
        flags(&out, &["--model", model.to_str().unwrap()]),
        Start::Fresh,
    );
    assert!(out.exists());
}

#[test]
fn errors_say_what_was_asked_and_what_was_found() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let bad = dir.path().join("bad.jsonl");
    fs::write(&bad, "{\"text\": \"fine\"}\n{\"txt\": 1}\n").unwrap();
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let (bad, empty) = (bad.to_str().unwrap(), empty.to_str().unwrap());
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--active-layers", "9"],
            &[
                "error: --active-layers is 9",
                "8 layers",
                "set it to at most 8",
            ],
        ),
        (&["--active-layers", "0"], &["--active-layers is 0"]),
        (&["--period", "0"], &["--period is 0"]),
        (&["--freeze", "nonsense"], &["matches none", "embed_tokens"]),
        (
            &["--policy", "bernoulli", "--probabilities", "0.5,2"],
            &["2 probabilities", "8 layers"],
        ),
        (&["--probabilities", "0.5"], &["--policy bernoulli"]),
        (&["--batch-size", "0"], &["--batch-size is 0"]),
        (&["--sublayers"], &["--sublayers", "add --recompute"]),
        (&["--lr=-1"], &["--lr is -1"]),
        (&["--data", bad], &["bad.jsonl", "2", "txt"]),
        // Before the data is read.
        (
            &["--policy", "cyclic", "--unbiased", "--data", bad],
            &["does not know how probable", "leave --unbiased out"],
        ),
        (
            &["--split", "nonsense", "--data", bad],
            &["cannot be split by `nonsense`"],
        ),
        (&["--data", "/nowhere/at/all"], &["/nowhere/at/all"]),
        (&["--model", empty], &[empty, "config.json"]),
        (&["--model", "some/model"], &["--features hub"]),
        (
            &["--data", "DATA"],
            &[
                "one example",
                "data.jsonl",
                "--eval-fraction 0",
                "--eval FILE",
            ],
        ),
    ];
    let data = dir.path().join("data.jsonl");
    fs::write(&data, HELD_OUT.lines().next().unwrap()).unwrap();
    for (arguments, parts) in cases {
        let line: Vec<&str> = arguments
            .iter()
            .map(|a| {
                if *a == "DATA" {
                    data.to_str().unwrap()
                } else {
                    a
                }
            })
            .collect();
        let asked = parsed(&line);
        let flags = if arguments.contains(&"--data") {
            asked.or(only_out(&out))
        } else {
            asked.or(flags(&out, &[]))
        };
        let error = message(flags, Start::Fresh);
        for part in *parts {
            assert!(
                error.contains(part),
                "{arguments:?}: `{part}` is not in: {error}"
            );
        }
    }
    // Nothing to resume, a folder with a run, a setting that changed.
    assert!(message(flags(&out, &[]), Start::Resume).contains("no checkpoint"));
    go(flags(&out, &[]), Start::Overwrite, true).unwrap();
    assert!(message(flags(&out, &[]), Start::Fresh).contains("--resume"));
    let changed = message(flags(&out, &["--active-layers", "3"]), Start::Resume);
    assert!(changed.contains("--active-layers is 3"), "{changed}");
    // A truncated checkpoint names its file.
    let checkpoint = fs::read_dir(out.join("checkpoints"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let record = checkpoint.path().join("optimizer.bpk");
    let bytes = fs::read(&record).unwrap();
    fs::write(&record, &bytes[..bytes.len() / 2]).unwrap();
    assert!(message(flags(&out, &[]), Start::Resume).contains("optimizer.bpk"));
}
