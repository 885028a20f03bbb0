//! [`read_examples`]: training data from files.
//!
//! A file is JSON lines, JSON, CSV, TSV or Parquet. The keys of a row determine its form
//! ([`Example`]), so a file may mix forms.

use std::path::{Path, PathBuf};

use crate::error::Error;

mod advice;
mod bad_lines;
mod columns;
mod content;
mod conversation;
mod example;
mod find;
mod form;
mod mapping;
mod object;
mod reader;
mod rows;

pub use bad_lines::{BadLine, BadLines, OnBadLine};
pub use columns::Columns;
pub use content::Content;
pub use example::Example;
pub use find::{DataFiles, data_files, data_files_to_evaluate, is_data_file};
pub use mapping::Mapping;
pub use reader::{ExampleReader, ReadOptions};
pub use rows::LINE_BYTES;

/// The examples of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examples {
    /// The examples, in the order of the files and their rows.
    pub examples: Vec<Example>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
    /// In which forms the rows were read.
    pub mapping: Mapping,
    /// The skipped lines; none with [`OnBadLine::Stop`].
    pub skipped: BadLines,
}

/// Reads all examples of files and folders. Of a folder, its [training data](data_files) is read.
///
/// | file | rows |
/// |---|---|
/// | JSON lines | one object a line; blank lines are skipped |
/// | JSON | a list of objects; in a file `.json` also an object of objects, whose keys are ignored |
/// | `.csv`, `.tsv` | the first row has the names; an empty cell has no value |
/// | Parquet | columns in snappy, gzip, brotli or LZ4; needs the feature `parquet` |
///
/// Text files may be compressed with gzip. A row of a text file has at most [`LINE_BYTES`].
///
/// # Errors
///
/// The errors of [`data_files`]; a file cannot be read, is a pipe or device, or is damaged; in a
/// table, a quote is not closed, or text follows the closing quote of a cell; there is no example, or
/// no row with one of the columns; or, with [`OnBadLine::Stop`], a line cannot be used. The error then
/// has the place of that line.
///
/// # Example
///
/// ```
/// use lisa_lm::text::{OnBadLine, ReadOptions, read_examples};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("train.jsonl");
/// std::fs::write(&path, "{\"text\": \"a\"}\n{\"prompt\": \"b\"}\n").unwrap();
/// let error = read_examples(&[&path], &ReadOptions::default()).unwrap_err();
/// assert_eq!(error.message(), "`completion` is missing");
/// assert_eq!(error.place(), Some((path.as_path(), Some(2))));
///
/// let options = ReadOptions { on_bad: OnBadLine::Skip, ..Default::default() };
/// let read = read_examples(&[&path], &options)?;
/// assert_eq!((read.examples.len(), read.skipped.count()), (1, 1));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
pub fn read_examples<P: AsRef<Path>>(
    paths: &[P],
    options: &ReadOptions,
) -> Result<Examples, Error> {
    let mut reader = ExampleReader::open(paths, options)?;
    let examples = reader.by_ref().collect::<Result<Vec<_>, _>>()?;
    let (files, mapping, skipped) = reader.into_parts();
    Ok(Examples {
        examples,
        files,
        mapping,
        skipped,
    })
}

#[cfg(test)]
mod tests;
