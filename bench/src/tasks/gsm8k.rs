//! GSM8K: word problems with worked answers. The prompt is the question.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::row::{Pool, Row, text, text_of};

/// Reads `train.jsonl` and `test.jsonl`; the test rows are held out.
pub(super) fn read(folder: &Path) -> Result<Pool> {
    let mut pool = Pool::default();
    pool.train = rows(&folder.join("train.jsonl"), &mut pool.unused)?;
    pool.heldout = rows(&folder.join("test.jsonl"), &mut pool.unused)?;
    Ok(pool)
}

fn rows(path: &Path, unused: &mut Vec<String>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (line, json) in text_of(path)?.lines().enumerate() {
        let place = format!("{}:{}", path.display(), line + 1);
        match row(json, place.clone()) {
            Ok(row) => rows.push(row),
            Err(reason) => unused.push(format!("{place}: {reason}")),
        }
    }
    Ok(rows)
}

fn row(json: &str, place: String) -> Result<Row, String> {
    let json: Value = serde_json::from_str(json).map_err(|e| format!("not JSON: {e}"))?;
    let prompt = text(&json, "question")?.to_owned();
    let answer = without_notes(text(&json, "answer")?)?;
    let number = answer.rsplit_once("#### ").map(|(_, number)| number.trim());
    if number.is_none_or(str::is_empty) {
        return Err("`answer` has no number after `####`".into());
    }
    Ok(Row {
        place,
        prompt,
        answer,
    })
}

/// The text without calculator notes, `<<48/2=24>>`.
fn without_notes(text: &str) -> Result<String, String> {
    let mut found = String::new();
    let mut rest = text;
    while let Some((before, note)) = rest.split_once("<<") {
        let (_, after) = note
            .split_once(">>")
            .ok_or("`answer` has `<<` without `>>`")?;
        found += before;
        rest = after;
    }
    Ok(found + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_removed_and_the_number_stays() {
        let json =
            r#"{"question": " How many? ", "answer": "2*3 = <<2*3=6>>6 and $<<1+1=2>>2.\n#### 8"}"#;
        let row = row(json, "a:1".into()).unwrap();
        assert_eq!(row.prompt, "How many?");
        assert_eq!(row.answer, "2*3 = 6 and $2.\n#### 8");
    }

    #[test]
    fn a_row_that_cannot_be_used_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let lines = [
            r#"{"question": "a", "answer": "b\n#### 1"}"#,
            "{",
            r#"{"question": "a"}"#,
            r#"{"question": "", "answer": "b\n#### 1"}"#,
            r#"{"question": "a", "answer": 3}"#,
            r#"{"question": "a", "answer": "one"}"#,
            r#"{"question": "a", "answer": "one\n#### "}"#,
            r#"{"question": "a", "answer": "<<1\n#### 1"}"#,
        ];
        let path = dir.path().join("train.jsonl");
        std::fs::write(&path, lines.join("\n")).unwrap();
        std::fs::write(dir.path().join("test.jsonl"), lines[0]).unwrap();
        let pool = read(dir.path()).unwrap();
        assert_eq!((pool.train.len(), pool.heldout.len()), (1, 1));
        let start = format!("{}:", path.display());
        let unused: Vec<_> = pool.unused.iter().map(|u| &u[start.len()..]).collect();
        assert!(unused[0].starts_with("2: not JSON: EOF"), "{}", unused[0]);
        let wanted = [
            "3: `answer` is missing",
            "4: `question` is empty",
            "5: `answer` is not text",
            "6: `answer` has no number after `####`",
            "7: `answer` has no number after `####`",
            "8: `answer` has `<<` without `>>`",
        ];
        assert_eq!(unused[1..], wanted);
    }

    #[test]
    fn a_missing_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = read(dir.path()).unwrap_err().to_string();
        let path = dir.path().join("train.jsonl");
        assert_eq!(error, format!("cannot read `{}`", path.display()));
    }
}
