//! The paths among the settings.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Flags;
use crate::user_error::require;

/// The names of these files of data, without their folders.
#[must_use]
pub(crate) fn names_of_data(paths: &[PathBuf]) -> String {
    let names = paths.iter().filter_map(|path| path.file_name());
    let names: Vec<_> = names.map(|name| name.to_string_lossy()).collect();
    if names.is_empty() {
        "the bundled instructions".to_owned()
    } else {
        names.join(", ")
    }
}

impl Flags {
    /// These flags with absolute paths, so that they mean the same in every working directory. A
    /// model that is no folder here is an id of the hub, and is kept; so is data that does not
    /// exist here.
    pub(crate) fn absolute(mut self) -> io::Result<Self> {
        for path in self.paths_mut() {
            if path.exists() {
                *path = std::path::absolute(&*path)?;
            }
        }
        Ok(self)
    }

    /// These flags without paths.
    #[must_use]
    pub(crate) fn without_paths(mut self) -> Self {
        self.input.model = None;
        self.input.data = None;
        self.input.eval = None;
        self.method.importance = None;
        self.method.adapter = None;
        self.output.out = None;
        self
    }

    /// The paths that a run reads, with their flags. A chat template is not among them, since a
    /// checkpoint has its text.
    #[must_use]
    pub(crate) fn paths(&self) -> Vec<(&'static str, &Path)> {
        let mut paths: Vec<(&'static str, &PathBuf)> = Vec::new();
        paths.extend(self.input.model.iter().map(|path| ("model", path)));
        paths.extend(self.input.data.iter().flatten().map(|path| ("data", path)));
        paths.extend(self.input.eval.iter().map(|path| ("eval", path)));
        let importance = self.method.importance.iter();
        paths.extend(importance.map(|path| ("importance", path)));
        paths.retain(|(_, path)| !path.as_os_str().is_empty());
        paths
            .into_iter()
            .map(|(flag, path)| (flag, path.as_path()))
            .collect()
    }

    /// Returns an error if a path of a run, or its folder `out`, is not UTF-8: a checkpoint has them
    /// as text.
    pub(crate) fn require_utf8(&self, out: &Path) -> Result<()> {
        let adapter = self.method.adapter.as_deref();
        let others = adapter.map(|path| ("adapter", path)).into_iter();
        let others = others.chain([("out", out)]);
        for (flag, path) in self.paths().into_iter().chain(others) {
            require!(
                path.to_str().is_some(),
                "rename it, or give another path: the checkpoints of a run have its paths as text",
                "--{flag} is {path:?}, which is not UTF-8"
            );
        }
        Ok(())
    }

    fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let input = &mut self.input;
        let data = input.data.iter_mut().flatten();
        let others = [
            &mut input.model,
            &mut input.eval,
            &mut self.method.importance,
            &mut self.method.adapter,
        ];
        let others = others.into_iter().flatten();
        data.chain(others)
            .filter(|path| !path.as_os_str().is_empty())
    }
}
