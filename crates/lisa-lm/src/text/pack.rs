//! [`packed`]: which examples share a row.

use crate::error::{Error, ErrorKind};

/// The largest number of rows that packing keeps open. It makes the cost linear in the number of
/// examples.
const OPEN_ROWS: usize = 512;

/// The indices of the examples of each row of at most `length` tokens. `lengths` are the examples'
/// numbers of tokens.
///
/// In order, each example is put into the first open row with enough room. Rows are returned in the
/// order in which they were opened. If [`OPEN_ROWS`] are open, the oldest is closed.
///
/// # Errors
///
/// An example is longer than a row.
pub(super) fn packed(
    lengths: impl Iterator<Item = usize> + Clone,
    length: usize,
) -> Result<Vec<Vec<u32>>, Error> {
    let shortest = lengths.clone().min().unwrap_or(0);
    let mut rows: Vec<(usize, Vec<u32>)> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for (index, needed) in lengths.enumerate() {
        if needed > length {
            let number = index + 1;
            let message =
                format!("example {number} has {needed} tokens, but a packed row has {length}");
            return Err(Error::new(ErrorKind::Data, message)
                .with_help("encode with the length of a row as the maximal length"));
        }
        let place = open.iter().position(|row| rows[*row].0 + needed <= length);
        let place = place.unwrap_or_else(|| {
            if open.len() == OPEN_ROWS {
                open.remove(0);
            }
            open.push(rows.len());
            rows.push((0, Vec::new()));
            open.len() - 1
        });
        let row = &mut rows[open[place]];
        row.0 += needed;
        row.1.push(index as u32);
        if row.0 + shortest > length {
            open.remove(place);
        }
    }
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}
