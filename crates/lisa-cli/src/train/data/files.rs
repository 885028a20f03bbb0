//! [`Files`]: which files have the training and the held-out examples.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use lisa_lm::text::{DataFiles, data_files, data_files_to_evaluate};

use crate::bundled;
use crate::data_folder::data_paths;
use crate::settings::InputSettings;
use crate::user_error::UserError;

/// The files of `--data` and `--eval`.
pub(super) struct Files {
    /// Those of `--data`.
    pub(super) data: DataFiles,
    /// Those that are evaluated on; none if a share of the data is held out.
    pub(super) held_out: Vec<PathBuf>,
    /// Whether they are those of this program.
    pub(super) is_bundled: bool,
}

impl Files {
    /// Returns an error if a file has training and held-out data.
    pub(super) fn of(input: &InputSettings) -> Result<Self> {
        let is_bundled = input.data.is_empty();
        let paths = if is_bundled {
            vec![bundled::data()?]
        } else {
            data_paths(&input.data)?
        };
        let data = data_files(&paths)?;
        let held_out = if !input.eval.as_os_str().is_empty() {
            evaluated(std::slice::from_ref(&input.eval), "eval")?.valid
        } else if is_bundled {
            vec![bundled::held_out()?]
        } else {
            data.valid.clone()
        };
        let real = |file: &PathBuf| file.canonicalize().unwrap_or_else(|_| file.clone());
        let trained: Vec<PathBuf> = data.train.iter().map(real).collect();
        if let Some(both) = held_out.iter().find(|file| trained.contains(&real(file))) {
            let message = format!("`{}` is training data and held-out data", both.display());
            return Err(UserError::new(message)
                .with_help("give another file with --eval")
                .into());
        }
        Ok(Self {
            data,
            held_out,
            is_bundled,
        })
    }

    /// A training file that is named more than once, perhaps by different paths.
    pub(super) fn repeated(&self) -> Option<&Path> {
        let mut seen = HashSet::new();
        let mut files = self.data.train.iter();
        let real = |file: &PathBuf| file.canonicalize().unwrap_or_else(|_| file.clone());
        files
            .find(|file| !seen.insert(real(file)))
            .map(PathBuf::as_path)
    }
}

/// The files that are evaluated for the paths of this flag: files themselves; of a folder, its held-out files,
/// or else all its files. They are the held-out files of the result, and the other files of folders are left
/// out.
pub(super) fn evaluated(paths: &[PathBuf], flag: &str) -> Result<DataFiles> {
    let mut found = DataFiles::default();
    for (path, given) in data_paths(paths)?.iter().zip(paths) {
        let files = data_files_to_evaluate(std::slice::from_ref(path))?;
        found.unread.extend(files.unread);
        if files.valid.is_empty() && files.train.is_empty() {
            found.valid.extend(files.left_out);
            continue;
        }
        if files.valid.is_empty()
            && let Some(other) = files.left_out.first()
        {
            let message = format!(
                "--{flag} {} has no held-out files, but training files and `{}`",
                given.display(),
                other.display()
            );
            return Err(UserError::new(message)
                .with_help(format!("name the file to evaluate on with --{flag}"))
                .into());
        }
        found.left_out.extend(files.left_out);
        if files.valid.is_empty() {
            found.valid.extend(files.train);
        } else {
            found.valid.extend(files.valid);
            found.left_out.extend(files.train);
        }
    }
    Ok(found)
}
