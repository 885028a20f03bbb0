use std::fs;

use super::*;

mod advice;
mod containers;
mod folders;
mod forms;
#[cfg(feature = "parquet")]
mod parquet;

use crate::error::ErrorKind;
use crate::test_support::folder;
use crate::text::chat::Message;

fn skip() -> ReadOptions {
    ReadOptions {
        on_bad: OnBadLine::Skip,
        ..ReadOptions::default()
    }
}

fn chat(messages: &[(&str, &str)]) -> Content {
    let messages = messages.iter().map(|(r, c)| Message::new(*r, *c));
    Content::Chat(messages.collect())
}

#[test]
fn each_format_is_told_by_its_keys() {
    let cases = [
        (
            r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " Hello "}], "id": 3}"#,
            chat(&[("user", "Hi"), ("assistant", " Hello ")]),
            Some("Hello"),
        ),
        (
            r#"{"messages": [{"role": "assistant", "content": ["a", {"type": "text", "text": "b"}]}, {"role": "user", "content": "c"}]}"#,
            chat(&[("assistant", "ab"), ("user", "c")]),
            None,
        ),
        (
            r#"{"instruction": "Add.", "input": "1 2", "output": "3"}"#,
            chat(&[("user", "Add.\n\n1 2"), ("assistant", "3")]),
            Some("3"),
        ),
        (
            r#"{"instruction": "Say a.", "input": "", "output": "a", "system": "S"}"#,
            chat(&[("system", "S"), ("user", "Say a."), ("assistant", "a")]),
            Some("a"),
        ),
        (
            r#"{"prompt": "one two", "completion": " three"}"#,
            Content::Pair {
                prompt: "one two".to_owned(),
                completion: " three".to_owned(),
                before: crate::text::Chat::default(),
            },
            Some("three"),
        ),
        (
            r#"{"text": "plain", "input": 3}"#,
            Content::Text("plain".to_owned()),
            None,
        ),
    ];
    for (line, content, answer) in cases {
        let example = Example::from_json(line).unwrap();
        assert_eq!(example.content, content);
        assert_eq!(example.answer.as_deref(), answer);
    }
}

#[test]
fn a_line_that_cannot_be_used_says_why() {
    let cases = [
        ("{\"text\": ", "not JSON"),
        ("[1]", "a list and not an object"),
        (r#"{"question": "a"}"#, "`answer` is missing"),
        (r#"{"title": "a"}"#, r#"the keys are ["title"]"#),
        (r#"{"instruction": "a"}"#, "`output` is missing"),
        (
            r#"{"instruction": "a", "output": 3}"#,
            "`output` is a number and not a string",
        ),
        (r#"{"prompt": "a"}"#, "`completion` is missing"),
        (r#"{"text": ""}"#, "the text is empty"),
        (
            r#"{"messages": "a"}"#,
            "`messages` is a string and not a list",
        ),
        (
            r#"{"messages": [{"content": "a"}]}"#,
            "message 1 has no `role`",
        ),
        (
            r#"{"messages": [{"role": "user"}]}"#,
            "message 1 has no `content`",
        ),
        (
            r#"{"messages": [{"role": "user", "content": 3}]}"#,
            "message 1 has a `content` that is not a string",
        ),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "image"}]}]}"#,
            "message 1 has a part of type \"image\", and the models that are trained here take only text",
        ),
        (
            r#"{"messages": [{"role": "user", "content": "a"}]}"#,
            "no answer of the assistant",
        ),
    ];
    for (line, expected) in cases {
        let reason = Example::from_json(line).unwrap_err();
        assert!(reason.contains(expected), "{line}: {reason}");
    }
}

#[test]
fn a_chat_keeps_every_field_and_its_tools() {
    let line = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null,
        "tool_calls": [{"name": "f", "arguments": {"z": 1, "a": 2.5}}]}], "tools": [{"name": "f"}]}"#;
    let example = Example::from_json(line).unwrap();
    assert_eq!(example.answer, None);
    let Content::Chat(chat) = example.content else {
        panic!("messages are a chat");
    };
    let call = serde_json::to_string(&chat.messages[1]).unwrap();
    let wanted = r#"{"role":"assistant","content":null,"tool_calls":[{"name":"f","arguments":{"z":1,"a":2.5}}]}"#;
    assert_eq!(call, wanted);
    let special = std::collections::BTreeMap::new();
    let source = "{{ tools | length }}{{ messages[1].tool_calls[0].arguments | tojson }}";
    let template = crate::text::template::ChatTemplate::new(source, &special).unwrap();
    assert_eq!(
        template.render(&chat, false).unwrap().text,
        "1{\"z\": 1, \"a\": 2.5}"
    );
}

#[test]
fn large_whole_numbers_keep_their_digits() {
    let row = |arguments: &str| {
        format!(
            r#"{{"tools": "[{{\"id\": 18446744073709551616}}]", "messages": [{{"role": "assistant", "tool_calls": [{{"function": {{"name": "f", "arguments": {arguments}}}}}]}}]}}"#
        )
    };
    let source = "{{ tools | tojson }} {% for m in messages %}{% for call in m.tool_calls or [] %}\
                  {{ call.function.arguments | tojson }}{% endfor %}{% endfor %}";
    let special = std::collections::BTreeMap::new();
    let template = crate::text::template::ChatTemplate::new(source, &special).unwrap();
    let object = r#"{"a": 123456789012345678901}"#;
    let text = r#""{\"a\": 123456789012345678901}""#;
    let dir = folder(&[("x.jsonl", &[row(object), row(text)].join("\n"))]);
    let examples = read_examples(&[dir.path()], &ReadOptions::default());
    let examples = examples.unwrap().examples;
    assert_eq!(examples.len(), 2);
    for example in examples {
        let Content::Chat(chat) = example.content else {
            panic!("messages are a chat");
        };
        let written = template.render(&chat, false).unwrap().text;
        assert_eq!(
            written,
            format!(r#"[{{"id": 18446744073709551616}}] {object}"#)
        );
    }
    // Larger ones are floats, also where the object is a text.
    let large = format!(r#"{{"a": 1{}}}"#, "0".repeat(40));
    let written = [large.clone(), format!("{large:?}")].map(|arguments| {
        let line = row(&arguments).replacen('{', &format!(r#"{{"hash": {}, "#, "7".repeat(78)), 1);
        let Content::Chat(chat) = Example::from_json(&line).unwrap().content else {
            panic!("messages are a chat");
        };
        template.render(&chat, false).unwrap().text
    });
    let float = r#"[{"id": 18446744073709551616}] {"a": 1e+40}"#;
    assert_eq!(written, [float, float]);
}

#[test]
fn a_folder_is_read_in_the_order_of_its_names() {
    let dir = folder(&[
        ("b.jsonl", "{\"text\": \"3\"}"),
        (
            "a.jsonl",
            "\u{feff}{\"text\": \"1\"}\r\n\n{\"text\": \"2\"}\n",
        ),
        ("notes.txt", "not data"),
    ]);
    let read = read_examples(&[dir.path()], &ReadOptions::default()).unwrap();
    let places = read.examples.iter().map(|e| e.place.clone().unwrap());
    let lines: Vec<_> = places.map(|p| (p.file().to_owned(), p.line())).collect();
    let line = |file, line| (dir.path().join(file), Some(line));
    let wanted = [("a.jsonl", 1), ("a.jsonl", 3), ("b.jsonl", 1)];
    assert_eq!(lines, wanted.map(|(file, number)| line(file, number)));
    let texts: Vec<_> = read.examples.into_iter().map(|e| e.content).collect();
    assert_eq!(texts, ["1", "2", "3"].map(|t| Content::Text(t.to_owned())));
}

#[test]
fn a_bad_line_stops_with_its_place_or_is_skipped_and_counted() {
    let dir = folder(&[("x.jsonl", "{\"text\": \"1\"}\n{\"text\": 2}\n\n{}\n")]);
    let file = dir.path().join("x.jsonl");
    let error = read_examples(&[&file], &ReadOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert_eq!(error.message(), "`text` is a number and not a string");
    assert_eq!(error.place(), Some((file.as_path(), Some(2))));

    let read = read_examples(&[&file], &skip()).unwrap();
    assert_eq!(read.examples.len(), 1);
    let lines = read.skipped.shown().iter().map(|bad| bad.place.line());
    assert_eq!(lines.collect::<Vec<_>>(), [Some(2), Some(4)]);
    assert_eq!(read.skipped.count(), 2);
}

#[test]
fn bytes_that_are_not_utf8_are_a_bad_line() {
    let dir = folder(&[]);
    fs::write(
        dir.path().join("x.jsonl"),
        b"{\"text\": \"1\"}\n{\"text\": \"\xff\"}",
    )
    .unwrap();
    let error = read_examples(&[dir.path()], &ReadOptions::default()).unwrap_err();
    assert!(
        error.to_string().contains("x.jsonl:2: not UTF-8"),
        "{error}"
    );
}

#[test]
fn nothing_to_read_is_an_error_that_names_the_path() {
    let (dir, other) = (folder(&[("x.jsonl", "\n")]), folder(&[("a.txt", "{}")]));
    for (path, kind) in [
        (dir.path().join("missing.jsonl"), ErrorKind::Io),
        (dir.path().join("x.jsonl"), ErrorKind::Data),
        (other.path().to_owned(), ErrorKind::Data),
    ] {
        let error = read_examples(&[&path], &ReadOptions::default()).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(
            error.message().contains(&path.display().to_string()),
            "{error}"
        );
    }
}

#[test]
fn keys_by_the_thousand_are_not_all_said() {
    let keys: Vec<String> = (0..10_000).map(|i| format!("\"key{i}\": 1")).collect();
    let reason = Example::from_json(&format!("{{{}}}", keys.join(","))).unwrap_err();
    assert!(reason.len() < 300, "{reason}");
}

#[cfg(unix)]
#[test]
fn data_that_is_a_pipe_or_a_device_is_refused() {
    let dir = folder(&[]);
    let pipe = dir.path().join("x.jsonl");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for path in [pipe.as_path(), Path::new("/dev/zero")] {
        let error = read_examples(&[&path], &ReadOptions::default()).unwrap_err();
        assert!(
            error.message().contains("pipe, socket or device"),
            "{error}"
        );
    }
    // In a folder it is passed over.
    assert!(read_examples(&[dir.path()], &ReadOptions::default()).is_err());
}

#[test]
fn a_reader_reads_again_from_the_beginning() {
    let files = [
        ("a.jsonl", "{\"text\": \"a\"}\n{\n"),
        ("b.jsonl", "{\"text\": \"b\"}\n"),
    ];
    let dir = folder(&files);
    let mut reader = ExampleReader::open(&[dir.path()], &skip()).unwrap();
    assert!(reader.next().unwrap().is_ok());
    for _ in 0..2 {
        let mut again = reader.again();
        let found: Result<Vec<_>, _> = again.by_ref().collect();
        let places = found
            .unwrap()
            .into_iter()
            .map(|example| example.place.unwrap());
        let lines: Vec<_> = places.map(|place| place.line()).collect();
        assert_eq!(lines, [Some(1), Some(1)]);
        assert_eq!((again.skipped().count(), again.files().len()), (1, 2));
    }
}
