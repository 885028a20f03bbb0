//! [`advice`]: what to do about the lines of a file if probably most of them cannot be used.

use std::path::Path;

use super::columns::Columns;
use super::find::is_data_file;

/// What to do, by the reason why a line cannot be used; `None` if that concerns this line only.
pub(super) fn advice(reason: &str, file: &Path, columns: &Columns) -> Option<String> {
    let is = |start: &str| reason.starts_with(start);
    if is("not UTF-8") {
        return Some(format!(
            "correct the line, or convert the file if all of it is in another encoding, such as \
             that of Windows: `iconv -f CP1252 -t UTF-8 {}`",
            file.display()
        ));
    }
    if is("not JSON: NaN ") || is("not JSON: Infinity ") {
        return Some("write null: JSON has no NaN and no Infinity".to_owned());
    }
    if is("not JSON") && !is_data_file(file) {
        return Some(
            "correct the line; if the file has no JSON lines, give a file .jsonl, .ndjson, .json, \
             .csv, .tsv or .parquet; any other file is read as JSON lines, where plain text is a row such as {\"text\": \"one two\"}"
                .to_owned(),
        );
    }
    let (key, what) = reason.strip_prefix('`')?.split_once("` is ")?;
    // The name in the file.
    let key = columns
        .iter()
        .find(|(_, to)| *to == key)
        .map_or(key, |(from, _)| from);
    match what {
        "a string and not a list" => Some(format!(
            "write the list as JSON, and not as Python prints it: in pandas, before `to_csv`, \
             `df[{key:?}] = df[{key:?}].map(json.dumps)`"
        )),
        "a list of rows and not a row" => Some(format!(
            "write the rows one a line: `jq -c '.[{key:?}][]' {} > rows.jsonl`",
            file.display()
        )),
        "a number and not a string" | "a boolean and not a string" => Some(format!(
            "write numbers, booleans and dates as text, in pandas: \
             `df[{key:?}] = df[{key:?}].astype(\"string\")`"
        )),
        _ => None,
    }
}
