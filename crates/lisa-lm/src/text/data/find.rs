//! [`data_files`]: which files of folders are training data, and which are held out.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::rows::{rows, unreadable};
use crate::error::{Error, ErrorKind};

/// How deep folders may be: `data/train/part.jsonl` has depth 3. A link to a folder above has no end.
const DEPTH: usize = 8;

/// The extensions of data in a folder, which may be followed by `.gz`.
const EXTENSIONS: [&str; 6] = ["jsonl", "ndjson", "json", "csv", "tsv", "parquet"];

/// Other extensions that data often has. Files with them are not read.
const OTHER_EXTENSIONS: [&str; 13] = [
    "arrow", "avro", "bz2", "feather", "gz", "lz4", "orc", "tar", "txt", "xlsx", "xz", "zip", "zst",
];

/// Files that describe a data set.
const DESCRIPTIONS: [&str; 4] = [
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
];

/// The files of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataFiles {
    /// The files to train on.
    pub train: Vec<PathBuf>,
    /// The held-out files of folders.
    pub valid: Vec<PathBuf>,
    /// The other files of folders: tests, and files without any of the words if another file has
    /// the word `train` or `training`.
    pub left_out: Vec<PathBuf>,
    /// Files of folders that perhaps have data, in forms that are not read: `train.jsonl.zst`,
    /// `data.arrow`, `notes.txt`, `train.jsonl.bak`.
    pub unread: Vec<PathBuf>,
}

/// The data files at these paths. A file that is given itself is training data, whatever its name
/// is. A folder is searched, with its subfolders, for files with the extensions `jsonl`, `ndjson`,
/// `json`, `csv`, `tsv` and `parquet`, each perhaps followed by `.gz`. Of such a file, a word of
/// its path in the folder decides:
///
/// | word | file |
/// |---|---|
/// | `test`, `testing` | is left out |
/// | `valid`, `validation`, `val`, `dev`, `eval`, `evaluation` | is held out |
/// | `train`, `training` | is training data |
/// | none of them | is training data, unless another file has the word `train` or `training` |
///
/// The files of a folder are in the order of their names. Of the other files, those whose names are
/// like those of data are [`unread`](DataFiles::unread).
///
/// # Errors
///
/// A folder cannot be read, or is more than eight levels deep; it has no file of data, or only
/// tests and held-out files; its training data is only there in a form that is not read, such as
/// zstd or Arrow; it has the same file in two forms, such as `train.csv` and
/// `train.jsonl`; or it has several subfolders with files or folders named `train`, such as the
/// configurations of a data set, or several splits, such as `train_sft-00000-of-00003.parquet` and
/// `train_gen-00000-of-00003.parquet`.
///
/// # Example
///
/// ```
/// use lisa_lm::text::data_files;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// for name in ["train.jsonl", "valid.jsonl", "test.jsonl"] {
///     std::fs::write(folder.join(name), "{\"text\": \"a\"}\n").unwrap();
/// }
/// let files = data_files(&[folder])?;
/// assert_eq!(files.train, [folder.join("train.jsonl")]);
/// assert_eq!(files.valid, [folder.join("valid.jsonl")]);
/// assert_eq!(files.left_out, [folder.join("test.jsonl")]);
/// # Ok::<(), lisa_lm::Error>(())
/// ```
pub fn data_files<P: AsRef<Path>>(paths: &[P]) -> Result<DataFiles, Error> {
    of_paths(paths, true)
}

/// As [`data_files`], for data that is only evaluated: a folder may have no training data.
///
/// # Errors
///
/// As [`data_files`], apart from a folder that has only tests and held-out files.
///
/// # Example
///
/// ```
/// use lisa_lm::text::{data_files, data_files_to_evaluate};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// std::fs::write(folder.join("valid.jsonl"), "{\"text\": \"a\"}\n").unwrap();
/// assert!(data_files(&[folder]).is_err());
/// assert_eq!(data_files_to_evaluate(&[folder])?.valid, [folder.join("valid.jsonl")]);
/// # Ok::<(), lisa_lm::Error>(())
/// ```
pub fn data_files_to_evaluate<P: AsRef<Path>>(paths: &[P]) -> Result<DataFiles, Error> {
    of_paths(paths, false)
}

fn of_paths<P: AsRef<Path>>(paths: &[P], needs_training: bool) -> Result<DataFiles, Error> {
    let mut all = DataFiles::default();
    for path in paths.iter().map(AsRef::as_ref) {
        if path.is_dir() {
            let found = in_folder(path, needs_training)?;
            all.train.extend(found.train);
            all.valid.extend(found.valid);
            all.left_out.extend(found.left_out);
            all.unread.extend(found.unread);
        } else {
            all.train.push(path.to_owned());
        }
    }
    Ok(all)
}

fn in_folder(folder: &Path, needs_training: bool) -> Result<DataFiles, Error> {
    let mut files = Vec::new();
    search(folder, DEPTH, &mut files)?;
    files.sort();
    let split_in_folder = |file: &Path| split_of(file.strip_prefix(folder).unwrap_or(file));
    let (mut found, mut others) = (DataFiles::default(), Vec::new());
    for file in files {
        if !is_data_file(&file) {
            found.unread.push(file);
            continue;
        }
        match split_in_folder(&file) {
            Some(Split::Train) => found.train.push(file),
            Some(Split::Valid) => found.valid.push(file),
            Some(Split::Test) => found.left_out.push(file),
            None => others.push(file),
        }
    }
    let has_train = !found.train.is_empty();
    if has_train {
        found.left_out.extend(others);
        found.left_out.sort();
    } else {
        found.train = others;
    }
    let is_empty = found.train.is_empty() && found.valid.is_empty() && found.left_out.is_empty();
    for file in &found.unread {
        let what = match split_in_folder(file) {
            _ if is_empty => "data",
            Some(Split::Valid) if found.valid.is_empty() && !needs_training => "held-out data",
            Some(Split::Train) if !has_train && needs_training => "training data",
            None if found.train.is_empty() && needs_training => "training data",
            _ => continue,
        };
        // What it is, and how to convert it, is known when it is opened.
        if let Err(error) = rows(file) {
            let help = error.help().unwrap_or("convert it");
            let help = format!("{help}, or give the files to read by name");
            let context = format!(
                "the {what} of the folder {} cannot be read",
                folder.display()
            );
            return Err(error.within(&context).with_help(help));
        }
    }
    let problem = if let [one, another, ..] = sets(folder, &found.train).as_slice() {
        format!("has several sets of training data, in `{one}` and in `{another}`")
    } else if let Some((one, other)) = twice(&found.train) {
        format!("has `{one}` and `{other}`, perhaps the same data in two forms")
    } else if is_empty {
        "has no data: no .jsonl, .ndjson, .json, .csv, .tsv or .parquet file".to_owned()
    } else if found.train.is_empty() && needs_training {
        "has no training data, only files for tests or held-out files".to_owned()
    } else {
        return Ok(found);
    };
    let message = format!("the folder {} {problem}", folder.display());
    Err(Error::new(ErrorKind::Data, message).with_help("give the files or one folder by name"))
}

fn search(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(|e| unreadable(folder, e))? {
        let path = entry.map_err(|e| unreadable(folder, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            if depth == 1 {
                let message = format!("the folder {} is too deep", path.display());
                return Err(Error::new(ErrorKind::Data, message).with_help(format!(
                    "give the files by name, or a folder of at most {DEPTH} levels"
                )));
            }
            search(&path, depth - 1, files)?;
        } else if path.is_file() && may_have_data(&name) {
            files.push(path);
        }
    }
    Ok(())
}

/// Whether a file has the name of data: one of the extensions of [`data_files`].
#[must_use]
pub fn is_data_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let name = name.to_string_lossy().to_lowercase();
    let extension = stem(&name).map_or("", |(_, extension)| extension);
    EXTENSIONS.contains(&extension) && !DESCRIPTIONS.contains(&name.as_str())
}

/// Whether a file may have data in any form: one of its extensions is one of data, as in
/// `train.jsonl.bak`.
fn may_have_data(name: &str) -> bool {
    let name = name.to_lowercase();
    let is_known = |word| EXTENSIONS.contains(&word) || OTHER_EXTENSIONS.contains(&word);
    name.split('.').skip(1).any(is_known) && !DESCRIPTIONS.contains(&name.as_str())
}

/// The name without its extension, and the extension, without `.gz`.
fn stem(name: &str) -> Option<(&str, &str)> {
    name.strip_suffix(".gz").unwrap_or(name).rsplit_once('.')
}

#[derive(Clone, Copy, PartialEq)]
enum Split {
    Train,
    Valid,
    Test,
}

/// The split that a path names. A test is never taken for something else.
fn split_of(path: &Path) -> Option<Split> {
    let path = path.to_string_lossy().to_lowercase();
    let is_separator = |c: char| !c.is_alphabetic();
    let words: Vec<&str> = path.split(is_separator).collect();
    let names = |known: &[&str]| words.iter().any(|word| known.contains(word));
    if names(&["test", "testing"]) {
        Some(Split::Test)
    } else if names(&["valid", "validation", "val", "dev", "eval", "evaluation"]) {
        Some(Split::Valid)
    } else if names(&["train", "training"]) {
        Some(Split::Train)
    } else {
        None
    }
}

/// The folders that have files, or folders of files, with `train` in their own names, as configurations
/// of a data set have; and such splits as `train_sft` and `train_gen` in a folder.
fn sets(folder: &Path, files: &[PathBuf]) -> Vec<String> {
    let set_of = |file: &PathBuf| {
        let path = file.strip_prefix(folder).unwrap_or(file);
        let named = path.ancestors().find(|path| {
            let name = path.file_name().map(Path::new);
            name.is_some_and(|name| split_of(name) == Some(Split::Train))
        })?;
        let name = named.file_name()?.to_string_lossy();
        let split = if named == path {
            shard_of(&name)
        } else {
            Some(&*name)
        };
        let words = split.map(words_of_split).unwrap_or_default();
        let parent = named.parent()?;
        Some(match words.as_str() {
            "" if parent.as_os_str().is_empty() => ".".to_owned(),
            "" => parent.display().to_string(),
            words => parent.join(words).display().to_string(),
        })
    };
    let mut sets: Vec<String> = files.iter().filter_map(set_of).collect();
    sets.dedup();
    sets
}

/// The split of a file that is named as on the hub: `train_sft-00000-of-00003.parquet`. Other names
/// say nothing of splits: `train_a.jsonl` and `train_b.jsonl` may be halves.
fn shard_of(name: &str) -> Option<&str> {
    let (before, _) = name.split_once("-of-")?;
    let (split, number) = before.rsplit_once('-')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(split)
}

/// The words of a split's name, if it has more than `train`: `train_sft`, but not `train-1`.
fn words_of_split(name: &str) -> String {
    let name = name.to_lowercase();
    let words = name.split(|c: char| !c.is_alphabetic());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        ["train" | "training"] => String::new(),
        words => words.join("_"),
    }
}

/// Two files whose paths differ only in their extensions.
fn twice(files: &[PathBuf]) -> Option<(String, String)> {
    let mut known = BTreeMap::new();
    files.iter().find_map(|file| {
        let file = file.to_string_lossy().into_owned();
        let without = stem(&file)?.0.to_owned();
        let other: String = known.insert(without, file.clone())?;
        Some((other, file))
    })
}

impl fmt::Display for DataFiles {
    /// One line for each kind of files. At most five files of a kind are listed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        let kinds = [
            ("training", &self.train),
            ("held out", &self.valid),
            ("not read", &self.left_out),
            ("format not read", &self.unread),
        ];
        for (kind, files) in kinds {
            let shown = files.iter().take(5).map(|file| file.display().to_string());
            let shown: Vec<String> = shown.collect();
            let more = match files.len().saturating_sub(5) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            if !shown.is_empty() {
                lines.push(format!("{kind}: {}{more}", shown.join(", ")));
            }
        }
        f.write_str(&lines.join("\n"))
    }
}
