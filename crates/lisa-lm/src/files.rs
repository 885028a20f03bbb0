//! Reading files of unknown origin, and writing files atomically.
//!
//! Only regular files are read, inside their folder, up to a maximum size.
//! A checkpoint's folder may come from an untrusted source. Reading a pipe in it would block,
//! reading a device would not end, and a symbolic link could copy a private file into the
//! fine-tuned checkpoint. So the type of a file is checked before and after it is opened, a link
//! must stay inside the folder, and the number of bytes read is limited.

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

pub(crate) mod disk;
mod write;

pub(crate) use write::failed;
pub use write::write_atomically;

/// The maximum size of a configuration, such as `config.json`: 16 MiB.
pub(crate) const CONFIG_BYTES: u64 = 16 << 20;
/// The maximum size of an index of weights: 64 MiB, about half a million tensors.
pub(crate) const INDEX_BYTES: u64 = 64 << 20;
/// The maximum size of `tokenizer.json`, and of any file that is copied to a saved checkpoint: 256
/// MiB.
pub(crate) const TOKENIZER_BYTES: u64 = 256 << 20;
/// The maximum size of a chat template: 1 MiB.
pub(crate) const TEMPLATE_BYTES: u64 = 1 << 20;

/// The path of a regular file in a folder; `None` if the file does not exist.
///
/// # Errors
///
/// The file is a directory, pipe or device; a link is broken, or leads to a file outside the
/// folder. A folder of the Hub's cache, `snapshots/REVISION`, may link to the `blobs` next to
/// `snapshots`.
pub(crate) fn find(dir: &Path, name: &str) -> io::Result<Option<PathBuf>> {
    let path = dir.join(name);
    let link = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata.is_symlink(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    require_regular(&fs::metadata(&path)?)?;
    if link {
        require_inside(dir, &path)?;
    }
    Ok(Some(path))
}

/// The bytes of a file in a folder, at most `limit`; `None` if the file does not exist.
///
/// # Errors
///
/// As [`find`]; or the file is larger than `limit`.
pub(crate) fn read(dir: &Path, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(path) = find(dir, name)? else {
        return Ok(None);
    };
    bytes_of(&path, limit).map(Some)
}

fn bytes_of(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = open(path)?.take(limit + 1);
    file.read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let message = format!("it has more than {limit} bytes, which is the limit");
        return Err(io::Error::new(ErrorKind::InvalidData, message));
    }
    Ok(bytes)
}

/// [`read`] of a file that must be UTF-8.
pub(crate) fn read_text(dir: &Path, name: &str, limit: u64) -> io::Result<Option<String>> {
    let Some(bytes) = read(dir, name, limit)? else {
        return Ok(None);
    };
    text_of(bytes).map(Some)
}

/// Reads a small text file, such as settings: a regular file of at most 16 MiB, in any folder.
///
/// # Errors
///
/// The file is a directory, pipe or device, is larger, or is not UTF-8; or the operating system
/// refuses a file operation.
///
/// # Example
///
/// ```
/// let error = lisa_lm::files::read_small_text("/dev/zero".as_ref()).unwrap_err();
/// # #[cfg(unix)]
/// assert!(error.to_string().contains("device"));
/// ```
pub fn read_small_text(path: &Path) -> io::Result<String> {
    text_of(bytes_of(path, CONFIG_BYTES)?)
}

fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|e| io::Error::new(ErrorKind::InvalidData, e.utf8_error()))
}

/// What to do about a file that cannot be read: `otherwise`, unless the user may not read it.
pub(crate) fn help_of<'a>(error: &io::Error, otherwise: &'a str) -> &'a str {
    match error.kind() {
        ErrorKind::PermissionDenied => "check who may read it",
        _ => otherwise,
    }
}

/// Opens a regular file, buffered.
///
/// # Errors
///
/// The file is a directory, pipe or device, or the operating system refuses a file operation.
pub(crate) fn open(path: &Path) -> io::Result<BufReader<File>> {
    // Opening a pipe waits for a writer, so the type is checked first.
    require_regular(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    // The file may have been replaced since the first check.
    require_regular(&file.metadata()?)?;
    Ok(BufReader::new(file))
}

fn require_regular(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let what = if metadata.is_dir() {
        "it is a directory and not a file"
    } else {
        "it is a pipe, socket or device and not a file"
    };
    Err(io::Error::new(ErrorKind::InvalidInput, what))
}

fn require_inside(dir: &Path, path: &Path) -> io::Result<()> {
    let (dir, target) = (dir.canonicalize()?, path.canonicalize()?);
    let is_snapshots = |dir: &&Path| dir.file_name().is_some_and(|name| name == "snapshots");
    let snapshots = dir.parent().filter(is_snapshots);
    let blobs = snapshots.and_then(|s| Some(s.parent()?.join("blobs")));
    if target.starts_with(&dir) || blobs.is_some_and(|blobs| target.starts_with(blobs)) {
        return Ok(());
    }
    let message = format!(
        "it is a link to {}, which is not in the folder; copy that file into the folder",
        target.display()
    );
    Err(io::Error::new(ErrorKind::InvalidInput, message))
}

/// The first 80 characters of a value, for an error message.
pub(crate) fn shown(value: &impl ToString) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
