//! [`Columns`]: other names for the keys of rows.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind};

/// New names for the keys of rows: `question=prompt,answer=completion`. All keys are renamed at
/// once, so `a=b,b=a` exchanges two keys. If a row already has a key of a new name, and that key is
/// not renamed itself, it is not used, and is listed in the [`Mapping`](crate::text::Mapping). A key
/// of the rows may have spaces around it.
///
/// # Example
///
/// ```
/// use lisa_lm::text::{Columns, ReadOptions, read_examples};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("train.csv");
/// std::fs::write(&path, "Title,Body\none,two\n").unwrap();
/// let columns: Columns = "Title=prompt,Body=completion".parse()?;
/// let read = read_examples(&[path], &ReadOptions { columns, ..Default::default() })?;
/// assert_eq!(read.examples[0].answer.as_deref(), Some("two"));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns(Vec<(String, String)>);

impl Columns {
    /// Each key of a file, and the name that it is read as.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(from, to)| (from.as_str(), to.as_str()))
    }

    /// Whether no key has another name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Columns {
    type Err = Error;

    /// Reads `KEY=NAME` pairs that are separated by commas. Empty text has none.
    ///
    /// # Errors
    ///
    /// A pair has no `=` or an empty side, or a key or a name is given twice.
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let sides = pair.split_once('=');
            let (from, to) = sides.map_or(("", ""), |(from, to)| (from.trim(), to.trim()));
            let problem = if from.is_empty() || to.is_empty() {
                "is not KEY=NAME"
            } else if pairs.iter().any(|(f, t)| f == from || t == to) {
                "repeats a key or a name"
            } else {
                pairs.push((from.to_owned(), to.to_owned()));
                continue;
            };
            let message = format!("`{pair}` in the columns `{text}` {problem}");
            return Err(Error::new(ErrorKind::Config, message)
                .with_help("give pairs such as question=prompt,answer=completion"));
        }
        Ok(Self(pairs))
    }
}

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|e: Error| D::Error::custom(e.message()))
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self
            .iter()
            .map(|(from, to)| format!("{from}={to}"))
            .collect();
        f.write_str(&pairs.join(","))
    }
}
