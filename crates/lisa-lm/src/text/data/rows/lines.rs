//! JSON lines: one value a line.

use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use super::{LINE_BYTES, Row, Rows, Text, unreadable, value_of};
use crate::place::Place;

/// The values of the lines. The first line has this number. Blank lines have none.
pub(super) fn rows(file: Arc<Path>, mut text: Text, first: usize) -> Rows {
    let mut line = Vec::new();
    let mut number = first - 1;
    Box::new(std::iter::from_fn(move || {
        loop {
            number += 1;
            let value = match next_line(&mut text, &mut line, LINE_BYTES) {
                Err(error) => return Some(Err(unreadable(&file, error))),
                Ok(None) => return None,
                Ok(Some(true)) if line.trim_ascii().is_empty() => continue,
                Ok(Some(true)) => value_of(line.trim_ascii()).map_err(|(_, reason)| reason),
                Ok(Some(false)) => Err(format!("longer than {LINE_BYTES} bytes")),
            };
            let place = Place::at_line(Arc::clone(&file), number);
            return Some(Ok(Row { place, value }));
        }
    }))
}

/// Reads the next line into `line`, without its line break; none at the end of the file. It is
/// false if the line is longer than `limit`; the rest of the line is then skipped.
fn next_line(
    reader: &mut impl BufRead,
    line: &mut Vec<u8>,
    limit: usize,
) -> io::Result<Option<bool>> {
    line.clear();
    if reader
        .by_ref()
        .take(limit as u64 + 1)
        .read_until(b'\n', line)?
        == 0
    {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Some(true));
    }
    if line.len() <= limit {
        return Ok(Some(true));
    }
    line.clear();
    reader.skip_until(b'\n')?;
    Ok(Some(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_longer_than_the_limit_is_a_bad_line_and_the_next_is_read() {
        let lines = |text: &str, limit| {
            let mut reader = io::BufReader::with_capacity(3, text.as_bytes());
            let mut line = Vec::new();
            let mut found = Vec::new();
            while let Some(whole) = next_line(&mut reader, &mut line, limit).unwrap() {
                found.push(whole.then(|| String::from_utf8(line.clone()).unwrap()));
            }
            found
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(lines("abcd\n\nab", 4), [some("abcd"), some(""), some("ab")]);
        assert_eq!(lines("abcde\nab\n", 4), [None, some("ab")]);
        assert_eq!(lines("ab\nabcdefghijkl", 4), [some("ab"), None]);
        assert_eq!(lines("", 4), []);
    }
}
