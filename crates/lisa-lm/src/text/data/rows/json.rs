//! JSON: one row a line, a list of rows, or an object of rows by id.
//!
//! A list and an object are read one row at a time. A scanner finds where a row ends, so the rest
//! of the file is not in memory, and a row that is no JSON does not hide the next one.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use minijinja::value::{Value, ValueKind};

use super::{LINE_BYTES, Row, Rows, Text, breaks_in, lines, unreadable, value_of};
use crate::error::{Error, ErrorKind};
use crate::files::shown;
use crate::place::Place;
use crate::text::data::object::kind_of;

/// What a file may be.
const FORMS: &str = "a .json file has a list of rows, an object of rows by id, or one row a line";

/// The rows of a file. Only a `.json` file may be an object of rows.
pub(super) fn rows(file: Arc<Path>, mut text: Text, may_be_object: bool) -> Result<Rows, Error> {
    let failed = |e| unreadable(&file, e);
    let blank = skip_blank(&mut text).map_err(failed)?;
    let line = blank + 1;
    let first = text.fill_buf().map_err(failed)?.first().copied();
    if first == Some(b'[') {
        text.consume(1);
        return Ok(Scanner::rows(file, text, line, b']'));
    }
    if first != Some(b'{') || !may_be_object {
        return Ok(lines::rows(file, text, line));
    }
    let mut start = Vec::new();
    let mut next = |text: &mut Text| {
        let before = start.len();
        let limit = LINE_BYTES as u64;
        text.take(limit)
            .read_until(b'\n', &mut start)
            .map_err(failed)?;
        Ok::<_, Error>(value_of(&start[before..]))
    };
    let is_line = match next(&mut text)? {
        Ok(value) => !is_object_of_objects(&value),
        // Either the object has many lines, or this line is bad and the next one is a row.
        Err(_) => next(&mut text)?.is_ok_and(|row| row.kind() == ValueKind::Map),
    };
    let mut text: Text = Box::new(BufReader::new(Cursor::new(start).chain(text)));
    if is_line {
        return Ok(lines::rows(file, text, line));
    }
    text.consume_first().map_err(failed)?;
    Ok(Scanner::rows(file, text, line, b'}'))
}

trait ConsumeFirst {
    fn consume_first(&mut self) -> io::Result<()>;
}

impl ConsumeFirst for Text {
    /// Skips the first byte.
    fn consume_first(&mut self) -> io::Result<()> {
        self.fill_buf()?;
        self.consume(1);
        Ok(())
    }
}

fn is_object_of_objects(value: &Value) -> bool {
    let Ok(mut keys) = value.try_iter() else {
        return false;
    };
    let is_object = |key| {
        let row = value.get_item(&key);
        row.is_ok_and(|row| row.kind() == ValueKind::Map)
    };
    value.len() > Some(0) && keys.all(is_object)
}

/// Skips spaces and line breaks; the number of line breaks.
fn skip_blank(text: &mut Text) -> io::Result<usize> {
    let mut breaks = 0;
    loop {
        let bytes = text.fill_buf()?;
        let blank = bytes.iter().take_while(|byte| byte.is_ascii_whitespace());
        let (mut count, available) = (0, bytes.len());
        for byte in blank {
            count += 1;
            breaks += usize::from(*byte == b'\n');
        }
        text.consume(count);
        if count < available || available == 0 {
            return Ok(breaks);
        }
    }
}

/// Reads the rows of a list or an object, whose opening bracket is consumed.
struct Scanner {
    file: Arc<Path>,
    text: Text,
    /// The current line, from 1.
    line: usize,
    /// The closing bracket: `]` or `}`.
    close: u8,
    /// The key of the current row, if the rows are in an object.
    key: String,
    value: Vec<u8>,
    is_first: bool,
    is_done: bool,
}

impl Scanner {
    fn rows(file: Arc<Path>, text: Text, line: usize, close: u8) -> Rows {
        let mut scanner = Self {
            file,
            text,
            line,
            close,
            key: String::new(),
            value: Vec::new(),
            is_first: true,
            is_done: false,
        };
        Box::new(std::iter::from_fn(move || {
            if scanner.is_done {
                return None;
            }
            let row = scanner.next_row().transpose();
            scanner.is_done = !matches!(row, Some(Ok(_)));
            row
        }))
    }

    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        let mut next = self.next_byte()?;
        if !self.is_first && next == Some(b',') {
            self.take_byte();
            next = self.next_byte()?;
        } else if !self.is_first && next != Some(self.close) {
            let found = self.broken("a comma or the closing bracket", next);
            return Err(found);
        }
        if next == Some(self.close) {
            self.take_byte();
            return match self.next_byte()? {
                None => Ok(None),
                more => Err(self.broken("the end of the file", more)),
            };
        }
        self.is_first = false;
        if self.close == b'}' {
            self.key()?;
        }
        let place = self.line;
        let is_whole = self.next_value()?;
        let (line, value) = if is_whole {
            match value_of(&self.value) {
                Ok(value) => (place, Ok(value)),
                Err((breaks, reason)) => (place + breaks, Err(reason)),
            }
        } else {
            (place, Err(format!("longer than {LINE_BYTES} bytes")))
        };
        if self.close == b'}'
            && let Ok(row) = &value
            && row.kind() != ValueKind::Map
        {
            let (key, what) = (&self.key, kind_of(row));
            let message = format!("the file is one object, and its {key} is {what} and not a row");
            let file = self.file.display();
            return Err(self.error(line, message).with_help(format!(
                "{FORMS}; if the rows are in a list of the object, such as `instances`, take them out: \
                 `jq -c '.instances[]' {file} > rows.jsonl`"
            )));
        }
        let place = Place::at_line(Arc::clone(&self.file), line);
        Ok(Some(Row { place, value }))
    }

    /// Skips the key of a row in an object, and the colon.
    fn key(&mut self) -> Result<(), Error> {
        match self.next_byte()? {
            Some(b'"') => self.next_value()?,
            other => return Err(self.broken("a key", other)),
        };
        self.key = shown(&String::from_utf8_lossy(&self.value));
        match self.next_byte()? {
            Some(b':') => self.take_byte(),
            other => return Err(self.broken("a colon", other)),
        }
        self.next_byte()?;
        Ok(())
    }

    /// The next byte that is not blank; none at the end of the file.
    fn next_byte(&mut self) -> Result<Option<u8>, Error> {
        let skipped = skip_blank(&mut self.text);
        let next = skipped.and_then(|breaks| {
            self.line += breaks;
            Ok(self.text.fill_buf()?.first().copied())
        });
        next.map_err(|e| unreadable(&self.file, e))
    }

    fn take_byte(&mut self) {
        self.text.consume(1);
    }

    /// Reads one value into `value`. It is false if the value is longer than [`LINE_BYTES`]; the
    /// rest of the value is then skipped.
    fn next_value(&mut self) -> Result<bool, Error> {
        self.value.clear();
        let mut end = ValueEnd::default();
        let mut is_whole = true;
        loop {
            let bytes = match self.text.fill_buf() {
                Ok([]) => return Err(self.broken("the rest of a row", None)),
                Ok(bytes) => bytes,
                Err(error) => return Err(unreadable(&self.file, error)),
            };
            let (count, is_end) = end.find(bytes);
            if self.value.len() + count > LINE_BYTES {
                is_whole = false;
                self.value.clear();
            } else if is_whole {
                self.value.extend_from_slice(&bytes[..count]);
            }
            self.line += breaks_in(&bytes[..count]);
            self.text.consume(count);
            if is_end {
                return Ok(is_whole);
            }
        }
    }

    fn broken(&self, expected: &str, found: Option<u8>) -> Error {
        let found = match found {
            None => "the file ends: it is cut short".to_owned(),
            Some(byte) => format!("there is {:?}", shown(&char::from(byte))),
        };
        let what = if self.close == b']' { "list" } else { "object" };
        let message = format!("the {what} of rows is broken: {expected} is expected, and {found}");
        self.error(self.line, message)
    }

    fn error(&self, line: usize, message: String) -> Error {
        Error::new(ErrorKind::Data, message)
            .with_place(&*self.file, Some(line))
            .with_help(FORMS)
    }
}

/// Finds the end of a JSON value that begins with the first byte given.
#[derive(Default)]
struct ValueEnd {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    is_scalar: bool,
}

impl ValueEnd {
    /// How many of these bytes belong to the value, and whether it ends there.
    fn find(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (at, byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => {
                        self.in_string = false;
                        if self.depth == 0 {
                            return (at + 1, true);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' if !self.is_scalar => self.in_string = true,
                b'{' | b'[' if !self.is_scalar => self.depth += 1,
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return (at + 1, true);
                    }
                }
                b'}' | b']' | b',' if self.depth == 0 => return (at, true),
                _ if self.depth == 0 => {
                    if byte.is_ascii_whitespace() {
                        return (at, true);
                    }
                    self.is_scalar = true;
                }
                _ => {}
            }
        }
        (bytes.len(), false)
    }
}
