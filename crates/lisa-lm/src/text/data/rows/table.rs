//! CSV and TSV: the first row has the names of the columns. An empty cell has no value.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use csv::{ByteRecord, ReaderBuilder};
use minijinja::value::Value;

use super::{LINE_BYTES, Row, Rows, Text, unreadable};
use crate::error::{Error, ErrorKind};
use crate::place::Place;

/// The rows of a table whose cells are separated by `separator`.
pub(super) fn rows(file: Arc<Path>, text: Text, separator: u8) -> Result<Rows, Error> {
    let bytes = Bytes::default();
    let counted = Counted {
        text,
        separator,
        bytes: bytes.clone(),
        end: io::Cursor::new([b"\n", END].concat()),
    };
    let mut reader = ReaderBuilder::new()
        .delimiter(separator)
        .flexible(true)
        .from_reader(counted);
    bytes.next_row();
    let header = reader.byte_headers().map_err(|e| failed(&file, e))?;
    if header.iter().eq([END]) {
        return Ok(Box::new(std::iter::empty()));
    }
    if is_open(header) {
        return Err(unclosed(&file, 1));
    }
    let names = names_of(&file, header)?;
    if bytes.is_garbled_before(reader.position().byte()) {
        return Err(garbled(&file, 1, separator));
    }
    let mut record = ByteRecord::new();
    Ok(Box::new(std::iter::from_fn(move || {
        bytes.next_row();
        match reader.read_byte_record(&mut record) {
            Err(error) => return Some(Err(failed(&file, error))),
            Ok(false) => return None,
            Ok(true) => {}
        }
        if record.iter().eq([END]) {
            return None;
        }
        let line = bytes.line_from(record.position().map_or(0, csv::Position::byte));
        if is_open(&record) {
            return Some(Err(unclosed(&file, line)));
        }
        if bytes.is_garbled_before(reader.position().byte()) {
            return Some(Err(garbled(&file, line, separator)));
        }
        let place = Place::at_line(Arc::clone(&file), line);
        let value = row_of(&names, &record);
        Some(Ok(Row { place, value }))
    })))
}

/// What follows the end of a file: a last row, or the end of a cell whose quote is not closed.
const END: &[u8] = b"\x03\x03end of the table\x03\x03";

/// Whether the last cell has no end.
fn is_open(record: &ByteRecord) -> bool {
    record
        .iter()
        .next_back()
        .is_some_and(|cell| cell.ends_with(END))
}

// Errors of a table as a whole have no line: one with a line is of a row that can be left out.

fn unclosed(file: &Path, line: usize) -> Error {
    let message = format!(
        "a quote in the row of line {line} is not closed, so the rest of the file is in this row"
    );
    Error::new(ErrorKind::Data, message)
        .with_place(file, None)
        .with_help("close the quote, or write a quote inside of a cell as two")
}

/// The crate `csv` reads such text as part of the cell, without the first two quotes.
fn garbled(file: &Path, line: usize, separator: u8) -> Error {
    let message = format!("in the row of line {line}, text follows the closing quote of a cell");
    let name = file.display();
    let help = if separator == b'\t' {
        format!(
            "if the quotes are part of the text, convert the file in Python: `import pandas; \
             pandas.read_csv('{name}', sep='\\t', quoting=3, dtype=str, na_filter=False)\
             .to_csv('converted.csv', index=False)`"
        )
    } else {
        format!(
            "put quotes around the cell, and write a quote inside of it as two; if the file has a \
             backslash before it: `sed 's/\\\\\"/\"\"/g' {name} > converted.csv`"
        )
    };
    Error::new(ErrorKind::Data, message)
        .with_place(file, None)
        .with_help(help)
}

fn names_of(file: &Path, header: &ByteRecord) -> Result<Vec<String>, Error> {
    let names = header
        .iter()
        .map(|name| String::from_utf8_lossy(name).trim().to_owned());
    let names: Vec<String> = names.collect();
    if let [name] = names.as_slice()
        && let Some(other) = name.chars().find(|c| matches!(c, ';' | '\t' | '|'))
    {
        let message =
            format!("the header has one column, {name:?}; are the columns separated by {other:?}?");
        return Err(Error::new(ErrorKind::Data, message)
            .with_place(file, None)
            .with_help("separate them with commas, or with tabs in a file .tsv"));
    }
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(*name)) {
        None => Ok(names),
        Some(twice) => {
            let message = format!("the header has the column {twice:?} twice");
            Err(Error::new(ErrorKind::Data, message)
                .with_place(file, None)
                .with_help("give each column a name of its own"))
        }
    }
}

fn row_of(names: &[String], record: &ByteRecord) -> Result<Value, String> {
    if record.len() != names.len() {
        return Err(format!(
            "{} cells, and the header has {}",
            record.len(),
            names.len()
        ));
    }
    let mut fields = Vec::new();
    for (name, cell) in names.iter().zip(record) {
        let cell = std::str::from_utf8(cell).map_err(|e| format!("not UTF-8: {e}"))?;
        let value = match cell {
            "" => Value::from(()),
            text => Value::from(text),
        };
        fields.push((name.clone(), value));
    }
    Ok(fields.into_iter().collect())
}

fn failed(file: &Path, error: csv::Error) -> Error {
    let line = error.position().map(csv::Position::line);
    let line = line.map(|line| format!(" from line {line} on"));
    let line = line.unwrap_or_default();
    match error.into_kind() {
        csv::ErrorKind::Io(error) => unreadable(file, error),
        other => Error::new(ErrorKind::Data, format!("not a table{line}: {other:?}"))
            .with_place(file, None)
            .with_help("correct the file: all rows have as many cells as the header"),
    }
}

/// What is known of the bytes that were read.
#[derive(Clone, Default)]
struct Bytes(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    /// How many bytes may still be read for the current row.
    left: usize,
    read: u64,
    breaks: usize,
    is_in_line: bool,
    /// Where lines that are not blank begin: the byte, and the number of the line. The crate `csv`
    /// counts blank lines to the row after them.
    starts: VecDeque<(u64, usize)>,
    cell: Cell,
    /// The first byte that follows the closing quote of a cell.
    garbled: Option<u64>,
}

/// Where in its cell the last byte is.
#[derive(Clone, Copy, Default, PartialEq)]
enum Cell {
    #[default]
    Start,
    Plain,
    Quoted,
    /// At a quote that closes the cell, or is the first of two.
    Closed,
    /// In spaces after the quote that closes the cell.
    Padded,
    /// In other text after it.
    Garbled,
}

impl Cell {
    fn then(self, byte: u8, separator: u8) -> Self {
        match (self, byte) {
            (Self::Quoted, b'"') => Self::Closed,
            (Self::Quoted, _) | (Self::Closed | Self::Start, b'"') => Self::Quoted,
            (_, b'\r' | b'\n') => Self::Start,
            (_, byte) if byte == separator => Self::Start,
            (Self::Closed | Self::Padded, b' ') => Self::Padded,
            (Self::Closed | Self::Padded | Self::Garbled, _) => Self::Garbled,
            _ => Self::Plain,
        }
    }
}

impl Bytes {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_row(&self) {
        self.counts().left = LINE_BYTES;
    }

    /// Whether text follows the closing quote of a cell before this byte.
    fn is_garbled_before(&self, byte: u64) -> bool {
        self.counts().garbled.is_some_and(|at| at < byte)
    }

    /// The line of the row that was found from this byte on.
    fn line_from(&self, byte: u64) -> usize {
        let mut counts = self.counts();
        while counts.starts.front().is_some_and(|(at, _)| *at < byte) {
            counts.starts.pop_front();
        }
        counts
            .starts
            .front()
            .map_or(counts.breaks + 1, |(_, line)| *line)
    }
}

/// A text whose bytes are counted. It ends in an error if one row is too long, as after a quote
/// that is never closed.
struct Counted {
    text: Text,
    separator: u8,
    bytes: Bytes,
    /// What follows the text.
    end: io::Cursor<Vec<u8>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut counts = self.bytes.counts();
        if counts.left == 0 {
            let message =
                format!("a row is longer than {LINE_BYTES} bytes; is a quote not closed?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let wanted = buffer.len().min(counts.left);
        let count = self.text.read(&mut buffer[..wanted])?;
        if count == 0 {
            return self.end.read(buffer);
        }
        counts.left -= count;
        for byte in &buffer[..count] {
            let is_break = matches!(byte, b'\r' | b'\n');
            if !is_break && !counts.is_in_line {
                let start = (counts.read, counts.breaks + 1);
                counts.starts.push_back(start);
            }
            counts.is_in_line = !is_break;
            counts.cell = counts.cell.then(*byte, self.separator);
            if counts.cell == Cell::Garbled {
                let at = counts.read;
                counts.garbled.get_or_insert(at);
            }
            counts.breaks += usize::from(*byte == b'\n');
            counts.read += 1;
        }
        Ok(count)
    }
}
