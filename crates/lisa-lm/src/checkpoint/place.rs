//! [`Place`]: a saved folder takes the place of the earlier one, whole or not at all.
//!
//! The new folder is written completely, inside the old one. Then it is moved next to the old one,
//! and the two are exchanged in one operation of the operating system. At every point there is a
//! complete model at the target. What the old folder has besides a model is linked into the new one
//! before, so that it is at the target at every point, too.
//!
//! An empty target, and a system that cannot exchange folders, gets the files one by one, the index
//! or the single file last. An interruption then leaves a folder that does not load, never one with
//! files of two models; the new files are all there.

use std::ffi::OsString;
use std::fs::{Metadata, Permissions};
use std::path::{Component, Path, PathBuf};

use super::contents::{ADAPTER_CONFIG, TEMPLATES, is_companion, is_copied, is_weights};
use super::shards::{INDEX, SINGLE, STAGING};
use crate::error::{Error, ErrorKind};
use crate::files::{disk, failed};

/// A file that marks the old folder while it is exchanged.
const OLD: &str = ".lisa-replaced";

/// The target of a save.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    staging: PathBuf,
    /// The permissions of a new folder.
    new_folder: Permissions,
    /// Whether the files of the old model besides its weights are replaced, too.
    replaces_all: bool,
    done: bool,
}

impl Place {
    /// Creates the target and the folder for the new files. Removes what an interrupted save left.
    ///
    /// # Errors
    ///
    /// The target has files, but is not a model's folder.
    pub(super) fn prepare(dir: &Path, replaces_all: bool) -> Result<Self, Error> {
        disk::create_folder(dir)?;
        let dir = dir.canonicalize().map_err(|e| failed("open", dir, e))?;
        let staging = dir.join(STAGING);
        let mut was_interrupted = staging.exists();
        if let Some(sibling) = sibling(&dir)
            && let Ok(found) = sibling.symlink_metadata()
        {
            was_interrupted = true;
            if found.is_dir() && sibling.join(OLD).exists() {
                carry(&sibling, &dir, replaces_all)?;
            }
            disk::remove_folder(&sibling)?;
        }
        disk::remove(&dir.join(OLD))?;
        disk::remove_folder(&staging)?;
        let entries = disk::entries(&dir)?;
        let names = entries.iter().map(std::fs::DirEntry::file_name);
        let names: Vec<String> = names.map(|n| n.to_string_lossy().into_owned()).collect();
        let is_model = names
            .iter()
            .any(|name| name == "config.json" || name == ADAPTER_CONFIG);
        let foreign = names.iter().find(|name| !may_precede(name));
        if let (false, false, Some(foreign)) = (is_model, was_interrupted, foreign) {
            let message = format!(
                "{} has the file {foreign:?} and no config.json, so it is not a model's folder",
                dir.display()
            );
            return Err(Error::new(ErrorKind::Io, message)
                .with_help("save to a new or an empty folder, or to one that has a model"));
        }
        disk::create_folder(&staging)?;
        let new_folder = metadata(&staging)?.permissions();
        disk::set_permissions(&staging, metadata(&dir)?.permissions())?;
        Ok(Self {
            dir,
            staging,
            new_folder,
            replaces_all,
            done: false,
        })
    }

    /// The target.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder for the new files.
    pub(super) fn staging(&self) -> &Path {
        &self.staging
    }

    /// Writes a new file at this path in the folder. It has the permissions of the file that it
    /// replaces.
    pub(super) fn create(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.staging.join(name);
        let mut parts = Path::new(name).components();
        if !parts.all(|part| matches!(part, Component::Normal(_))) {
            let message = format!("{name:?} is not the path of a file in the folder");
            return Err(Error::new(ErrorKind::Io, message));
        }
        if let Some(parent) = path.parent() {
            disk::create_folder(parent)?;
        }
        disk::create(&path, bytes)?;
        match self.replaced(name) {
            Some(old) => disk::set_permissions(&path, old.permissions()),
            None => Ok(()),
        }
    }

    /// Gives a file of weights, which the safetensors crate has written for the owner alone, the
    /// permissions of the weights that it replaces, or the permissions of a new file.
    pub(super) fn share(&self, name: &str) -> Result<(), Error> {
        let others = disk::entries(&self.dir)?.into_iter();
        let others = others.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut weights = others.filter(|name| is_weights(name));
        let old = self.replaced(name);
        let old = old.or_else(|| weights.find_map(|name| self.replaced(&name)));
        let permissions = old.map_or_else(|| of_file(&self.new_folder), |old| old.permissions());
        disk::set_permissions(&self.staging.join(name), permissions)
    }

    /// The regular file of the target that has this name.
    fn replaced(&self, name: &str) -> Option<Metadata> {
        let found = self.dir.join(name).symlink_metadata().ok();
        found.filter(Metadata::is_file)
    }

    /// Replaces the old folder with the new files.
    pub(super) fn commit(mut self) -> Result<(), Error> {
        disk::sync_folder(&self.staging)?;
        // From here on, the new files are complete and remain.
        self.done = true;
        let is_empty = disk::entries(&self.dir)?.len() == 1;
        if is_empty || !self.exchange()? {
            self.move_files()?;
        }
        disk::sync_folder(&self.dir)
    }

    /// Exchanges the folders; whether the system could.
    fn exchange(&self) -> Result<bool, Error> {
        // A process whose current folder this is would be in the old folder afterwards.
        let current = std::env::current_dir().and_then(|dir| dir.canonicalize());
        let is_current = current.is_ok_and(|current| current.starts_with(&self.dir));
        let (Some(sibling), false) = (sibling(&self.dir), is_current) else {
            return Ok(false);
        };
        let linked = self.link()?;
        disk::create(&self.dir.join(OLD), b"")?;
        let moved = disk::rename(&self.staging, &sibling);
        if moved.is_err() || disk::exchange(&sibling, &self.dir).is_err() {
            if moved.is_ok() {
                disk::rename(&sibling, &self.staging)?;
            }
            disk::remove(&self.dir.join(OLD))?;
            for name in linked {
                disk::remove_folder(&self.staging.join(name))?;
            }
            return Ok(false);
        }
        if let Some(parent) = self.dir.parent() {
            disk::sync_folder(parent)?;
        }
        carry(&sibling, &self.dir, self.replaces_all)?;
        disk::sync_folder(&self.dir)?;
        disk::remove_folder(&sibling)?;
        Ok(true)
    }

    /// Links what is not of the old model into the new folder, and returns the names. What cannot be
    /// linked is moved after the exchange.
    fn link(&self) -> Result<Vec<OsString>, Error> {
        let mut linked = Vec::new();
        for entry in disk::entries(&self.dir)? {
            let name = entry.file_name();
            let target = self.staging.join(&name);
            let is_ours = name == STAGING || name == OLD;
            let is_left = is_ours || is_replaced(&entry.path(), self.replaces_all);
            if !is_left && target.symlink_metadata().is_err() {
                link(&entry.path(), &target)?;
                linked.push(name);
            }
        }
        Ok(linked)
    }

    /// Moves the new files to the target one by one. What makes a folder load is removed first and
    /// moved last.
    fn move_files(&self) -> Result<(), Error> {
        let entries = [INDEX, SINGLE, ADAPTER_CONFIG];
        let is_entry = |name: &str| entries.contains(&name);
        for entry in entries {
            disk::remove(&self.dir.join(entry))?;
        }
        disk::sync_folder(&self.dir)?;
        let names = disk::entries(&self.staging)?.into_iter();
        let mut names: Vec<String> = names
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_by_key(|name| is_entry(name));
        for entry in disk::entries(&self.dir)? {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_replaced(&entry.path(), self.replaces_all) && !names.contains(&name) {
                disk::remove_folder(&entry.path())?;
            }
        }
        for name in names {
            let target = self.dir.join(&name);
            if target.is_dir() {
                disk::remove_folder(&target)?;
            }
            disk::rename(&self.staging.join(&name), &target)?;
        }
        disk::remove_folder(&self.staging)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.done {
            // The error that ended the save is reported.
            let _ = disk::remove_folder(&self.staging);
        }
    }
}

/// The folder next to the target that is exchanged with it.
fn sibling(dir: &Path) -> Option<PathBuf> {
    let name = dir.file_name()?.to_string_lossy().into_owned();
    Some(dir.with_file_name(format!(".{name}{STAGING}")))
}

/// Moves what is not of the old model to the new folder.
fn carry(old: &Path, new: &Path, replaces_all: bool) -> Result<(), Error> {
    for entry in disk::entries(old)? {
        let name = entry.file_name();
        let target = new.join(&name);
        let is_left = is_replaced(&entry.path(), replaces_all) || name == OLD;
        if !is_left {
            merge(&entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Moves a file or a folder to a place where a part of it may be already.
fn merge(from: &Path, to: &Path) -> Result<(), Error> {
    if to.symlink_metadata().is_err() {
        return disk::rename(from, to);
    }
    if is_folder(from) && is_folder(to) {
        for entry in disk::entries(from)? {
            merge(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Makes hard links to a file, or to those of a folder. Symbolic links, and files of a system without
/// hard links, are left out.
fn link(from: &Path, to: &Path) -> Result<(), Error> {
    let found = from
        .symlink_metadata()
        .map_err(|e| failed("read", from, e))?;
    if found.is_dir() {
        disk::create_folder(to)?;
        for entry in disk::entries(from)? {
            link(&entry.path(), &to.join(entry.file_name()))?;
        }
        disk::set_permissions(to, found.permissions())?;
    } else if found.is_file() {
        // What is not there after the exchange is moved.
        let _ = disk::link(from, to);
    }
    Ok(())
}

/// Whether this file of the old folder belongs to the model that is replaced, or is the folder of its
/// templates. Another folder does not, such as `LICENSES`.
fn is_replaced(path: &Path, replaces_all: bool) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_further = name == TEMPLATES || (is_copied(&name) && !is_folder(path));
    is_weights(&name) || (replaces_all && is_further)
}

fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

/// Whether a folder that has a file of this name may get a model: parts of a model, a model card,
/// and hidden files.
fn may_precede(name: &str) -> bool {
    is_companion(name) || is_weights(name) || name.starts_with('.')
}

fn metadata(path: &Path) -> Result<Metadata, Error> {
    path.metadata().map_err(|e| failed("read", path, e))
}

/// The permissions of a new file, where the permissions of a new folder are known.
fn of_file(folder: &Permissions) -> Permissions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        Permissions::from_mode(folder.mode() & 0o666)
    }
    #[cfg(not(unix))]
    folder.clone()
}
