//! `lisa train`: fine-tunes a model.

use std::path::PathBuf;

use anyhow::Result;
use burn::tensor::Device;
use clap::{Args, ValueEnum};

use crate::leftovers;
use crate::settings::Flags;
use crate::terminal::interrupt::Interrupt;
use crate::train::run::{Allowed, Outcome, Start, dry_run, run};
use crate::user_error::require;

/// Options of `lisa train`.
#[derive(Args, Debug, Default)]
pub struct Options {
    /// TOML file of settings (keys: long flag names); flags override it
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Continue from the newest checkpoint of the run in DIR, or in --out
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    #[allow(clippy::option_option)] // without the flag, without a folder, with one
    pub(crate) resume: Option<Option<PathBuf>>,
    /// Resume although the base model, the data or the folder has changed
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        value_delimiter = ',',
        requires = "resume",
        hide_short_help = true
    )]
    pub(crate) allow_changed: Vec<Changed>,
    /// Replace the run in the output folder
    #[arg(long, conflicts_with = "resume")]
    pub(crate) overwrite: bool,
    /// Print settings and estimated memory; train nothing and save nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The settings of the run.
    #[command(flatten)]
    pub flags: Flags,
}

/// What a resumed run may have changed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// The base model, its tokenizer or its chat template
    Model,
    /// The training data or the held-out data
    Data,
    /// The place of the run's folder, so that its settings may name other files
    Paths,
}

/// Trains, or with `--dry-run` prints what would be trained.
pub(crate) fn train(options: Options, device: &Device) -> Result<Outcome> {
    let file = match &options.config {
        Some(path) => Flags::from_file(path)?,
        None => Flags::default(),
    };
    let mut flags = options.flags.or(file);
    if let Some(Some(folder)) = &options.resume {
        let out = flags.output.out.get_or_insert_with(|| folder.clone());
        require!(
            out == folder,
            "leave --out out",
            "--resume is `{}` and --out is `{}`: a resumed run writes into its own folder",
            folder.display(),
            out.display()
        );
    }
    let start = match (options.resume.is_some(), options.overwrite) {
        (true, _) => Start::ResumeChanged(Allowed {
            model: options.allow_changed.contains(&Changed::Model),
            data: options.allow_changed.contains(&Changed::Data),
            paths: options.allow_changed.contains(&Changed::Paths),
        }),
        (_, true) => Start::Overwrite,
        _ => Start::Fresh,
    };
    if options.dry_run {
        dry_run(flags, start, device)?;
        return Ok(Outcome::Finished);
    }
    let interrupt = Interrupt::on_ctrl_c(leftovers::remove_all)?;
    run(flags, start, device, &|point| interrupt.asked(point))
}
