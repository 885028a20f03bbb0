//! A row as bytes: 4 for each token, and a few for the whole row.
//!
//! | bytes | content |
//! |---|---|
//! | 1 | what follows: bit 0, any labels; bit 1, weights |
//! | 4 for each token | the ids |
//! | 4, and 4 for each run | the number of runs of labels that are in turn ignored and equal to the ids, and their lengths; with any labels instead 8 for each token |
//! | 4 for each token | the weights, if the row has any |

use crate::text::encoded::{Encoded, IGNORED};

const ANY_LABELS: u8 = 1;
const WEIGHTS: u8 = 2;

/// Appends a row.
pub(super) fn write(row: &Encoded, bytes: &mut Vec<u8>) {
    let labels = row.labels.iter().zip(&row.ids);
    let is_plain = row.labels.len() == row.ids.len()
        && labels
            .clone()
            .all(|(label, id)| *label == IGNORED || *label == i64::from(*id));
    let any_labels = if is_plain { 0 } else { ANY_LABELS };
    let weights = row.weights.as_ref().map_or(0, |_| WEIGHTS);
    bytes.push(any_labels | weights);
    bytes.extend(row.ids.iter().flat_map(|id| id.to_le_bytes()));
    if is_plain {
        let mut runs = Vec::new();
        let (mut ignored, mut length) = (true, 0u32);
        for (label, _) in labels {
            if (*label == IGNORED) != ignored {
                runs.push(length);
                (ignored, length) = (!ignored, 0);
            }
            length += 1;
        }
        runs.push(length);
        let count = runs.len() as u32;
        let all = std::iter::once(count).chain(runs);
        bytes.extend(all.flat_map(u32::to_le_bytes));
    } else {
        bytes.extend(row.labels.iter().flat_map(|label| label.to_le_bytes()));
    }
    let weights = row.weights.iter().flatten();
    bytes.extend(weights.flat_map(|weight| weight.to_le_bytes()));
}

/// The row of `count` tokens in these bytes; `None` if they are damaged.
pub(super) fn read(mut bytes: &[u8], count: usize) -> Option<Encoded> {
    let [flags] = take(&mut bytes)?;
    let ids = list(&mut bytes, count, u32::from_le_bytes)?;
    let labels = if flags & ANY_LABELS == 0 {
        let runs = u32::from_le_bytes(take(&mut bytes)?);
        let runs = list(&mut bytes, runs as usize, u32::from_le_bytes)?;
        let mut labels = Vec::with_capacity(count);
        for (at, length) in runs.into_iter().enumerate() {
            let ids = ids.get(labels.len()..labels.len() + length as usize)?;
            labels.extend(ids.iter().map(|id| match at % 2 {
                0 => IGNORED,
                _ => i64::from(*id),
            }));
        }
        (labels.len() == count).then_some(labels)?
    } else {
        list(&mut bytes, count, i64::from_le_bytes)?
    };
    let weights = if flags & WEIGHTS == 0 {
        None
    } else {
        Some(list(&mut bytes, count, f32::from_le_bytes)?)
    };
    bytes.is_empty().then_some(Encoded {
        ids,
        labels,
        weights,
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

fn list<T, const N: usize>(
    bytes: &mut &[u8],
    count: usize,
    of: impl Fn([u8; N]) -> T,
) -> Option<Vec<T>> {
    let (all, rest) = bytes.split_at_checked(count.checked_mul(N)?)?;
    *bytes = rest;
    let (chunks, _) = all.as_chunks();
    Some(chunks.iter().map(|chunk| of(*chunk)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: i64 = IGNORED;

    fn rows() -> Vec<Encoded> {
        let weighted = Encoded {
            weights: Some(vec![1.0, 0.1, f32::MIN_POSITIVE, 3.5e30]),
            ..Encoded::new(vec![1, 2, 3, u32::MAX], vec![X, 2, X, i64::from(u32::MAX)])
        };
        vec![
            Encoded::new(vec![], vec![]),
            Encoded::all_trained(vec![7]),
            Encoded::new(vec![5, 6, 7, 8], vec![X, X, 7, 8]),
            Encoded::new(vec![5, 6, 7, 8], vec![X, 6, X, X]),
            Encoded::new(vec![1, 2], vec![9, i64::MIN]),
            weighted,
        ]
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        for row in rows() {
            let mut bytes = Vec::new();
            write(&row, &mut bytes);
            assert_eq!(read(&bytes, row.ids.len()), Some(row));
        }
    }

    #[test]
    fn damaged_bytes_are_no_row() {
        for row in rows() {
            let mut bytes = Vec::new();
            write(&row, &mut bytes);
            let count = row.ids.len();
            for end in 0..bytes.len() {
                assert_eq!(read(&bytes[..end], count), None, "{row:?} cut at {end}");
            }
            assert_eq!(read(&[&bytes[..], &[0]].concat(), count), None);
        }
        assert_eq!(
            read(&[0, 1, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255], 1),
            None
        );
    }
}
