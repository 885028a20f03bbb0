//! [`Visited`]: counts and a checksum of rows, from one visit of each.

use anyhow::Result;
use crc32c::crc32c_append;
use lisa_lm::text::{Encoded, StoredRows};
use serde::{Deserialize, Serialize};

use crate::terminal::progress::Slow;
use crate::terminal::text::counted;

/// Encoded rows, in order: their number, their tokens, and a checksum (CRC-32C) of ids, labels and
/// weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rows {
    pub(crate) count: usize,
    pub(crate) tokens: usize,
    pub(crate) checksum: u32,
}

/// What is known of rows when each was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Visited {
    pub(crate) rows: Rows,
    /// Tokens in the loss.
    pub(crate) trained: usize,
}

impl Visited {
    /// Reads every row, with a progress bar.
    pub(crate) fn of(rows: &StoredRows) -> Result<Self> {
        let (bar, all) = (Slow::items("reading the rows"), rows.len() as u64);
        let mut visited = Self::default();
        for row in rows.iter() {
            visited.add(&row?);
            bar.set(visited.rows.count as u64, all);
        }
        Ok(visited)
    }

    fn add(&mut self, row: &Encoded) {
        self.rows.count += 1;
        self.rows.tokens += row.ids.len();
        self.trained += row.trained();
        let mut bytes = Vec::with_capacity(row.ids.len() * 12 + 8);
        bytes.extend(row.ids.len().to_le_bytes());
        bytes.extend(row.ids.iter().flat_map(|id| id.to_le_bytes()));
        bytes.extend(row.labels.iter().flat_map(|label| label.to_le_bytes()));
        let weights = row.weights.iter().flatten();
        bytes.extend(weights.flat_map(|weight| weight.to_le_bytes()));
        self.rows.checksum = crc32c_append(self.rows.checksum, &bytes);
    }
}

impl Rows {
    /// How these rows differ from those of another time.
    pub(crate) fn compared(self, then: Self) -> String {
        let size = |rows: Self| {
            let tokens = counted(rows.tokens, "token");
            format!("{} of {tokens}", counted(rows.count, "row"))
        };
        if size(self) == size(then) {
            return format!("{}, with other tokens or in another order", size(self));
        }
        format!("{} now, {} then", size(self), size(then))
    }
}

#[cfg(test)]
mod tests {
    use lisa_lm::text::{IGNORED, RowStore};

    use super::*;

    fn visited(rows: &[Encoded]) -> Visited {
        let found = Visited::of(&rows.to_vec().into()).unwrap();
        // In a file, too.
        let store = RowStore::new(0, std::env::temp_dir());
        let stored = rows.iter().map(|row| store.push(row).unwrap());
        let stored = StoredRows::new(&store, stored.collect());
        assert_eq!(Visited::of(&stored).unwrap(), found);
        found
    }

    fn trained(rows: &[&[u32]]) -> Vec<Encoded> {
        let rows = rows.iter().map(|ids| Encoded::all_trained(ids.to_vec()));
        rows.collect()
    }

    #[test]
    fn rows_differ_by_ids_labels_weights_borders_and_order() {
        let all = visited(&trained(&[&[1, 2], &[3]]));
        assert_eq!((all.rows.count, all.rows.tokens, all.trained), (2, 3, 1));
        // Checkpoints have this checksum, so that a run of an earlier version is resumed.
        assert_eq!(all.rows.checksum, 905_230_934);
        for other in [&[&[1, 2][..], &[4]][..], &[&[1], &[2, 3]], &[&[3], &[1, 2]]] {
            assert_ne!(all.rows.checksum, visited(&trained(other)).rows.checksum);
        }
        let mut masked = trained(&[&[1, 2], &[3]]);
        masked[0].labels[1] = IGNORED;
        assert_ne!(all.rows.checksum, visited(&masked).rows.checksum);
        assert_eq!(visited(&masked).trained, 0);
        let mut weighed = trained(&[&[1, 2], &[3]]);
        weighed[0].weights = Some(vec![1.0, 0.5]);
        assert_ne!(all.rows.checksum, visited(&weighed).rows.checksum);
    }
}
