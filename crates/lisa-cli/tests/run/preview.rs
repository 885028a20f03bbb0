//! What a person sees of the data before it is trained on, and of files that are not friendly.

use std::fs;

use super::{copy_model, printed, refused, run};

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
    let (text, _) = printed(dir.path(), "preview --data a.jsonl --row 2 --text");
    let mut lines = text.lines();
    let first = lines.next().unwrap();
    assert!(
        first.ends_with(" trained; what is trained is in [[ ]]"),
        "{text}"
    );
    assert_eq!(lines.next(), Some("a blue [[cup"), "{text}");
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
            "held-out data: 1 of 2 rows (50.0 %) is cut at 16 tokens; the longest row has ",
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
        warnings.contains("left out: key.jsonl:2") && warnings.contains("u{1b}"),
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

#[test]
fn a_row_is_shown_though_others_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let rows = [
        pair("red ", "ring"),
        "{\"txt\": 1}".to_owned(),
        pair("a blue ", "cup"),
        "{".to_owned(),
    ];
    fs::write(dir.path().join("a.jsonl"), rows.join("\n")).unwrap();
    // Without a row, the data is checked as for a run.
    let error = refused(dir.path(), "preview --data a.jsonl");
    assert!(error.contains("--> a.jsonl:2\n"), "{error}");
    let error = refused(
        dir.path(),
        "preview --data a.jsonl --row 1 --on-bad-line stop",
    );
    assert!(error.contains("--> a.jsonl:2\n"), "{error}");
    for (row, line) in [(1, 1), (2, 3)] {
        let (text, warnings) = printed(dir.path(), &format!("preview --data a.jsonl --row {row}"));
        let first = format!("row {row} of 2 (a.jsonl:{line}): ");
        assert!(text.starts_with(&first), "{text}");
        let total = "training data: 2 of 4 rows are left out: cannot be read (--on-bad-line); the first: \
                     a.jsonl:2: ";
        assert!(warnings.contains(total), "{warnings}");
        let end = warnings
            .find("`lisa train` stops at the first row")
            .unwrap();
        assert!(end > warnings.find(total).unwrap(), "{warnings}");
    }
    let error = refused(dir.path(), "preview --data a.jsonl --row 3");
    assert!(error.contains("there are 2 rows"), "{error}");
}

#[test]
fn rows_that_are_not_used_have_one_verb_their_reasons_and_one_total() {
    let dir = tempfile::tempdir().unwrap();
    let chat = |role: &str, more: &str| {
        format!(
            r#"{{"messages": [{{"role": "{role}", "content": "a"}}, {{"role": "assistant", "content": "b"{more}}}]}}"#
        )
    };
    let rows = [
        chat("user", ""),
        "{".to_owned(),
        chat("judge", ""),
        chat("user", r#", "weight": 0"#),
        chat("user", r#", "train": false"#),
    ];
    fs::write(dir.path().join("a.jsonl"), rows.join("\n")).unwrap();
    let flags = "--chat-template plain --on-bad-line skip";
    let (text, warnings) = printed(dir.path(), &format!("preview --data a.jsonl {flags}"));
    let reasons = "cannot be read (--on-bad-line): 1; refused by the chat template or the tokenizer \
                   (--on-bad-line): 1; all messages have a weight of 0: 2";
    let total =
        format!("training data: 4 of 5 rows are left out: {reasons}; the first: a.jsonl:2: ");
    assert!(warnings.contains(&total), "{warnings}");
    assert!(!warnings.contains("rows left out"), "{warnings}");
    assert!(
        text.contains(&format!("\n  left out: 4 rows: {reasons}\n")),
        "{text}"
    );
    for part in [
        "left out: a.jsonl:2: ",
        "left out: chat template: a.jsonl:3: ",
    ] {
        assert!(warnings.contains(part), "{warnings}");
    }
    for word in ["skipped", "dropped"] {
        assert!(
            !(text.clone() + &warnings).contains(word),
            "{text}{warnings}"
        );
    }
    // Nothing is left, because of the weights.
    fs::write(dir.path().join("b.jsonl"), &rows[3]).unwrap();
    let error = refused(dir.path(), "preview --data b.jsonl --chat-template plain");
    assert!(
        error.contains("all their messages have a weight of 0")
            && error.contains("a weight above 0"),
        "{error}"
    );
    assert!(!error.contains("give data with answers"), "{error}");
}

#[test]
fn a_template_without_tool_calls_is_named_as_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let call = r#"{"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": "{}"}}]}"#;
    let row = format!(r#"{{"messages": [{{"role": "user", "content": "a"}}, {call}]}}"#);
    fs::write(dir.path().join("a.jsonl"), row).unwrap();
    fs::write(
        dir.path().join("joined.jinja"),
        "{% for m in messages %}\n{{ '<' + m.role + '>' + m.content + eos_token }}\n{% endfor %}",
    )
    .unwrap();
    for template in ["joined.jinja", "plain"] {
        let line = format!("preview --data a.jsonl --chat-template {template}");
        let error = refused(dir.path(), &line);
        for part in [
            "message 2 has tool calls and no text, and the template writes no tool calls",
            "--> a.jsonl:1\n",
            "help: choose a chat template that writes tool calls (--chat-template); or leave such lines \
             out with --on-bad-line skip",
        ] {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }
}

#[test]
fn rows_for_an_adapter_are_shown_with_its_base_model() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    copy_model(&dir.path().join("base"));
    let template =
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}";
    write("base/chat_template.jinja", template);
    let row = r#"{"instruction": "one", "output": "two"}"#;
    write("a.jsonl", &[row; 4].join("\n"));
    let line = "train --model base --data a.jsonl --method lora --steps 1 --no-eval --out r";
    run(dir.path(), line);
    // As PEFT writes it, without a tokenizer.
    fs::remove_file(dir.path().join("r/adapter/tokenizer.json")).unwrap();
    write("run.toml", "adapter = \"r/adapter\"\ndata = \"a.jsonl\"\n");
    let (text, _) = printed(dir.path(), "preview --config run.toml --text");
    assert!(text.contains("<user>one<|endoftext|>"), "{text}");
}
