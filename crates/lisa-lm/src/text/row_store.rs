//! [`RowStore`]: where encoded rows are: in memory up to a limit, and beyond it in a file.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind};
use crate::text::encoded::Encoded;
use crate::text::row_bytes;

/// Bytes of rows in memory between two writes to the file.
const BUFFER: u64 = 1 << 20;

/// Encoded rows, with about 4 bytes for each token. They are in memory until they are larger than a
/// limit; then all are moved to a temporary file, and further rows are written there.
///
/// The file is unlinked when it is created, so it disappears when the store is dropped, and also
/// when the process is killed. It is not synced to the disk. A clone is the same store.
///
/// # Example
///
/// ```
/// use lisa_lm::text::{Encoded, RowStore, StoredRows};
///
/// let store = RowStore::new(0, std::env::temp_dir());
/// let row = Encoded::all_trained(vec![5, 6, 7]);
/// let rows = StoredRows::new(&store, vec![store.push(&row)?]);
/// assert_eq!(rows.get(0)?, row);
/// assert_eq!((store.bytes(), store.is_in_file()), (25, true));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone)]
pub struct RowStore {
    inner: Arc<Mutex<Inner>>,
    folder: Arc<Path>,
}

/// The place of a row in its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRow {
    start: u64,
    bytes: u32,
    tokens: u32,
}

impl StoredRow {
    /// The number of tokens.
    #[must_use]
    pub fn tokens(self) -> usize {
        self.tokens as usize
    }
}

struct Inner {
    /// The most bytes in memory.
    limit: u64,
    file: Option<File>,
    /// How many bytes are in the file.
    in_file: u64,
    /// The bytes after those of the file.
    memory: Vec<u8>,
    largest_id: Option<u32>,
}

impl RowStore {
    /// An empty store that has at most `limit` bytes in memory. The file is made in `folder`, if it is
    /// needed.
    pub fn new(limit: u64, folder: impl Into<PathBuf>) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                limit,
                file: None,
                in_file: 0,
                memory: Vec::new(),
                largest_id: None,
            })),
            folder: Arc::from(folder.into()),
        }
    }

    /// An empty store that has all rows in memory.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::new(u64::MAX, PathBuf::new())
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// The file cannot be made or written, for instance because the disk is full.
    pub fn push(&self, row: &Encoded) -> Result<StoredRow, Error> {
        let mut inner = self.lock();
        let stored = inner.add(row);
        if inner.memory.len() as u64 > inner.limit {
            inner
                .write(&self.folder)
                .map_err(|e| self.failed("written", e))?;
        }
        Ok(stored)
    }

    /// Adds a row in memory, whatever the limit is.
    pub(super) fn push_in_memory(&self, row: &Encoded) -> StoredRow {
        self.lock().add(row)
    }

    /// Reads a row.
    pub(super) fn get(&self, row: StoredRow) -> Result<Encoded, Error> {
        let bytes = self.lock().read(row).map_err(|e| self.failed("read", e))?;
        row_bytes::read(&bytes, row.tokens()).ok_or_else(|| {
            let damaged = io::Error::new(io::ErrorKind::InvalidData, "a row is damaged");
            self.failed("read", damaged)
        })
    }

    /// The bytes of all rows, wherever they are.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let inner = self.lock();
        inner.in_file + inner.memory.len() as u64
    }

    /// Whether the rows are in a file.
    #[must_use]
    pub fn is_in_file(&self) -> bool {
        self.lock().file.is_some()
    }

    /// The largest id of all rows.
    pub(super) fn largest_id(&self) -> Option<u32> {
        self.lock().largest_id
    }

    /// Cuts the file to this many bytes, so that the rows after them cannot be read.
    #[cfg(test)]
    pub(super) fn cut_file(&self, bytes: u64) {
        let inner = self.lock();
        inner.file.as_ref().unwrap().set_len(bytes).unwrap();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        let message = format!(
            "the temporary file of the encoded rows in {} cannot be {what}: {error}",
            self.folder.display()
        );
        Error::new(ErrorKind::Io, message)
            .with_help("free space on that disk, or keep more rows in memory")
            .with_source(error)
    }
}

impl Inner {
    fn add(&mut self, row: &Encoded) -> StoredRow {
        let before = self.memory.len();
        row_bytes::write(row, &mut self.memory);
        self.largest_id = self.largest_id.max(row.ids.iter().copied().max());
        StoredRow {
            start: self.in_file + before as u64,
            bytes: (self.memory.len() - before) as u32,
            tokens: row.ids.len() as u32,
        }
    }

    /// Moves the rows in memory to the file.
    fn write(&mut self, folder: &Path) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(unnamed(folder)?),
        };
        file.seek(SeekFrom::Start(self.in_file))?;
        file.write_all(&self.memory)?;
        self.in_file += self.memory.len() as u64;
        self.limit = self.limit.min(BUFFER);
        self.memory = Vec::new();
        Ok(())
    }

    fn read(&mut self, row: StoredRow) -> io::Result<Vec<u8>> {
        let length = row.bytes as usize;
        if let Some(start) = row.start.checked_sub(self.in_file) {
            let bytes = self.memory.get(start as usize..start as usize + length);
            return Ok(bytes.unwrap_or_default().to_vec());
        }
        let mut bytes = vec![0; length];
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::Start(row.start))?;
            file.read_exact(&mut bytes)?;
        }
        Ok(bytes)
    }
}

/// A new file without a name in the folder. Windows removes the name when the file is closed.
fn unnamed(folder: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    let process = std::process::id();
    for number in 0.. {
        let path = folder.join(format!(".lisa-rows-{process}-{number}"));
        match options.open(&path) {
            Ok(file) => {
                fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

impl fmt::Debug for RowStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowStore")
            .field("bytes", &self.bytes())
            .field("is_in_file", &self.is_in_file())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_same_in_memory_and_in_a_file_without_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let rows: Vec<_> = (1..200)
            .map(|n| Encoded::all_trained((n..n + n % 7).collect()))
            .collect();
        for (limit, in_file) in [(0, true), (40, true), (1000, true), (u64::MAX, false)] {
            let store = RowStore::new(limit, dir.path());
            let places: Vec<_> = rows.iter().map(|row| store.push(row).unwrap()).collect();
            assert_eq!(store.is_in_file(), in_file);
            assert!(store.lock().memory.len() as u64 <= limit);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
            for at in [198, 0, 100, 3, 197, 1] {
                assert_eq!(store.get(places[at]).unwrap(), rows[at], "{limit}");
            }
            assert_eq!(store.largest_id(), Some(201));
        }
    }

    #[test]
    fn a_file_that_cannot_be_made_is_an_error_with_its_folder() {
        let store = RowStore::new(0, "missing/folder");
        let error = store.push(&Encoded::all_trained(vec![1])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        let start = "the temporary file of the encoded rows in missing/folder cannot be written: ";
        assert!(error.message().starts_with(start), "{error}");
    }
}
