//! What a person sees of the data before it is trained on, and of files that are not friendly.

use std::fs;
use std::path::Path;

use super::commands::lisa;

/// Standard output and standard error of a run that succeeds.
fn printed(folder: &Path, line: &str) -> (String, String) {
    let arguments: Vec<&str> = line.split(' ').collect();
    let output = lisa(folder, &arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

/// Standard error of a run that fails.
fn refused(folder: &Path, line: &str) -> String {
    let arguments: Vec<&str> = line.split(' ').collect();
    let output = lisa(folder, &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn pair(prompt: &str, completion: &str) -> String {
    serde_json::json!({"prompt": prompt, "completion": completion}).to_string()
}

#[test]
fn a_row_has_its_place_its_tokens_and_marks_on_the_trained_ones() {
    let dir = tempfile::tempdir().unwrap();
    let rows = [
        pair("red ", "ring"),
        String::new(),
        pair("a blue ", "cup\n"),
    ];
    fs::write(dir.path().join("a.jsonl"), rows.join("\n")).unwrap();
    let (text, warnings) = printed(dir.path(), "preview --data a.jsonl --row 2");
    let first = text.lines().next().unwrap();
    // An empty line is no row.
    assert!(first.starts_with("row 2 of 2 (a.jsonl:3): "), "{text}");
    assert!(first.contains(": 6 tokens, 3 trained; "), "{text}");
    // What is trained is the completion and the end of the text.
    let tokens = r#""a":67 " blue":504 " ":223 ["cup":871] ["\n":201] ["<|endoftext|>":0]"#;
    assert_eq!(text.lines().nth(1), Some(tokens), "{text}");
    assert!(text.contains("training data: 2 rows, "), "{text}");
    assert!(
        text.contains("by role, in 2 examples: completion "),
        "{text}"
    );
    assert!(text.contains("held-out data: none"), "{text}");
    assert!(
        text.contains("training files: 2 rows as prompt and completion"),
        "{text}"
    );
    assert!(warnings.contains("2 pairs of prompt and completion are trained as plain text"));
}

#[test]
fn rows_that_are_cut_or_left_out_are_counted_before_training() {
    let dir = tempfile::tempdir().unwrap();
    let long = "ring ".repeat(40);
    let rows = [
        pair("red ", "ring"),
        pair("red ", &long),
        pair(&long, "cup"),
    ];
    fs::write(dir.path().join("a.jsonl"), rows.join("\n")).unwrap();
    let held = [pair("blue ", "cup"), pair("blue ", &long)].join("\n");
    fs::write(dir.path().join("held.jsonl"), held).unwrap();
    let data = "--data a.jsonl --eval held.jsonl --max-seq-length 16 --pack";
    let run = "--steps 1 --eval-every 0 --eval-examples 0";
    for line in [
        format!("preview --row 2 {data}"),
        format!("train --dry-run {data} {run}"),
        format!("train {data} {run}"),
    ] {
        let (text, warnings) = printed(dir.path(), &line);
        for part in [
            "training data: 2 rows, ",
            "cut: 2 rows at 16 tokens (--max-seq-length), ",
            "left out: 1 row: no answer before the limit (--max-seq-length)",
            "first without a row: ",
            "a.jsonl:3\n",
            "packed: 2 rows of 16 tokens, ",
            "held-out data: 2 rows, ",
            "cut: 1 row at 16 tokens",
        ] {
            assert!(text.contains(part), "{line}: {part} is not in: {text}");
        }
        for part in [
            "training data: 2 of 3 rows (66.7 %) are cut at 16 tokens; 1 row left out",
            "held-out data: 1 of 2 rows (50.0 %) are cut at 16 tokens; the longest row has ",
        ] {
            assert!(
                warnings.contains(part),
                "{line}: {part} is not in: {warnings}"
            );
        }
        let row = if line.starts_with("preview") { 2 } else { 1 };
        assert!(
            text.contains(&format!("row {row} of 2 ("))
                && text.contains(&format!("a.jsonl:{row}): ")),
            "{text}"
        );
        assert_eq!(
            text.contains("cut here (--max-seq-length): "),
            row == 2,
            "{text}"
        );
    }
    // Nothing is left: the file, the line, and the flag.
    fs::write(dir.path().join("b.jsonl"), pair(&long, "cup")).unwrap();
    let error = refused(dir.path(), "preview --data b.jsonl --max-seq-length 16");
    assert!(error.contains("--> b.jsonl:1\n"), "{error}");
    assert!(
        error.contains("raise --max-seq-length: the longest row has "),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn text_of_files_sends_no_commands_to_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let is_clean = |text: &str| {
        let bad = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(bad), "{text:?}");
    };
    let esc = "\u{1b}]0;owned\u{7}\u{9b}2J";
    let rows = [
        pair(&format!("red {esc}"), &format!("ring\r{esc}")),
        pair("a", "b"),
    ];
    let name = format!("a{esc}.jsonl");
    fs::write(dir.path().join(&name), rows.join("\n")).unwrap();
    let role = serde_json::json!({"messages": [
        {"role": esc, "content": esc},
        {"role": "assistant", "content": "b"},
    ]});
    fs::write(dir.path().join("role.jsonl"), role.to_string()).unwrap();
    let key = serde_json::json!({esc: esc});
    fs::write(
        dir.path().join("key.jsonl"),
        format!("{}\n{key}", pair("a", "b")),
    )
    .unwrap();

    let (text, warnings) = printed(dir.path(), &format!("preview --data {name}"));
    is_clean(&(text + &warnings));
    // The samples of an evaluation quote prompts and answers.
    let held = format!("held{esc}.jsonl");
    fs::copy(dir.path().join(&name), dir.path().join(&held)).unwrap();
    let run = format!("train --data {name} --eval {held} --steps 1 --eval-examples 2");
    let (text, warnings) = printed(dir.path(), &format!("{run} --max-new-tokens 2"));
    assert!(text.contains("\\u{1b}"), "{text}");
    is_clean(&(text + &warnings));
    for (data, part) in [
        ("role.jsonl --chat-template plain", "refuses a chat"),
        ("key.jsonl", "the keys are"),
    ] {
        let error = refused(dir.path(), &format!("preview --data {data}"));
        assert!(error.contains(part) && error.contains("u{1b}"), "{error}");
        is_clean(&error);
    }
    let error = refused(dir.path(), &format!("preview --data missing{esc}"));
    is_clean(&error);
    let (text, warnings) = printed(dir.path(), "preview --data key.jsonl --on-bad-line skip");
    assert!(
        warnings.contains("skipped key.jsonl:2") && warnings.contains("u{1b}"),
        "{warnings}"
    );
    is_clean(&(text + &warnings));
    // A role that the template takes is in the shares and among the tokens.
    let (text, warnings) = printed(dir.path(), "preview --data role.jsonl");
    assert!(
        text.contains("by role, in 1 example: \\u{1b}]0;owned"),
        "{text}"
    );
    is_clean(&(text + &warnings));
}

#[test]
fn refusals_of_any_kind_have_their_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| fs::write(dir.path().join(name), text).unwrap();
    let good = pair("a", "b");
    let chat = |role: &str, extra: &str| {
        format!(
            r#"{{"messages": [{{"role": "{role}", "content": "a"}},
               {{"role": "assistant", "content": "b"{extra}}}]}}"#
        )
        .replace('\n', " ")
    };
    write("good.jsonl", good.clone());
    write("chat.jsonl", chat("user", ""));
    write("bad.jinja", "{{ x }}\n{% if %}".to_owned());
    let lines: &[(&str, String, &str, &str)] = &[
        ("json.jsonl", r#"{"text": "#.to_owned(), "", "not JSON"),
        (
            "keys.jsonl",
            r#"{"txt": "a"}"#.to_owned(),
            "",
            "the keys are",
        ),
        (
            "empty.jsonl",
            pair("a", ""),
            " --empty-answers refuse",
            "the completion is empty",
        ),
        (
            "weight.jsonl",
            chat("user", r#", "weight": "much""#),
            "",
            "a `weight` of \"much\"",
        ),
        (
            "role.jsonl",
            chat("judge", ""),
            " --chat-template plain",
            "unknown role judge",
        ),
        ("utf8.jsonl", "\u{fffd}".to_owned(), "", "not JSON"),
    ];
    for (name, line, flags, part) in lines {
        // Line 2 is blank.
        write(name, format!("{good}\n\n{line}\n{good}\n"));
        for data in [
            format!("--data {name}"),
            format!("--data good.jsonl --eval {name}"),
        ] {
            let error = refused(dir.path(), &format!("preview {data}{flags}"));
            assert!(error.lines().next().unwrap().contains(part), "{error}");
            assert!(error.contains(&format!("\n  --> {name}:3\n")), "{error}");
            assert!(error.contains("--on-bad-line skip\n"), "{error}");
        }
        let skip = format!("preview --data {name} --on-bad-line skip{flags}");
        let (text, warnings) = printed(dir.path(), &skip);
        assert!(text.contains("training data: 2 rows, "), "{text}");
        assert!(warnings.contains(&format!("{name}:3: ")), "{warnings}");
    }
    let error = refused(
        dir.path(),
        "preview --data chat.jsonl --chat-template bad.jinja",
    );
    assert!(
        error.contains("--> bad.jinja\n") && error.contains("(line 2)"),
        "{error}"
    );
    let error = refused(dir.path(), "train --data good.jsonl --out one");
    assert!(error.contains("good.jsonl` has one example"), "{error}");
    assert!(error.contains("--eval-fraction 0"), "{error}");
}
