//! `bench study`: scores of the methods and policies, over several seeds, on tasks that are folders of
//! JSONL files.
//!
//! A [`job`] is one run, by everything that determines it, and each finished run is a line of the
//! [`log`], so that an interrupted study continues. The [`plan`] lists the runs that are missing, worker
//! processes [`train`], and the report is made from the lines.

mod job;
mod log;
mod plan;
mod pool;
mod report;
mod results;
pub(crate) mod train;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use self::log::Log;
use self::plan::Plan;
use self::results::Results;
use crate::files;

/// Options of the study.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Folder of the log, the tables and the plots
    #[arg(long, default_value = "runs/study", value_name = "DIR")]
    out: PathBuf,
    /// Runs at a time, each a process of one thread
    #[arg(long, default_value_t = 1, value_name = "N")]
    jobs: usize,
    /// Two methods, two seeds and a few steps, to test that everything works
    #[arg(long)]
    quick: bool,
    /// Write the tables and plots of the finished runs, and run nothing
    #[arg(long)]
    report: bool,
    /// Folder of the checkpoint to fine-tune [default: the bundled model]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Folders with `train.jsonl` and `heldout.jsonl`, one for each task [default: the bundled data]
    #[arg(long, value_name = "DIR,..", value_delimiter = ',')]
    tasks: Vec<PathBuf>,
}

/// Runs what is missing, and writes tables and plots.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.jobs > 0, "--jobs is 0; give at least 1");
    let out = &options.out;
    files::make_folder(out)?;
    let model = options
        .model
        .clone()
        .unwrap_or_else(|| files::bundled("base"));
    let tasks = match options.tasks.as_slice() {
        [] => vec![files::bundled("data")],
        tasks => tasks.to_vec(),
    };
    let plan = if options.quick {
        Plan::quick(model, tasks)
    } else {
        Plan::full(model, tasks)
    };
    let mut log = Log::open(&out.join("runs.jsonl"))?;
    if !options.report {
        pool::run(&plan, &mut log, options.jobs)?;
    }
    let results = Results {
        plan: &plan,
        log: &log,
    };
    let text = report::markdown(&results);
    files::write(&out.join("study.md"), &text)?;
    report::draw(&out.join("study.svg"), &results)?;
    println!("{text}study.md and study.svg are in {}", out.display());
    Ok(())
}
