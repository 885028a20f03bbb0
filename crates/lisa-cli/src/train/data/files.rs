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
    /// All of them. The held-out ones are those that are evaluated on; none if a share of the data
    /// is held out.
    pub(super) data: DataFiles,
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
        let mut data = data_files(&paths)?;
        if !input.eval.as_os_str().is_empty() {
            // The held-out files of folders are not read then.
            data.left_out.append(&mut data.valid);
            data.left_out.sort();
            data.valid = evaluated(std::slice::from_ref(&input.eval), "eval")?.valid;
        } else if is_bundled {
            data.valid = vec![bundled::held_out()?];
        }
        let real = |file: &PathBuf| file.canonicalize().unwrap_or_else(|_| file.clone());
        let trained: Vec<PathBuf> = data.train.iter().map(real).collect();
        if let Some(both) = (data.valid.iter()).find(|file| trained.contains(&real(file))) {
            let message = format!("`{}` is training data and held-out data", both.display());
            return Err(UserError::new(message)
                .with_help("give another file with --eval")
                .into());
        }
        // A file that is given itself may also be one that its folder leaves out.
        let used: HashSet<PathBuf> = data.train.iter().chain(&data.valid).map(real).collect();
        data.left_out.retain(|file| !used.contains(&real(file)));
        Ok(Self { data, is_bundled })
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::settings::Flags;

    #[test]
    fn the_file_of_eval_is_held_out_and_the_held_out_files_of_the_folder_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["train.jsonl", "val.jsonl", "test.jsonl"] {
            fs::write(path(name), "").unwrap();
        }
        let mut input = Flags::default().resolve(None).unwrap().input;
        input.data = vec![dir.path().to_owned()];
        for (eval, held_out, left_out) in [
            ("", "val.jsonl", "test.jsonl"),
            ("test.jsonl", "test.jsonl", "val.jsonl"),
            ("val.jsonl", "val.jsonl", "test.jsonl"),
        ] {
            if !eval.is_empty() {
                input.eval = path(eval);
            }
            let found = Files::of(&input).unwrap().data;
            assert_eq!(found.train, [path("train.jsonl")], "{eval}");
            assert_eq!(found.valid, [path(held_out)], "{eval}");
            assert_eq!(found.left_out, [path(left_out)], "{eval}");
        }
        // A file that is left out of its folder is given itself.
        input.data.push(path("test.jsonl"));
        let found = Files::of(&input).unwrap().data;
        assert_eq!(found.train, ["train.jsonl", "test.jsonl"].map(path));
        assert_eq!(found.left_out, [""; 0].map(path));
    }
}
