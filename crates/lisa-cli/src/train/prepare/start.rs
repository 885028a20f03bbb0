//! [`Start`]: where a run begins: the output folder, and the checkpoint of a resumed run.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::earlier_run;
use crate::lock::Lock;
use crate::output_folder::{self, Made};
use crate::run_folder;
use crate::settings::{Flags, Origin};
use crate::terminal::output::say;
use crate::train::saved::checkpoints::{self, State};
use crate::train::saved::fingerprint::Allowed;
use crate::train::saved::moved;
use crate::user_error::{UserError, require};

/// A checkpoint: its folder and its state.
pub(crate) type Saved = (PathBuf, State);

/// Where a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first step, in a folder without a run.
    Fresh,
    /// At the first step; the earlier run in the folder is replaced.
    Overwrite,
    /// At the newest checkpoint in the folder, with the model and the data that the run began with.
    Resume,
    /// As `Resume`, with another model or other data.
    ResumeChanged(Allowed),
}

impl Start {
    /// What a resumed run may have changed; `None` if the run begins at the first step.
    pub(super) fn resumed(self) -> Option<Allowed> {
        match self {
            Self::Fresh | Self::Overwrite => None,
            Self::Resume => Some(Allowed::default()),
            Self::ResumeChanged(allowed) => Some(allowed),
        }
    }
}

/// The output folder of a run, which nobody else writes to.
pub(super) struct Entered {
    pub(super) out: PathBuf,
    /// With the settings of the checkpoint.
    pub(super) flags: Flags,
    pub(super) saved: Option<Saved>,
    /// The lock is removed before a folder that is still empty.
    pub(super) held: (Option<Lock>, Option<Made>),
    pub(super) start: Start,
    /// Whether the run writes into the folder.
    pub(super) writes: bool,
}

impl Entered {
    /// Checks the folder and the settings, and makes the folder if the run `writes`. Brings it into
    /// order if a run was killed there.
    pub(super) fn of(flags: Flags, start: Start, writes: bool) -> Result<Self> {
        let out = std::path::absolute(flags.out()?)?;
        let (mut lock, mut made) = (None, None);
        if writes && out.is_dir() {
            lock = Lock::of(&out)?;
            if earlier_run::settle(&out)? {
                say(format_args!(
                    "a run that was killed had set the earlier run in {} aside: it is back",
                    out.display()
                ))?;
            }
        }
        let (flags, saved) = begin(flags, start, &out)?;
        if writes {
            made = Some(output_folder::make(&out)?);
            lock = match lock {
                Some(lock) => Some(lock),
                None => Lock::of(&out)?,
            };
        }
        Ok(Self {
            out,
            flags,
            saved,
            held: (lock, made),
            start,
            writes,
        })
    }
}

/// The flags with the settings of a resumed run's checkpoint, and that checkpoint. Checks them, and
/// the output folder.
fn begin(flags: Flags, start: Start, out: &Path) -> Result<(Flags, Option<Saved>)> {
    let mut flags = flags.absolute()?;
    flags.require_utf8(out)?;
    let mut saved = None;
    if let Some(allowed) = start.resumed() {
        let (path, state) = checkpoints::newest(out)?;
        moved::check(out, &state.settings, &flags, allowed.paths)?;
        flags = flags.or_saved(state.settings.clone());
        saved = Some((path, state));
    } else {
        let is_run = run_folder::holds_a_run(out);
        // A run that was stopped before its first checkpoint has nothing to lose.
        require!(
            start != Start::Fresh || !is_run || !run_folder::is_saved(out),
            "continue it with --resume, replace it with --overwrite, or give another folder with \
             --out",
            "`{}` contains a run already",
            out.display()
        );
        output_folder::require_ours(out, is_run, "a run")?;
        flags = flags.with_adapter()?;
    }
    run_folder::require_replaceable(out)?;
    if start == Start::Overwrite {
        run_folder::require_own_files(out)?;
    }
    // A resumed run writes where it was read.
    if flags.output.out.is_none() {
        flags.origins.set("out", Origin::Default);
    }
    flags.output.out = Some(out.to_owned());
    flags.clone().resolve(None)?;
    Ok((flags, saved))
}

/// Returns an error if a run that replaces the one in `out` reads files of that folder.
pub(super) fn require_outside(flags: &Flags, model: &Path, out: &Path) -> Result<()> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let template = flags.input.chat_template.as_deref().map(Path::new);
    let template = template.filter(|path| path.is_file());
    let paths = flags.paths().into_iter().chain([("model", model)]);
    let paths = paths.chain(template.map(|path| ("chat-template", path)));
    let adapter = flags.method.adapter.as_deref();
    let mut paths = paths.chain(adapter.map(|path| ("adapter", path)));
    if let Some((flag, path)) = paths.find(|(_, path)| real(path).starts_with(real(out))) {
        return Err(UserError::new(format!(
            "--overwrite replaces the run in `{}`, and --{flag} `{}` is in that folder",
            out.display(),
            path.display()
        ))
        .with_help("give another folder with --out, or move the file or the model out of it first")
        .into());
    }
    Ok(())
}
