//! [`Row`], a question with its answer, and [`Pool`], the rows of a data set by their purpose.

use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A question with its answer, and where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) place: String,
    pub(super) prompt: String,
    pub(super) answer: String,
}

impl Row {
    /// The row as a line of JSON: a chat of two messages.
    pub(super) fn line(&self) -> String {
        // `json!` of an object sorts the keys by name in some builds. This order is that of other trainers.
        let message = |role: &str, content: &str| {
            let content = json!(content);
            format!(r#"{{"role":"{role}","content":{content}}}"#)
        };
        let user = message("user", &self.prompt);
        let assistant = message("assistant", &self.answer);
        format!("{{\"messages\":[{user},{assistant}]}}\n")
    }
}

/// The rows of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pool {
    pub(super) train: Vec<Row>,
    /// Rows that the data set, or its reader, sets aside for validation. If there are none, they are
    /// taken from the training rows.
    pub(super) validation: Vec<Row>,
    pub(super) heldout: Vec<Row>,
    /// Rows that cannot be used: the place and the reason.
    pub(super) unused: Vec<String>,
    /// What was done to the rows, for the report.
    pub(super) remark: Option<String>,
}

/// Reads JSON from a file.
pub(super) fn json_of<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&text_of(path)?)
        .with_context(|| format!("`{}` has another form", path.display()))
}

/// Reads a file of text.
pub(super) fn text_of(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}

/// The text of a key of a row, without white space at its ends; the reason where there is none.
pub(super) fn text<'a>(row: &'a Value, key: &str) -> Result<&'a str, String> {
    let value = row.get(key).ok_or_else(|| format!("`{key}` is missing"))?;
    let text = value.as_str().map(str::trim);
    let text = text.ok_or_else(|| format!("`{key}` is not text"))?;
    if text.is_empty() {
        return Err(format!("`{key}` is empty"));
    }
    Ok(text)
}

#[test]
fn a_row_is_a_chat() {
    let row = Row {
        place: String::new(),
        prompt: "Say \"a\".\nNow.".into(),
        answer: "é".into(),
    };
    let wanted = r#"{"messages":[{"role":"user","content":"Say \"a\".\nNow."},{"role":"assistant","content":"é"}]}"#;
    assert_eq!(row.line(), format!("{wanted}\n"));
}
