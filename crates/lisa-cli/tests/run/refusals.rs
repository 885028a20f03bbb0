//! What is refused, and with which words.

use std::fs;

use lisa_cli::train::run::Start;
use serde_json::json;

use super::commands::of_studied_size;
use super::{HELD_OUT, file_of, flags, go, message, only_out, parsed, refused};

#[test]
fn options_of_one_policy_are_refused_with_another() {
    let dir = tempfile::tempdir().unwrap();
    let message = |more: &str| message(flags(&dir.path().join("out"), more), Start::Fresh);
    assert!(message("--policy weighted").contains("lisa importance"));
    assert!(message("--probabilities 1,0").contains("--policy weighted or --policy bernoulli"));
    assert!(message("--policy fixed").contains("--fixed-layers"));
    assert!(message("--fixed-layers 1").contains("--policy fixed"));
    let absent = message("--policy weighted --importance nowhere.json");
    assert!(absent.contains("nowhere.json"), "{absent}");
    let few = message("--policy weighted --probabilities 1,1");
    assert!(few.contains("8 layers"), "{few}");
}

#[test]
fn a_refused_run_leaves_no_folder_that_it_made() {
    let dir = tempfile::tempdir().unwrap();
    let (out, model) = (dir.path().join("a/b"), dir.path().join("nowhere"));
    fs::create_dir(dir.path().join("a")).unwrap();
    let model = format!("--model {}", model.display());
    let error = message(flags(&out, &model), Start::Fresh);
    assert!(error.contains("nowhere"), "{error}");
    assert!(!out.exists());
    fs::create_dir(&out).unwrap();
    message(flags(&out, &model), Start::Fresh);
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
    let data = dir.path().join("data.jsonl");
    fs::write(&data, HELD_OUT.lines().next().unwrap()).unwrap();
    let (bad, data) = (format!("--data {}", bad.display()), data.display());
    let empty = empty.to_str().unwrap();
    let cases: &[(&str, &[&str])] = &[
        (
            "--active-layers 9",
            &[
                "error: --active-layers is 9",
                "8 layers",
                "set it to at most 8",
            ],
        ),
        ("--active-layers 0", &["--active-layers is 0"]),
        ("--period 0", &["--period is 0"]),
        (
            "--freeze nonsense",
            &["--freeze is `nonsense`", "embed_tokens"],
        ),
        (
            "--policy bernoulli --probabilities 0.5,2",
            &["2 probabilities", "8 layers"],
        ),
        ("--probabilities 0.5", &["--policy bernoulli"]),
        ("--batch-size 0", &["--batch-size is 0"]),
        ("--sublayers", &["--sublayers", "add --recompute"]),
        ("--lr=-1", &["--lr is -1"]),
        (&bad, &["bad.jsonl", "2", "txt"]),
        // Before the data is read.
        (
            &format!("--policy cyclic --unbiased {bad}"),
            &["does not know how probable", "leave --unbiased out"],
        ),
        (
            &format!("--split nonsense {bad}"),
            &["cannot be split by `nonsense`"],
        ),
        ("--data /nowhere/at/all", &["/nowhere/at/all"]),
        (&format!("--model {empty}"), &[empty, "config.json"]),
        ("--model some/model", &["--features hub"]),
        (
            &format!("--data {data}"),
            &[
                "one example",
                "data.jsonl",
                "--eval-fraction 0",
                "--eval FILE",
            ],
        ),
    ];
    for (line, parts) in cases {
        let asked = parsed(line);
        let flags = if line.contains("--data") {
            asked.or(only_out(&out))
        } else {
            asked.or(flags(&out, ""))
        };
        let error = message(flags, Start::Fresh);
        for part in *parts {
            assert!(error.contains(part), "{line}: `{part}` is not in: {error}");
        }
    }
    // Nothing to resume, a folder with a run, a setting that changed.
    assert!(message(flags(&out, ""), Start::Resume).contains("no checkpoint"));
    go(flags(&out, ""), Start::Overwrite, true).unwrap();
    assert!(message(flags(&out, ""), Start::Fresh).contains("--resume"));
    let changed = message(flags(&out, "--active-layers 3"), Start::Resume);
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
    assert!(message(flags(&out, ""), Start::Resume).contains("optimizer.bpk"));
}

#[test]
fn a_file_in_the_place_of_the_folder_is_refused_before_a_run_that_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    file_of(dir.path(), "file", &["a"]);
    for out in ["file", "file/inside"] {
        let error = refused(dir.path(), &format!("train --dry-run --out {out}"));
        assert!(
            error.starts_with("error: cannot make the folder `"),
            "{error}"
        );
        assert!(error.contains("/file` is a file\n"), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_path_that_is_not_utf_8_is_refused_before_the_model_is_read() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join(OsStr::from_bytes(b"a\xff"));
    for flag in ["model", "data", "eval", "importance", "adapter", "out"] {
        let mut flags = flags(&dir.path().join("out"), "--steps 1 --no-eval");
        match flag {
            "model" => flags.input.model = Some(odd.clone()),
            "data" => flags.input.data = Some(vec![odd.clone()]),
            "eval" => flags.input.eval = Some(odd.clone()),
            "importance" => flags.method.importance = Some(odd.clone()),
            "adapter" => flags.method.adapter = Some(odd.clone()),
            _ => flags.output.out = Some(odd.clone()),
        }
        let error = message(flags, Start::Fresh);
        let part = format!("error: --{flag} is {odd:?}, which is not UTF-8\n");
        assert!(error.starts_with(&part), "`{part}` is not in: {error}");
        assert!(error.contains("help: rename it, "), "{error}");
    }
}

#[test]
fn a_warm_up_of_the_whole_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    // The run has seven steps.
    for steps in ["7", "1000"] {
        let more = format!("--no-eval --warmup-steps {steps}");
        let found = message(flags(&out, &more), Start::Fresh);
        for part in [
            &format!("error: --warmup-steps is {steps}, and the run has 7 steps\n")[..],
            "help: give at most 6, or a longer run with --steps or --epochs\n",
        ] {
            assert!(found.contains(part), "`{part}` is not in: {found}");
        }
    }
    let more = "--no-eval --warmup-steps 6";
    go(flags(&out, more), Start::Fresh, true).unwrap();
}

#[test]
fn a_length_of_the_memory_that_leaves_no_row_is_refused_as_such() {
    let dir = tempfile::tempdir().unwrap();
    of_studied_size(&dir.path().join("model"));
    let prompt = |times: usize| "Name the colour. ".repeat(times);
    let pair = |times| {
        format!(
            r#"{{"prompt": "{}", "completion": "Blue."}}"#,
            prompt(times)
        )
    };
    let chat = |weight: u8| {
        let question = json!({"role": "user", "content": prompt(20)});
        let answer = json!({"role": "assistant", "content": "Blue.", "weight": weight});
        json!({"messages": [question, answer]}).to_string()
    };
    let (long, short, trained, weightless) = (pair(20), pair(1), chat(1), chat(0));
    let pairs = [[&long[..]; 10], [&short[..]; 10], [&short[..]; 10]].concat();
    file_of(dir.path(), "pairs.jsonl", &pairs);
    file_of(dir.path(), "held.jsonl", &[&long[..]; 5]);
    let chats = [[&trained[..]; 5], [&weightless[..]; 5]].concat();
    file_of(dir.path(), "chats.jsonl", &chats);
    for (data, found) in [
        (
            "pairs.jsonl --pairs text --eval held.jsonl",
            "cut at 64: all 5 held-out rows have no token",
        ),
        (
            "chats.jsonl --chat-template plain --no-eval",
            // The other five have a weight of 0.
            "cut at 64: 5 of 5 training rows have no token",
        ),
    ] {
        let line = format!("train --dry-run --memory 0.01 --model model --out run --data {data}");
        let errors = refused(dir.path(), &line);
        for part in ["do not fit into 10 MiB", "help: the least is ", found] {
            assert!(errors.contains(part), "`{part}` is not in: {errors}");
        }
    }
}
