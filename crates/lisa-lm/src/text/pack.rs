//! [`pack`]: several examples in one row.

use crate::error::{Error, ErrorKind};
use crate::text::encoded::Encoded;
use crate::text::row::Row;

/// The largest number of rows that packing keeps open. It makes the cost linear in the number of
/// examples.
const OPEN_ROWS: usize = 512;

/// Packs examples into rows of at most `length` tokens. In order, each example is put into the
/// first open row with enough room. Rows are returned in the order in which they were opened. At
/// most 512 rows are open; if there are more, the oldest is closed.
///
/// # Errors
///
/// An example is longer than a row.
///
/// # Example
///
/// ```
/// use lisa_lm::text::{Encoded, pack};
///
/// let examples: Vec<_> = [3, 4, 2].map(|n| Encoded::all_trained(vec![1; n])).into();
/// let rows = pack(&examples, 5)?;
/// // The examples of 3 and 2 tokens share a row.
/// assert_eq!(rows.len(), 2);
/// assert_eq!(rows[0].segments, [0, 0, 0, 1, 1]);
/// # Ok::<(), lisa_lm::Error>(())
/// ```
pub fn pack(examples: &[Encoded], length: usize) -> Result<Vec<Row>, Error> {
    let rows = packed(examples.iter().map(|e| e.ids.len()), length)?;
    let row = |row: &Vec<u32>| Row::new(row.iter().map(|index| &examples[*index as usize]));
    Ok(rows.iter().map(row).collect())
}

/// The indices of the examples of each row. `lengths` are the examples' numbers of tokens.
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
