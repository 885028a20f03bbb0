//! `bench compare`: each method in a process of its own, on the same weights and tokens.

mod goals;
mod peer;
mod picture;
pub(crate) mod plan;
mod row;
mod table;
pub(crate) mod worker;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use clap::{Args, ValueEnum};

use self::peer::Peer;
use self::row::Row;
pub(crate) use self::row::highest;
use self::worker::{Event, Order};
use crate::method::Method;
use crate::settings::Settings;
use crate::{files, process};

/// Options of the comparison.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    settings: Settings,
    /// Methods, separated by commas [default: all that can run here]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "A,B,..")]
    methods: Vec<Method>,
    /// Add PyTorch's methods, run by this Python (torch, transformers, peft, safetensors)
    #[arg(long, value_name = "PYTHON")]
    peer: Option<PathBuf>,
    /// Folder of the tables and plots
    #[arg(long, default_value = "runs/compare", value_name = "DIR")]
    out: PathBuf,
    /// How often all methods are run; times are medians over all rounds
    #[arg(long, default_value_t = 1, value_name = "TIMES")]
    repeat: usize,
    /// Leave out a method that fails, for example for lack of memory
    #[arg(long)]
    keep_going: bool,
    /// Print the memory that each method would need, and run nothing
    #[arg(long)]
    plan: bool,
    /// With --plan: the available memory in GB
    #[arg(long, value_name = "GB", requires = "plan")]
    budget: Option<f64>,
}

impl Options {
    fn methods(&self) -> Vec<Method> {
        if !self.methods.is_empty() {
            return self.methods.clone();
        }
        let all = Method::value_variants().iter().copied();
        all.filter(|m| m.is_default() && (!m.is_torch() || self.peer.is_some()))
            .collect()
    }
}

/// Runs each method and writes the tables and plots.
pub(crate) fn run(options: &Options) -> Result<()> {
    let (settings, methods) = (&options.settings, options.methods());
    settings.check()?;
    if options.plan {
        return plan::print(settings, &methods, options.budget);
    }
    ensure!(options.repeat > 0, "--repeat is 0; give at least 1");
    files::make_folder(&options.out)?;
    let peer = match &options.peer {
        Some(python) if methods.iter().any(|m| m.is_torch()) => {
            Some(Peer::prepare(python, settings, &options.out.join("peer"))?)
        }
        _ => None,
    };
    let floor = highest(&own(&settings.tiny(), Method::Lisa)?, |event| event.rss).unwrap_or(0);
    let mut rows: Vec<Row> = Vec::new();
    // Methods that fail are left out of the following rounds, too.
    let mut methods = methods;
    for round in 0..options.repeat {
        for method in methods.clone() {
            eprintln!("round {} of {}: {method}", round + 1, options.repeat);
            let run = match (&peer, method.is_torch()) {
                (Some(peer), true) => peer.run(method).map(|events| (events, peer.floor)),
                (None, true) => bail!("`{method}` needs PyTorch: give --peer PYTHON"),
                (_, false) => own(settings, method).map(|events| (events, floor)),
            };
            let (events, floor) = match run.with_context(|| format!("`{method}`")) {
                Err(error) if options.keep_going => {
                    eprintln!("`{method}` is left out: {error:#}");
                    methods.retain(|other| *other != method);
                    rows.retain(|row| row.method != method);
                    continue;
                }
                run => run?,
            };
            match rows.iter_mut().find(|row| row.method == method) {
                Some(row) => row.add(&events, settings.warmup),
                None => rows.push(Row::new(method, floor, events, settings.warmup)?),
            }
        }
    }
    ensure!(!rows.is_empty(), "no method finished");
    let device = Device::default().autodiff();
    let model = settings.config()?.init(&device)?;
    let flex = device.memory_pool_usage().is_none();
    for row in &mut rows {
        row.planned = plan::of(settings, row.method, &model, flex)?.map(|(_, peak)| peak);
    }
    let out = &options.out;
    let text = format!(
        "{}\n{}",
        table::markdown(settings, options.repeat, &rows),
        goals::markdown(settings, flex, &rows)
    );
    files::write(&out.join("compare.csv"), &table::csv(settings, &rows))?;
    files::write(&out.join("compare.md"), &text)?;
    picture::write(out, &rows)?;
    println!("{text}");
    println!(
        "compare.csv, compare.md and four plots are in {}",
        out.display()
    );
    Ok(())
}

fn own(settings: &Settings, method: Method) -> Result<Vec<Event>> {
    let settings = settings.clone();
    let threads = settings.threads;
    process::worker("method", &Order { settings, method }, threads)
}
