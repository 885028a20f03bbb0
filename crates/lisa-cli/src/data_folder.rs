//! [`data_paths`]: the files and folders of `--data`: those on this machine, and data sets of the
//! Hugging Face hub (feature `hub`).

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::model_folder::is_hub_id;

/// The files of data that are read.
#[cfg(any(feature = "hub", test))]
const KINDS: &str = ".jsonl, .ndjson, .json, .csv, .tsv or .parquet file";

/// These paths; a data set of the hub is downloaded, and is then the folder that has its files.
///
/// A path that does not exist is a data set if it has the form `owner/name`, `owner/name:FOLDER` for
/// one folder of it, or either with `@REVISION`, a branch, tag or commit. It is a missing file if
/// `owner` is a folder here, or if it ends as a file of data does.
pub(crate) fn data_paths(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let local = |path: &PathBuf| match DataSet::named(path) {
        Some(set) => set.download(),
        None => Ok(path.clone()),
    };
    paths.iter().map(local).collect()
}

/// A data set of the hub.
#[derive(Debug, PartialEq)]
struct DataSet {
    owner: String,
    name: String,
    folder: Option<String>,
    revision: Option<String>,
}

impl DataSet {
    fn named(path: &Path) -> Option<Self> {
        let text = path.to_str().filter(|_| !path.exists())?;
        let (owner, rest) = text.split_once('/')?;
        let (rest, revision) = match rest.split_once('@') {
            Some((rest, revision)) => (rest, Some(revision.to_owned())),
            None => (rest, None),
        };
        let (name, folder) = match rest.split_once(':') {
            Some((name, folder)) => (name, Some(folder.to_owned())),
            None => (rest, None),
        };
        let is_file = lisa_lm::text::is_data_file(Path::new(name));
        (is_hub_id(owner, name) && !is_file).then(|| Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            folder,
            revision,
        })
    }

    #[cfg(not(feature = "hub"))]
    fn download(&self) -> Result<PathBuf> {
        use crate::user_error::UserError;

        let message = format!("there is no file or folder `{}/{}`", self.owner, self.name);
        Err(UserError::new(message)
            .with_help(
                "if it is a data set of the Hugging Face hub, build with `--features hub`, or \
                 download it",
            )
            .into())
    }

    /// Downloads the files of data, and says how large they are.
    #[cfg(feature = "hub")]
    fn download(&self) -> Result<PathBuf> {
        use anyhow::Context;
        use hf_hub::repository::RepoTreeEntry;

        use crate::terminal::output::say;
        use crate::terminal::text::{counted_as, size};
        use crate::user_error::require;

        let failed = || {
            format!(
                "cannot download `{}/{}` from the hub",
                self.owner, self.name
            )
        };
        let client = hf_hub::HFClientSync::new().with_context(failed)?;
        let repository = client.dataset(&self.owner, &self.name);
        let entries = repository
            .list_tree()
            .maybe_revision(self.revision.clone())
            .recursive(true)
            .send()
            .with_context(failed)?;
        let (mut files, mut bytes) = (Vec::new(), 0);
        for entry in entries {
            let RepoTreeEntry::File { path, size, .. } = entry else {
                continue;
            };
            let file = Path::new(&path);
            let is_inside = (self.folder.as_ref()).is_none_or(|folder| file.starts_with(folder));
            if is_inside && lisa_lm::text::is_data_file(file) {
                files.push(path);
                bytes += size;
            }
        }
        require!(
            !files.is_empty(),
            "the hub shows its files; convert it, or give another data set",
            "the data set `{}/{}` has no {KINDS}",
            self.owner,
            self.name
        );
        say(format_args!(
            "{}/{} on the hub: {}, {}",
            self.owner,
            self.name,
            counted_as(files.len(), "file of data", "files of data"),
            size(bytes)
        ))?;
        let snapshot = repository
            .snapshot_download()
            .maybe_revision(self.revision.clone())
            .allow_patterns(files)
            .send()
            .with_context(failed)?;
        Ok(match &self.folder {
            Some(folder) => snapshot.join(folder),
            None => snapshot,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_hub_are_no_missing_files() {
        let set = |text: &str| {
            let set = DataSet::named(Path::new(text))?;
            Some((set.owner, set.name, set.folder, set.revision))
        };
        let some = |folder: Option<&str>, revision: Option<&str>| {
            let names = ("openai".to_owned(), "gsm8k-v1.1".to_owned());
            Some((
                names.0,
                names.1,
                folder.map(Into::into),
                revision.map(Into::into),
            ))
        };
        assert_eq!(set("openai/gsm8k-v1.1"), some(None, None));
        assert_eq!(set("openai/gsm8k-v1.1:main"), some(Some("main"), None));
        assert_eq!(
            set("openai/gsm8k-v1.1:a/b@v2"),
            some(Some("a/b"), Some("v2"))
        );
        assert_eq!(
            set("openai/gsm8k-v1.1@refs/pr/3"),
            some(None, Some("refs/pr/3"))
        );
        for path in [
            "name",
            "a/b/c",
            "/a",
            "./a",
            "../a",
            "a\\b/c",
            // A file.
            "data/train.jsonl",
            "data/train.json.gz",
            // The folder exists in every package.
            "src/nothing",
            "tests/run",
        ] {
            assert_eq!(set(path), None, "{path}");
        }
    }

    #[test]
    fn every_kind_of_file_that_is_read_is_named() {
        let empty = tempfile::tempdir().unwrap();
        let error = lisa_lm::text::data_files(&[empty.path()]).unwrap_err();
        assert!(error.message().contains(KINDS), "{error}");
    }

    #[cfg(not(feature = "hub"))]
    #[test]
    fn without_the_feature_a_data_set_of_the_hub_is_refused_with_the_flag() {
        let error = data_paths(&["owner/name".into()]).unwrap_err();
        let error: &crate::user_error::UserError = error.downcast_ref().unwrap();
        assert_eq!(error.to_string(), "there is no file or folder `owner/name`");
        assert!(error.help().unwrap().contains("--features hub"));
    }
}
