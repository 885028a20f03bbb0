//! Fine-tunes a Hugging Face checkpoint on JSONL data: see `--help`.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use burn::tensor::Device;
use clap::Parser;
use lisa_cli::importance::importance;
use lisa_cli::plan::plan;
use lisa_cli::pool::in_pool;
use lisa_cli::report::report;
use lisa_cli::run::{Outcome, Start, dry_run, run};
use lisa_cli::settings::{Command, Flags, Task};

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    match in_pool(start) {
        Ok(Outcome::Finished) => ExitCode::SUCCESS,
        // What a shell reports of a program that Ctrl-C ended.
        Ok(Outcome::Stopped) => ExitCode::from(130),
        Err(error) => {
            anstream::eprint!("{}", report(&error));
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<Outcome> {
    let command = Command::parse();
    match &command.task {
        Some(Task::Completions { shell }) => {
            std::io::stdout().write_all(&Command::completions(*shell))?;
            return Ok(Outcome::Finished);
        }
        Some(Task::Importance(options)) => {
            importance(options, &Device::default())?;
            return Ok(Outcome::Finished);
        }
        None => {}
    }
    let file = match &command.config {
        Some(path) => Flags::from_toml(path)?,
        None => Flags::default(),
    };
    if command.plan {
        let settings = command.flags.or(file).resolve(None)?;
        print!("{}", plan(&settings, command.budget, &Device::default())?);
        return Ok(Outcome::Finished);
    }
    let start = match (command.resume, command.overwrite) {
        (true, _) => Start::Resume,
        (_, true) => Start::Overwrite,
        _ => Start::Fresh,
    };
    if command.dry_run {
        dry_run(command.flags.or(file), start, &Device::default())?;
        return Ok(Outcome::Finished);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::SeqCst) {
            // Asked twice: at once. Checkpoints that are there stay whole.
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step, with a checkpoint; once more to stop at once");
    })?;
    run(command.flags.or(file), start, &Device::default(), &stop)
}
