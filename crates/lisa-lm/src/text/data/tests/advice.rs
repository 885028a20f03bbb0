//! What to do about lines that cannot be used.

use super::*;

#[test]
fn what_is_wrong_with_all_lines_of_a_file_has_its_help() {
    let cases: [(&str, &[u8], &str, &str); 13] = [
        ("x.csv", b"text\ncaf\xe9\n", "", "iconv -f CP1252 -t UTF-8 "),
        ("x.jsonl", br#"{"text": NaN}"#, "", "JSON has no NaN"),
        (
            "x.jsonl",
            br#"{"score": -Infinity, "text": "a"}"#,
            "",
            "JSON has no NaN",
        ),
        ("x.json", b"[\n{\"text\":\n NaN}]", "", "JSON has no NaN"),
        (
            "notes.txt",
            b"one two\n",
            "",
            "any other file is read as JSON lines",
        ),
        ("notes", b"one two\n", "", "give a file .jsonl, .ndjson"),
        (
            "x.csv",
            b"messages\n\"[{'role': 'user', 'content': 'a'}]\"\n",
            "",
            r#"`df["messages"] = df["messages"].map(json.dumps)`"#,
        ),
        (
            "x.jsonl",
            br#"{"question": "a", "answer": 3}"#,
            "",
            r#"`df["answer"] = df["answer"].astype("string")`"#,
        ),
        (
            "x.jsonl",
            br#"{"question": "a", "answer": true}"#,
            "",
            r#"df["answer"].astype("string")"#,
        ),
        // The name of the column in the file.
        (
            "x.jsonl",
            br#"{"question": "a", "right": 3}"#,
            "right=answer",
            r#"df["right"].astype("string")"#,
        ),
        (
            "x.json",
            br#"{"type": "text_only", "instances": [{"text": "a"}]}"#,
            "",
            r#"write the rows one a line: `jq -c '.["instances"][]' "#,
        ),
        (
            "x.json",
            b"{\n\"type\": \"text_only\",\n\"instances\": [{\"text\": \"a\"}]}",
            "",
            "`jq -c '.instances[]' ",
        ),
        ("x.jsonl", b"{\"text\": ", "", ""),
    ];
    for (name, bytes, columns, help) in cases {
        let dir = folder(&[]);
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let columns: Columns = columns.parse().unwrap();
        for (on_bad, other) in [
            (OnBadLine::Stop, "correct the line, or skip bad lines"),
            (OnBadLine::Skip, "give a file of rows"),
        ] {
            let columns = columns.clone();
            let error = read_examples(&[&path], &ReadOptions { on_bad, columns }).unwrap_err();
            let help = if help.is_empty() { other } else { help };
            assert!(error.help().unwrap().contains(help), "{name}: {error}");
        }
    }
}
