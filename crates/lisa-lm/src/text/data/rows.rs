//! [`rows`]: the rows of one file, in whatever container they are.
//!
//! The first bytes determine whether a file is compressed or a Parquet file; the extension
//! determines whether it is a table. Everything else is JSON.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use minijinja::value::Value;

use crate::error::{Error, ErrorKind};
use crate::files;
use crate::place::Place;

mod json;
mod lines;
#[cfg(feature = "parquet")]
mod parquet;
mod table;
mod unread;

/// The largest size of a row of a text file, 64 MiB. A longer row cannot be used.
pub const LINE_BYTES: usize = 64 << 20;

/// The most values in a row of a text file. A row of more values cannot be used: as a tree, its values
/// take a hundred times the memory of its text.
const VALUES: usize = 1 << 20;

/// A row and its place, or why it cannot be read. The error of the iterator ends the file.
pub(super) type Rows = Box<dyn Iterator<Item = Result<Row, Error>> + Send>;

pub(super) struct Row {
    pub(super) place: Place,
    pub(super) value: Result<Value, String>,
}

/// The text of a file, decompressed.
type Text = Box<dyn BufRead + Send>;

/// Opens a file. Rows are read when the iterator is advanced.
pub(super) fn rows(file: &Path) -> Result<Rows, Error> {
    let failed = |e| unreadable(file, e);
    let mut reader = files::open(file).map_err(failed)?;
    let mut first = reader.fill_buf().map_err(failed)?;
    let name = file.to_string_lossy().to_lowercase();
    if first.starts_with(b"PAR1") {
        return parquet_rows(file, reader);
    }
    let mut text: Text = if first.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = BufReader::new(MultiGzDecoder::new(reader));
        first = unpacked.fill_buf().map_err(failed)?;
        unread::refuse(file, first)?;
        Box::new(unpacked)
    } else {
        unread::refuse(file, first)?;
        Box::new(reader)
    };
    if text
        .fill_buf()
        .map_err(failed)?
        .starts_with(b"\xef\xbb\xbf")
    {
        text.consume(3);
    }
    let shared: Arc<Path> = Arc::from(file);
    let name = Path::new(name.strip_suffix(".gz").unwrap_or(&name));
    match name.extension().and_then(OsStr::to_str) {
        Some("csv") => table::rows(shared, text, b','),
        Some("tsv") => table::rows(shared, text, b'\t'),
        Some("parquet") => Err(Error::new(
            ErrorKind::Data,
            "it is not a Parquet file, which begins with PAR1",
        )
        .with_place(file, None)
        .with_help("fetch the file again")),
        extension => json::rows(shared, text, extension == Some("json")),
    }
}

#[cfg(feature = "parquet")]
fn parquet_rows(file: &Path, reader: BufReader<File>) -> Result<Rows, Error> {
    parquet::rows(Arc::from(file), reader.into_inner())
}

#[cfg(not(feature = "parquet"))]
fn parquet_rows(file: &Path, _: BufReader<File>) -> Result<Rows, Error> {
    let message = "it is a Parquet file, which needs the feature `parquet` of lisa-lm";
    Err(Error::new(ErrorKind::Data, message)
        .with_place(file, None)
        .with_help("build with that feature, or convert the file to JSON lines"))
}

pub(super) fn unreadable(path: &Path, error: io::Error) -> Error {
    let message = format!("the data {} cannot be read ({error})", path.display());
    let reason = error.to_string();
    let is_damaged = error.kind() == io::ErrorKind::UnexpectedEof
        || reason.contains("corrupt")
        || reason.contains("gzip");
    let help = if is_damaged {
        "the compressed file is cut short or damaged: fetch it again"
    } else {
        "give a file of JSON lines, JSON, CSV or Parquet, or a folder of them"
    };
    Error::new(ErrorKind::Io, message)
        .with_help(files::help_of(&error, help))
        .with_source(error)
}

/// The number of line breaks.
fn breaks_in(text: &[u8]) -> usize {
    text.split(|byte| *byte == b'\n').count() - 1
}

/// Whether JSON text has more than this many values, or nearly so.
fn more_values_than(most: usize, text: &str) -> bool {
    let (mut count, mut in_string, mut is_escaped) = (0, false, false);
    for byte in text.bytes() {
        if in_string {
            in_string = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
        } else if byte == b'"' {
            in_string = true;
        } else if matches!(byte, b',' | b'[' | b'{') {
            count += 1;
        }
    }
    count > most
}

/// What Python writes for numbers that JSON does not have.
const PYTHON_NUMBERS: [&str; 2] = ["NaN", "Infinity"];

/// The value of JSON text, or why it is none. The error's first part is the number of line breaks
/// before the fault.
fn value_of(text: &[u8]) -> Result<Value, (usize, String)> {
    let text = std::str::from_utf8(text).map_err(|e| {
        let breaks = breaks_in(&text[..e.valid_up_to()]);
        (breaks, format!("not UTF-8: {e}"))
    })?;
    if text.len() > VALUES && more_values_than(VALUES, text) {
        return Err((0, format!("more than {VALUES} values")));
    }
    crate::text::json::value_of(text).map_err(|e| {
        let (whole, line) = (e.to_string(), e.line().saturating_sub(1));
        let rest = text.lines().nth(line);
        let rest = rest.and_then(|text| text.get(e.column().saturating_sub(1)..));
        let number = PYTHON_NUMBERS
            .into_iter()
            .find(|number| rest.is_some_and(|rest| rest.starts_with(number)));
        let reason = match whole.rsplit_once(" at line ") {
            Some((reason, _)) => format!("{} at column {}", number.unwrap_or(reason), e.column()),
            None => whole,
        };
        (line, format!("not JSON: {reason}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_texts() {
        for (text, values) in [
            (r#"{"a": [1, 2, {"b": null}]}"#, 5),
            (r#"{"a": ",,,[[[{{{", "b\"": "\\"}"#, 2),
            (r#""\\\", [" "#, 0),
            ("7", 0),
        ] {
            assert!(!more_values_than(values, text), "{text}");
            assert!(values == 0 || more_values_than(values - 1, text), "{text}");
        }
    }

    #[test]
    fn a_row_of_too_many_values_cannot_be_used_and_a_long_text_can() {
        let most = format!("[{}0]", "0,".repeat(VALUES - 2));
        assert!(value_of(most.as_bytes()).is_ok());
        let more = format!("[{}0]", "0,".repeat(VALUES));
        let reason = value_of(more.as_bytes()).unwrap_err().1;
        assert_eq!(reason, "more than 1048576 values");
        let text = format!("[\"{}\"]", ",[{".repeat(VALUES));
        assert!(value_of(text.as_bytes()).is_ok());
    }

    #[test]
    fn the_help_for_data_that_may_not_be_read_is_about_its_permissions() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = unreadable(Path::new("a.jsonl"), denied);
        assert_eq!(error.help(), Some("check who may read it"));
    }
}
