//! Memory, time and loss of LISA beside full training, LoRA and PyTorch: see `--help`.

mod bars;
mod child;
mod corpus;
mod held_out;
mod long;
mod make_model;
mod memory;
mod method;
mod overhead;
mod peer;
mod plan;
mod plot;
mod pool;
mod preset;
mod report;
mod settings;
mod soak;
mod study;
mod theory;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Parser;
use peak_alloc::PeakAlloc;

use crate::child::Event;
use crate::method::Method;
use crate::pool::in_pool;
use crate::report::Row;
use crate::settings::{Cli, Mode, Settings};

/// Counts what is live, so that a backend without an account of its own can be measured.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    match in_pool(start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", lisa::Explained::new(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    let cli = Cli::parse();
    let settings = cli.settings;
    settings.check()?;
    if let Some(method) = settings.child {
        return child::run(&settings, method);
    }
    if let Some(dir) = &settings.save_weights {
        return child::save_weights(&settings, dir);
    }
    match cli.mode {
        Some(Mode::Overhead) => overhead::run(&settings),
        Some(Mode::Draws { draws }) => long::run(&settings, draws),
        Some(Mode::Soak { draws, model }) => {
            let model = model.unwrap_or_else(|| make_model::bundled().join("base"));
            soak::run(&settings, draws, &model)
        }
        Some(Mode::Study(options)) => study::run(&settings.out, &options),
        Some(Mode::MakeModel(options)) => make_model::run(&options),
        Some(Mode::Theory) => theory::run(&settings.out),
        None if settings.plan => plan::run(&settings),
        None => compare(&settings),
    }
}

/// Runs each method in a process of its own and writes what came out.
fn compare(settings: &Settings) -> Result<()> {
    let out = &settings.out;
    std::fs::create_dir_all(out)
        .with_context(|| format!("cannot make the folder `{}`", out.display()))?;
    let methods = settings.methods();
    let peer = match &settings.peer {
        Some(python) if methods.iter().any(|m| m.is_torch()) => {
            Some(peer::Peer::prepare(python, settings)?)
        }
        _ => None,
    };
    let floor = floor_of_own(settings)?;
    let mut rows: Vec<Row> = Vec::new();
    for round in 0..settings.repeat {
        for &method in &methods {
            eprintln!("round {} of {}: {method}", round + 1, settings.repeat);
            let run = match (&peer, method.is_torch()) {
                (Some(peer), true) => peer.run(method).map(|events| (events, peer.floor)),
                (None, true) => bail!("`{method}` needs PyTorch: give --peer PYTHON"),
                (_, false) => own(settings, method).map(|events| (events, floor)),
            };
            let (events, floor) = match run {
                Err(error) if settings.keep_going => {
                    eprintln!("`{method}` is left out: {error:#}");
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
    if rows.is_empty() {
        bail!("no method ran to its end");
    }
    let device = burn::tensor::Device::default().autodiff();
    let model = settings.preset.config(settings.shrink).init(&device)?;
    let flex = device.memory_pool_usage().is_none();
    for row in &mut rows {
        row.planned = plan::of(settings, row.method, &model, flex)?.map(|(_, peak)| peak);
    }
    report::write(settings, &rows)?;
    plot::write(out, &rows)?;
    println!("{}", report::markdown(settings, &rows));
    println!("{}", bars::markdown(&rows));
    println!(
        "compare.csv, compare.md and four plots are in {}",
        out.display()
    );
    Ok(())
}

/// What a process of ours holds beside the model: the high-water mark of a tiny one.
fn floor_of_own(settings: &Settings) -> Result<u64> {
    let tiny = Settings {
        preset: preset::Preset::Tiny,
        shrink: 1,
        steps: 2,
        warmup: 1,
        ..settings.clone()
    };
    let events = own(&tiny, Method::Lisa)?;
    Ok(report::highest(&events, |event| event.rss).unwrap_or(0))
}

fn own(settings: &Settings, method: Method) -> Result<Vec<Event>> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(settings.to_args())
        .args(["--child", &method.to_string()])
        .env("RAYON_NUM_THREADS", settings.threads.to_string());
    events_of(command, &method.to_string())
}

/// The lines a child prints, each an event.
fn events_of(mut command: Command, name: &str) -> Result<Vec<Event>> {
    let output = command
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{name}`"))?;
    if !output.status.success() {
        bail!("`{name}` ended with {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).with_context(|| format!("`{name}` said `{line}`")))
        .collect()
}

/// Writes a file beside its place and renames it.
fn write(path: &Path, text: &str) -> Result<()> {
    Ok(lisa_lm::write_atomically(path, text.as_bytes())?)
}
