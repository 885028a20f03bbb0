//! `lisa demo`: a run on the bundled model and data.

use std::path::PathBuf;

use anyhow::Result;
use burn::tensor::Device;
use clap::Args;

use super::train;
use crate::settings::{Flags, OutputFlags, TrainingFlags};
use crate::train::run::Outcome;

/// Options of `lisa demo`.
#[derive(Args, Debug, Default)]
pub struct Options {
    /// Folder for all files of the run [default: runs/lisa]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Optimizer steps [default: 12 epochs, 1800 steps]
    #[arg(long, value_name = "STEPS")]
    steps: Option<usize>,
    /// Continue from the newest checkpoint in the output folder
    #[arg(long)]
    resume: bool,
    /// Replace the run in the output folder
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
}

/// Trains with the settings of `demo.toml`.
pub fn demo(options: Options, device: &Device) -> Result<Outcome> {
    let flags = Flags {
        training: TrainingFlags {
            steps: options.steps,
            ..TrainingFlags::default()
        },
        output: OutputFlags {
            out: options.out,
            ..OutputFlags::default()
        },
        ..Flags::default()
    };
    let options = train::Options {
        resume: options.resume.then_some(None),
        overwrite: options.overwrite,
        flags,
        ..train::Options::default()
    };
    train::train(options, device)
}
