//! An instruction set: a JSON array of rows with `instruction`, `input` and `output`.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::row::{Pool, Row, json_of, text};

/// Of every ten rows, the fifth and the tenth are held out, and the first is for validation.
pub(super) fn read(path: &Path) -> Result<Pool> {
    let mut pool = Pool::default();
    let rows: Vec<Value> = json_of(path)?;
    for (index, json) in rows.iter().enumerate() {
        let number = index + 1;
        let place = format!("{}, row {number}", path.display());
        match row(json, place.clone()) {
            Err(reason) => pool.unused.push(format!("{place}: {reason}")),
            Ok(row) if number % 5 == 0 => pool.heldout.push(row),
            Ok(row) if number % 10 == 1 => pool.validation.push(row),
            Ok(row) => pool.train.push(row),
        }
    }
    Ok(pool)
}

/// The prompt is the instruction, and the input on a line of its own.
fn row(json: &Value, place: String) -> Result<Row, String> {
    let mut prompt = text(json, "instruction")?.to_owned();
    let answer = text(json, "output")?.to_owned();
    match json.get("input").map(Value::as_str) {
        None | Some(Some("")) => {}
        Some(Some(input)) => prompt = format!("{prompt}\n{}", input.trim()),
        Some(None) => return Err("`input` is not text".into()),
    }
    Ok(Row {
        place,
        prompt: prompt.trim_end().to_owned(),
        answer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_split_by_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.json");
        let rows: Vec<String> = (1..=21)
            .map(|n| format!(r#"{{"instruction": "{n}", "input": "", "output": "a"}}"#))
            .collect();
        std::fs::write(&path, format!("[{}]", rows.join(","))).unwrap();
        let pool = read(&path).unwrap();
        let prompts = |rows: &[Row]| -> Vec<usize> {
            rows.iter().map(|row| row.prompt.parse().unwrap()).collect()
        };
        assert_eq!(prompts(&pool.heldout), [5, 10, 15, 20]);
        assert_eq!(prompts(&pool.validation), [1, 11, 21]);
        assert_eq!(pool.train.len(), 14);
    }

    #[test]
    fn an_input_is_a_line_of_its_own() {
        let row = |json: &str| row(&serde_json::from_str(json).unwrap(), "set, row 1".into());
        let made = row(r#"{"instruction": "Add. ", "input": " 1 2", "output": "3\n"}"#).unwrap();
        assert_eq!(
            (made.prompt.as_str(), made.answer.as_str()),
            ("Add.\n1 2", "3")
        );
        for json in [
            r#"{"instruction": "Add.", "input": "", "output": "3"}"#,
            r#"{"instruction": "Add.", "input": " ", "output": "3"}"#,
            r#"{"instruction": "Add.", "output": "3"}"#,
        ] {
            assert_eq!(row(json).unwrap().prompt, "Add.");
        }
        for (json, reason) in [
            (
                r#"{"input": "", "output": "3"}"#,
                "`instruction` is missing",
            ),
            (
                r#"{"instruction": "a", "output": " "}"#,
                "`output` is empty",
            ),
            (
                r#"{"instruction": "a", "input": 1, "output": "3"}"#,
                "`input` is not text",
            ),
        ] {
            assert_eq!(row(json).unwrap_err(), reason);
        }
    }

    #[test]
    fn a_file_of_another_form_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.json");
        std::fs::write(&path, r#"{"instruction": "a"}"#).unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        let start = format!(
            "`{}` has another form: invalid type: map, expected a sequence",
            path.display()
        );
        assert!(error.starts_with(&start), "{error}");
    }
}
