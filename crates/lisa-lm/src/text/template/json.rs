//! `tojson`, which writes as Python's `json.dumps` does.

use minijinja::Error;
use minijinja::value::{Kwargs, Rest, Value, ValueKind, from_args};

use super::python;
use super::refusal::refuse;

/// The arguments of `json.dumps`, with the defaults of transformers.
struct Options {
    ensure_ascii: bool,
    /// The indentation of one level; `None`: everything is on one line.
    indent: Option<String>,
    /// The separators between elements, and between a key and its value.
    separators: (String, String),
    sort_keys: bool,
}

/// `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`. HTML is not
/// escaped.
pub(super) fn to_json(value: &Value, arguments: Rest<Value>) -> Result<String, Error> {
    let (given, named): (&[Value], Kwargs) = from_args(&arguments)?;
    let argument = |at: usize, name| match given.get(at) {
        Some(given) => Ok(given.clone()),
        None => Ok::<_, Error>(named.get::<Option<Value>>(name)?.unwrap_or_default()),
    };
    let ensure_ascii = argument(0, "ensure_ascii")?.is_true();
    let indent = argument(1, "indent")?;
    let separators = argument(2, "separators")?;
    let sort_keys = argument(3, "sort_keys")?.is_true();
    named.assert_all_used()?;
    let indent = match (indent.as_str(), indent.as_usize()) {
        (Some(text), _) => Some(text.to_owned()),
        (None, Some(width)) => Some(" ".repeat(width.min(100))),
        (None, None) => None,
    };
    let separators = match separators.kind() {
        ValueKind::Seq => {
            let text = |at| {
                separators
                    .get_item_by_index(at)
                    .map(|text| text.to_string())
            };
            (text(0)?, text(1)?)
        }
        _ if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        _ => (", ".to_owned(), ": ".to_owned()),
    };
    let options = Options {
        ensure_ascii,
        indent,
        separators,
        sort_keys,
    };
    let mut out = String::new();
    options.write(value, 0, &mut out)?;
    Ok(out)
}

impl Options {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&match python::number(value) {
                text if text == "nan" => "NaN".to_owned(),
                text => text.replace("inf", "Infinity"),
            }),
            ValueKind::String => self.write_text(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let elements = value.try_iter()?.map(|element| (None, element));
                self.write_all(['[', ']'], elements.collect(), depth, out)?;
            }
            ValueKind::Map => {
                let mut entries = Vec::new();
                for key in value.try_iter()? {
                    let element = value.get_item(&key)?;
                    entries.push((Some(python::text_of(&key)?), element));
                }
                if self.sort_keys {
                    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.write_all(['{', '}'], entries, depth, out)?;
            }
            other => return Err(refuse(format!("{other} is not JSON serializable"))),
        }
        Ok(())
    }

    fn write_all(
        &self,
        brackets: [char; 2],
        elements: Vec<(Option<String>, Value)>,
        depth: usize,
        out: &mut String,
    ) -> Result<(), Error> {
        if depth > python::DEPTH {
            return Err(refuse(format!(
                "values are nested more than {} deep",
                python::DEPTH
            )));
        }
        let is_empty = elements.is_empty();
        let line = |depth: usize, out: &mut String| {
            if let Some(indent) = self.indent.as_ref().filter(|_| !is_empty) {
                out.push('\n');
                out.push_str(&indent.repeat(depth));
            }
        };
        out.push(brackets[0]);
        for (at, (key, element)) in elements.into_iter().enumerate() {
            if at > 0 {
                out.push_str(&self.separators.0);
            }
            line(depth + 1, out);
            if let Some(key) = key {
                self.write_text(&key, out);
                out.push_str(&self.separators.1);
            }
            self.write(&element, depth + 1, out)?;
        }
        line(depth, out);
        out.push(brackets[1]);
        Ok(())
    }

    fn write_text(&self, text: &str, out: &mut String) {
        // serde_json writes what Python writes, except for text outside ASCII.
        let quoted = serde_json::Value::from(text).to_string();
        if !self.ensure_ascii {
            out.push_str(&quoted);
            return;
        }
        for character in quoted.chars() {
            if (' '..='~').contains(&character) {
                out.push(character);
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
}
