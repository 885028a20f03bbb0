//! What is wrong with a settings file, and what to do.

use std::path::Path;

use super::super::{names, others};
use super::keys;

/// The message and the help of a setting that is given as a table, such as `[[datasets]]`.
pub(super) fn table_in_words(key: &str, name: &str) -> (String, String) {
    let help = match name {
        "data" => {
            "write `data = \"FILE\"`, or `data = [\"FILE\", ..]`, above the first line `[..]`; the keys of the \
             rows say how they become text, and `columns` renames them"
                .to_owned()
        }
        name => format!("the settings are not in tables: write `{name} = ..` above the first line `[..]`"),
    };
    (format!("`{key}` is a table"), help)
}

/// A key that is not a setting.
pub(super) struct Unknown {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) is_table: bool,
    /// Whether a table is written in the line of its key, and not below a line `[..]`.
    pub(super) is_inline: bool,
}

impl Unknown {
    /// All of them in a sentence.
    pub(super) fn message(all: &[Self]) -> String {
        if let [one] = all {
            return format!("`{}` is not a setting", one.key);
        }
        let all = all.iter();
        let all: Vec<String> = all
            .map(|one| format!("`{}` (line {})", one.key, one.line))
            .collect();
        format!("these are not settings: {}", all.join(", "))
    }

    /// What to do about all of them.
    pub(super) fn help(all: &[Self]) -> String {
        const TABLES: &str = "the settings are not in tables: remove the line `[..]`";
        const INLINE: &str = "no setting is a table: write what is in it as settings of their own, or \
                              leave it out";
        const LIST: &str = "`lisa train --help` lists the settings";
        if let [one] = all {
            return match (others::advice(&one.key), nearest(&one.key)) {
                (Some(advice), _) => advice.to_owned(),
                _ if one.is_table && one.is_inline => INLINE.to_owned(),
                _ if one.is_table => TABLES.to_owned(),
                (_, Some(near)) => format!("did you mean `{near}`?"),
                _ => LIST.to_owned(),
            };
        }
        let (known, all): (Vec<&Self>, Vec<&Self>) =
            (all.iter()).partition(|one| others::advice(&one.key).is_some());
        let near = all.iter().filter(|one| !one.is_table).filter_map(|one| {
            let near = nearest(&one.key)?;
            Some(format!("`{near}` for `{}`", one.key))
        });
        let near: Vec<String> = near.collect();
        let mut help = Vec::new();
        if !near.is_empty() {
            help.push(format!("did you mean {}?", near.join(", ")));
        }
        for (words, is_inline) in [(TABLES, false), (INLINE, true)] {
            let is_so = |one: &&Self| one.is_table && one.is_inline == is_inline;
            if all.iter().any(is_so) {
                help.push(words.to_owned());
            }
        }
        if !all.is_empty() {
            help.push(LIST.to_owned());
        }
        for one in known {
            let advice = others::advice(&one.key).unwrap_or_default();
            help.push(format!("`{}`: {advice}", one.key));
        }
        help.join("\n")
    }
}

/// The known name that is nearest to an unknown key.
fn nearest(key: &str) -> Option<String> {
    let keys: Vec<String> = keys::all()
        .iter()
        .map(|key| key.replace('_', "-"))
        .collect();
    names::nearest(key, keys.iter().map(String::as_str))
}

/// What to do about a text that is not TOML, but looks like another format.
pub(super) fn foreign(text: &str, path: &Path) -> Option<&'static str> {
    let is_yaml = |line: &str| {
        let key = line
            .split_once(':')
            .filter(|(_, rest)| rest.is_empty() || rest.starts_with([' ', '\t']));
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        line == "---" || key.is_some_and(|(key, _)| !key.is_empty() && key.chars().all(is_word))
    };
    let ending = path.extension().map(std::ffi::OsStr::to_ascii_lowercase);
    let is_named_yaml = ending.is_some_and(|end| end == "yaml" || end == "yml");
    if text.trim_start().starts_with('{') {
        Some("this looks like JSON: write `key = value`, each on a line of its own")
    } else if is_named_yaml || text.lines().any(|line| is_yaml(line.trim_end())) {
        Some("this looks like YAML: write `key = value`, with a text in double quotes")
    } else {
        None
    }
}

/// The message with the words of the settings for Rust's types, and what to do.
pub(super) fn in_words(message: &str) -> (String, String) {
    let quoted = |text: &str| -> Vec<String> {
        let parts = text.split('`').skip(1).step_by(2);
        parts.map(str::to_owned).collect()
    };
    if let Some((found, known)) = message.split_once(", expected ")
        && let Some([found]) = found
            .strip_prefix("unknown variant ")
            .map(quoted)
            .as_deref()
    {
        let known = quoted(known);
        let near = names::nearest(found, known.iter().map(String::as_str));
        let help = near.map_or_else(
            || format!("give one of {}", known.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        let message = format!("`{found}` is not one of {}", known.join(", "));
        return (message, help);
    }
    if message.starts_with("invalid mantissa, expected ") {
        let message = "the value begins with `.`".to_owned();
        let help = "put a text in double quotes; a number has a digit before the point: 0.5";
        return (message, help.to_owned());
    }
    // A text that begins as `nan`, `inf`, `true` or `false` does is read as such.
    let unquoted = [
        "string values must be quoted",
        "invalid float, expected ",
        "invalid boolean, expected ",
    ];
    if unquoted.iter().any(|start| message.starts_with(start)) {
        let message = "the value is missing, or is a text without quotes".to_owned();
        return (
            message,
            "put a text in double quotes; a switch is true or false".to_owned(),
        );
    }
    let escapes = ["missing escaped value", "too few unicode value digits"];
    if escapes.iter().any(|start| message.starts_with(start)) {
        let message = "a text in double quotes has a `\\` that begins no escape".to_owned();
        let help = "put a path with `\\` in single quotes, such as 'C:\\models'".to_owned();
        return (message, help);
    }
    let help = match message {
        "duplicate key" => "leave one of them out",
        _ => "`lisa train --help` lists the settings and their values",
    };
    let message = message
        .replace("expected usize", "expected a whole number, 0 or more")
        .replace("expected u64", "expected a whole number, 0 or more")
        .replace("expected f64", "expected a number")
        .replace("invalid type: sequence", "invalid type: a list")
        .replace("expected a sequence", "expected a list")
        .replace("expected a boolean", "expected true or false");
    (message, help.to_owned())
}
