//! [`Mapping`]: the form in which the rows of the data were read.

use std::fmt;

use crate::files::shown;

/// How many keys that were not used are listed.
const UNUSED: usize = 20;

/// In which forms the rows of the data were read. `Display` writes one line for each form, and one
/// with the keys that were not used.
///
/// # Example
///
/// ```
/// use lisa_lm::text::{ReadOptions, read_examples};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("train.jsonl");
/// std::fs::write(&path, r#"{"id": 1, "question": "Two and two?", "answer": "4"}"#).unwrap();
/// let read = read_examples(&[path], &ReadOptions::default())?;
/// assert_eq!(
///     read.mapping.to_string(),
///     "1 row as one turn (question -> user, answer -> assistant)\nkeys not used: id"
/// );
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    forms: Vec<Form>,
    unused: Vec<String>,
    more_unused: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Form {
    name: &'static str,
    rows: usize,
    fields: Vec<(&'static str, &'static str)>,
}

/// As what one row was read.
pub(super) struct RowForm {
    pub(super) name: &'static str,
    /// What was read as what, where the names differ.
    pub(super) fields: Vec<(&'static str, &'static str)>,
    /// Fields of its messages that were not used.
    unused: Vec<String>,
}

impl RowForm {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            fields: Vec::new(),
            unused: Vec::new(),
        }
    }

    /// A field of a message that is not used.
    pub(super) fn ignores(&mut self, field: &str) {
        self.unused.push(format!("{field} of a message"));
    }

    pub(super) fn reads(&mut self, from: &'static str, to: &'static str) {
        if !self.fields.contains(&(from, to)) {
            self.fields.push((from, to));
        }
    }
}

impl Mapping {
    pub(super) fn count<'a>(&mut self, row: &'a RowForm, unused: impl Iterator<Item = &'a str>) {
        let index = self.forms.iter().position(|form| form.name == row.name);
        let index = index.unwrap_or_else(|| {
            self.forms.push(Form {
                name: row.name,
                rows: 0,
                fields: Vec::new(),
            });
            self.forms.len() - 1
        });
        let form = &mut self.forms[index];
        form.rows += 1;
        for field in &row.fields {
            if !form.fields.contains(field) {
                form.fields.push(*field);
            }
        }
        for key in unused.chain(row.unused.iter().map(String::as_str)) {
            if self.unused.iter().any(|known| known == key) {
                continue;
            }
            if self.unused.len() < UNUSED {
                self.unused.push(key.to_owned());
            } else {
                self.more_unused = true;
            }
        }
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, form) in self.forms.iter().enumerate() {
            let line = if at == 0 { "" } else { "\n" };
            let noun = if form.rows == 1 { "row" } else { "rows" };
            write!(f, "{line}{} {noun} as {}", form.rows, form.name)?;
            let fields: Vec<String> = (form.fields.iter())
                .map(|(from, to)| format!("{from} -> {to}"))
                .collect();
            if !fields.is_empty() {
                write!(f, " ({})", fields.join(", "))?;
            }
        }
        if !self.unused.is_empty() {
            // A key may be any text.
            let escaped = |key: &String| match key.as_str() {
                // pandas writes such a column for the numbers of its rows.
                "" => "the column without a name".to_owned(),
                key => shown(&key.escape_debug()),
            };
            let unused: Vec<String> = self.unused.iter().map(escaped).collect();
            let more = if self.more_unused { ", .." } else { "" };
            write!(f, "\nkeys not used: {}{more}", unused.join(", "))?;
        }
        Ok(())
    }
}
