//! The study: what LISA and its policies are worth, on three made tasks and a base model made for it.
//!
//! Reads from top to bottom: `scale` (how large), `words`, `text`, `tasks` (the data), `base` (the
//! model), `job` (a run and the log), `next` (what is still to be run), `train` (one run), `pool`
//! (worker processes), `stats`, `table`, `picture`.

mod base;
mod job;
mod next;
mod picture;
mod pool;
mod results;
mod scale;
pub(crate) mod stats;
mod table;
mod tasks;
mod text;
mod train;
mod words;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::job::Log;
use self::next::Plan;
use self::pool::Order;
use self::results::Results;
use self::scale::Scale;

/// Options of the study.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Runs at a time, each a process of one thread
    #[arg(long, default_value_t = 1, value_name = "N")]
    jobs: usize,
    /// One task, two methods, two seeds and a few steps: whether everything works
    #[arg(long)]
    quick: bool,
    /// Write tables and plots of what is done, and run nothing
    #[arg(long)]
    report: bool,
    /// Other sizes, as JSON: width, layers, steps and whatever else `scale.rs` has
    #[arg(long, value_name = "FILE", conflicts_with = "quick")]
    sizes: Option<PathBuf>,
    #[arg(long, hide = true)]
    order: Option<String>,
}

/// Runs what is missing and writes tables and plots to `out`.
pub(crate) fn run(out: &Path, options: &Options) -> Result<()> {
    if let Some(order) = &options.order {
        let order: Order = serde_json::from_str(order).context("the order of a worker")?;
        let outcome = train::run(out, &order.scale, &order.job, &order.probabilities)?;
        println!("{}", serde_json::to_string(&outcome)?);
        return Ok(());
    }
    ensure!(options.jobs > 0, "--jobs is 0; give at least 1");
    std::fs::create_dir_all(out)
        .with_context(|| format!("cannot make the folder `{}`", out.display()))?;
    let mut plan = if options.quick {
        Plan::quick()
    } else {
        Plan::full()
    };
    if let Some(path) = &options.sizes {
        plan.scale = Scale::read(path)?;
    }
    let mut log = Log::open(&out.join("runs.jsonl"))?;
    if !options.report {
        base::prepare(out, &plan.scale)?;
        pool::run(&plan, &mut log, out, options.jobs)?;
    }
    let results = Results {
        plan: &plan,
        log: &log,
    };
    let text = table::markdown(&results);
    crate::write(&out.join("study.md"), &text)?;
    crate::write(
        &out.join("study.csv"),
        &table::csv(&log, &plan.scale.print()),
    )?;
    picture::write(out, &results)?;
    println!("{text}");
    println!("study.md, study.csv and plots are in {}", out.display());
    Ok(())
}
