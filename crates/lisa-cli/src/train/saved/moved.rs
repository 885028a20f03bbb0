//! [`check`]: the paths of a run whose folder was moved, or was made by somebody else.

use std::path::Path;

use anyhow::Result;

use crate::settings::Flags;
use crate::user_error::UserError;

/// Returns an error if the run in `out` was made in another folder and its settings name files that
/// `given` does not name, unless the paths are `allowed`.
pub(crate) fn check(out: &Path, saved: &Flags, given: &Flags, allowed: bool) -> Result<()> {
    let Some(made_in) = saved.output.out.as_deref() else {
        return Ok(());
    };
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let given = given.paths();
    let paths: Vec<String> = saved
        .paths()
        .into_iter()
        .filter(|(flag, _)| given.iter().all(|(other, _)| other != flag))
        .map(|(flag, path)| format!("\n  --{flag} {}", path.display()))
        .collect();
    if allowed || paths.is_empty() || real(made_in) == real(out) {
        return Ok(());
    }
    Err(UserError::new(format!(
        "the run in `{}` was made in `{}`; it reads these files:{}",
        out.display(),
        made_in.display(),
        paths.concat()
    ))
    .with_help("if you want it to read them, add --allow-changed paths; or give other paths")
    .into())
}
