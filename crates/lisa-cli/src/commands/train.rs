//! `lisa train`: fine-tunes a model.

use std::path::PathBuf;

use anyhow::Result;
use burn::tensor::Device;
use clap::{Args, ValueEnum};

use crate::settings::Flags;
use crate::terminal::interrupt::stop_on_interrupt;
use crate::train::run::{Allowed, Outcome, Start, dry_run, run};

/// Options of `lisa train`.
#[derive(Args, Debug, Default)]
pub struct Options {
    /// TOML file of settings (keys: long flag names); flags override it
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// Continue from the newest checkpoint in the output folder
    #[arg(long)]
    pub resume: bool,
    /// Resume although the base model, or the data, is not that of the run
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        value_delimiter = ',',
        requires = "resume"
    )]
    pub allow_changed: Vec<Changed>,
    /// Replace the run in the output folder
    #[arg(long, conflicts_with = "resume")]
    pub overwrite: bool,
    /// Print trainable parameters and estimated memory; write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The settings of the run.
    #[command(flatten)]
    pub flags: Flags,
}

/// What a resumed run may have changed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The base model, its tokenizer or its chat template
    Model,
    /// The training data or the held-out data
    Data,
}

/// Trains, or with `--dry-run` prints what would be trained.
pub fn train(options: Options, device: &Device) -> Result<Outcome> {
    let file = match &options.config {
        Some(path) => Flags::from_file(path)?,
        None => Flags::default(),
    };
    let flags = options.flags.or(file);
    let start = match (options.resume, options.overwrite) {
        (true, _) => Start::ResumeChanged(Allowed {
            model: options.allow_changed.contains(&Changed::Model),
            data: options.allow_changed.contains(&Changed::Data),
        }),
        (_, true) => Start::Overwrite,
        _ => Start::Fresh,
    };
    if options.dry_run {
        dry_run(flags, start, device)?;
        return Ok(Outcome::Finished);
    }
    let stop = stop_on_interrupt()?;
    run(flags, start, device, &stop)
}
