//! [`StoredRows`]: a list of rows in a [`RowStore`].

use crate::error::Error;
use crate::text::encoded::Encoded;
use crate::text::row_store::{RowStore, StoredRow};

/// Rows of a [`RowStore`] in any order, which are read by index. The list itself has 16 bytes for each
/// row; a clone, a selection or a truncation does not copy tokens.
///
/// # Example
///
/// ```
/// use lisa_lm::text::{Encoded, StoredRows};
///
/// let rows: StoredRows = vec![Encoded::all_trained(vec![5, 6, 7])].into();
/// let cut = rows.clone().cut(2);
/// assert_eq!((cut.length(0), cut.get(0)?.ids), (2, vec![5, 6]));
/// assert_eq!(rows.select([0, 0]).len(), 2);
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct StoredRows {
    store: RowStore,
    rows: Vec<StoredRow>,
    /// Rows are truncated to this many tokens when they are read.
    max_length: usize,
}

impl StoredRows {
    /// Rows of this store.
    #[must_use]
    pub fn new(store: &RowStore, rows: Vec<StoredRow>) -> Self {
        Self {
            store: store.clone(),
            rows,
            max_length: usize::MAX,
        }
    }

    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Reads the row with this index.
    ///
    /// # Errors
    ///
    /// The file of the store cannot be read.
    ///
    /// # Panics
    ///
    /// There is no such row.
    pub fn get(&self, index: usize) -> Result<Encoded, Error> {
        let mut row = self.store.get(self.rows[index])?;
        row.truncate(self.max_length);
        Ok(row)
    }

    /// Reads the rows one after the other.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn iter(&self) -> impl Iterator<Item = Result<Encoded, Error>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// The number of tokens of a row.
    ///
    /// # Panics
    ///
    /// There is no such row.
    #[must_use]
    pub fn length(&self, index: usize) -> usize {
        self.rows[index].tokens().min(self.max_length)
    }

    /// The number of tokens of each row.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + Clone {
        (0..self.len()).map(|index| self.length(index))
    }

    /// The rows with these indices, in this order.
    ///
    /// # Panics
    ///
    /// There is no such row.
    #[must_use]
    pub fn select(&self, indices: impl IntoIterator<Item = usize>) -> Self {
        let rows = indices.into_iter().map(|index| self.rows[index]);
        Self {
            store: self.store.clone(),
            rows: rows.collect(),
            max_length: self.max_length,
        }
    }

    /// The same rows, each with at most `max_length` tokens. Rows without a token in the loss are not
    /// left out.
    #[must_use]
    pub fn cut(mut self, max_length: usize) -> Self {
        self.max_length = self.max_length.min(max_length);
        self
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &RowStore {
        &self.store
    }

    /// Whether every id in the store is below `size`. Reads no row. It is also false if a larger id
    /// is only in rows of the store that are not in this list.
    #[must_use]
    pub fn is_within(&self, size: usize) -> bool {
        self.store
            .largest_id()
            .is_none_or(|id| (id as usize) < size)
    }
}

impl Default for StoredRows {
    /// No rows.
    fn default() -> Self {
        Self::new(&RowStore::in_memory(), Vec::new())
    }
}

impl From<Vec<Encoded>> for StoredRows {
    /// The rows in memory.
    fn from(rows: Vec<Encoded>) -> Self {
        let store = RowStore::in_memory();
        let rows = rows.into_iter().map(|row| store.push_in_memory(&row));
        Self::new(&store, rows.collect())
    }
}
