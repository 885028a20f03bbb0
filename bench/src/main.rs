//! Measurements for the people who work on the project: see `bench --help`.

mod chart;
mod compare;
mod corpus;
mod draws;
mod files;
mod growth;
mod make_model;
mod memory;
mod method;
mod number;
mod overhead;
mod plans;
mod preset;
mod process;
mod settings;
mod soak;
mod stats;
mod study;
mod tasks;
mod theory;
mod trainer;
mod workload;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use lisa_cli::pool::in_pool;

use crate::settings::Settings;

/// Measures LISA: memory, time, loss, and the accuracy of its methods.
#[derive(Parser, Debug)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Memory, time and loss of LISA, full training, LoRA and PyTorch
    Compare(compare::Options),
    /// The planned peak of each method next to the measured one
    Plans(plans::Options),
    /// How a step grows with the length of the rows and with the vocabulary
    Growth(growth::Options),
    /// A LISA step and the same step frozen manually, and the cost of sampling
    Overhead(Settings),
    /// Peak memory over many periods
    Draws(draws::Options),
    /// A long run on a checkpoint, with a draw after each step: memory, time, and draw frequencies
    Soak(soak::Options),
    /// Scores of the methods and policies over several seeds; an interrupted study continues
    Study(study::Options),
    /// Make the task folders of the study from GSM8K, PubMedQA and an instruction set
    Tasks(tasks::Options),
    /// The convex case of the paper's theorem: average regret over steps
    Theory(theory::Options),
    /// Make the model and the instruction set that the program `lisa` contains
    MakeModel(make_model::Options),
    /// Run one job of another command, given as JSON
    #[command(hide = true)]
    Worker { kind: String, order: String },
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let cli = Cli::parse();
    match in_pool(|| run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Compare(options) => compare::run(&options),
        Command::Plans(options) => plans::run(&options),
        Command::Growth(options) => growth::run(&options),
        Command::Overhead(settings) => overhead::run(&settings),
        Command::Draws(options) => draws::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Study(options) => study::run(&options),
        Command::Tasks(options) => tasks::run(&options),
        Command::Theory(options) => theory::run(&options),
        Command::MakeModel(options) => make_model::run(&options),
        Command::Worker { kind, order } => match kind.as_str() {
            "method" => compare::worker::train(&serde_json::from_str(&order)?, process::print),
            "weights" => compare::worker::save_weights(&serde_json::from_str(&order)?),
            "study" => study::train::work(&serde_json::from_str(&order)?),
            _ => bail!("the worker `{kind}` does not exist"),
        },
    }
}
