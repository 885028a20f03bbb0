//! The command line: one file per subcommand.

use std::ffi::OsString;

use anyhow::Result;
use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::device::device;
use crate::terminal::output::say;
use crate::terminal::report::report;
use crate::train::memory::out_of_memory::explained_for;
use crate::train::run::Outcome;

mod arguments;
mod demo;
mod devices;
pub mod evaluate;
mod export;
mod export_adapter;
mod generate;
pub mod importance;
mod norms_plot;
mod probe;
mod scores;
mod scores_plot;
pub mod plan;
mod preview;
mod show;
mod train;
mod wrong_arguments;

/// Fine-tunes language models with LISA: all parameters of a few sampled layers at a time
#[derive(Debug, Parser)]
#[command(
    name = "lisa",
    version,
    args_override_self = true,
    after_help = "Without a command, `lisa demo` runs.\n\
                  `lisa COMMAND -h` prints the common flags of a command, `--help` all of them."
)]
pub struct Program {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fine-tune the bundled model on the bundled instructions
    Demo(demo::Options),
    /// Fine-tune a Hugging Face model on your data (JSONL, JSON, CSV, Parquet)
    Train(Box<train::Options>),
    /// Print the memory that each method needs, without loading the model
    Plan(plan::Options),
    /// Measure how important each layer is, for --policy weighted
    Importance(Box<importance::Options>),
    /// Print the architecture of a model and what LISA would train
    Show(show::Options),
    /// Print the tokens of a row of the data, and which of them the loss covers
    Preview(preview::Options),
    /// Measure the loss of a model on data, without training
    Evaluate(Box<evaluate::Options>),
    /// Generate text with a model
    Generate(generate::Options),
    /// Write the model of a run as a Hugging Face folder
    Export(export::Options),
    /// Print the devices that this build finds, and which one is used
    Devices,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

impl Program {
    /// Parses the arguments of the process. Wrong arguments end it with a message.
    #[must_use]
    pub fn from_args() -> Self {
        Self::parsed(std::env::args_os()).unwrap_or_else(|error| {
            let name = std::env::args_os().nth(1).unwrap_or_default();
            match wrong_arguments::explained(&Self::command(), &name.to_string_lossy(), error) {
                Ok(error) => {
                    anstream::eprint!("{}", report(&error.into()));
                    std::process::exit(2)
                }
                Err(error) => error.exit(),
            }
        })
    }

    /// Parses arguments, of which the first is the program's name. The names of settings may be those
    /// of other trainers, with `-` or `_`.
    pub fn parsed(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let arguments = arguments::normalized(&Self::command(), arguments)?;
        let all = arguments.iter().any(|argument| argument == "--help");
        let matches = with_help(Self::command(), all).try_get_matches_from(arguments)?;
        Self::from_arg_matches(&matches)
    }

    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        match self
            .command
            .unwrap_or(Command::Demo(demo::Options::default()))
        {
            Command::Demo(options) => return demo::demo(options, &device()?),
            Command::Train(options) => return train::train(*options, &device()?),
            Command::Plan(options) => plan::plan(&options, &device()?)?,
            Command::Importance(options) => {
                let device = device()?;
                explained_for("lisa importance", || {
                    importance::importance(&options, &device)
                })?;
            }
            Command::Show(options) => show::show(&options, &device()?)?,
            Command::Preview(options) => preview::preview(&options)?,
            Command::Evaluate(options) => {
                let device = device()?;
                explained_for("lisa evaluate", || evaluate::evaluate(&options, &device))?;
            }
            Command::Generate(options) => {
                let device = device()?;
                explained_for("lisa generate", || generate::generate(&options, &device))?;
            }
            Command::Export(options) => {
                let device = device()?;
                explained_for("lisa export", || export::export(&options, &device))?;
            }
            Command::Devices => devices::devices()?,
            Command::Completions { shell } => {
                say(String::from_utf8_lossy(&completions(shell)).trim_end())?;
            }
        }
        Ok(Outcome::Finished)
    }
}

/// A completion script for a shell.
#[must_use]
pub(crate) fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Program::command(), "lisa", &mut script);
    script
}

/// The command with one line of help per flag. `-h` prints the common flags, `--help` all of them.
#[must_use]
pub(crate) fn with_help(command: clap::Command, all: bool) -> clap::Command {
    let short = |arg: Arg| {
        // A number below 0 is a value, which the settings check.
        let arg = arg.allow_negative_numbers(true);
        let arg = if all { arg.hide_short_help(false) } else { arg };
        let values = arg.get_possible_values();
        let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
        if values.is_empty() || is_switch || arg.is_hide_possible_values_set() {
            return arg;
        }
        // The help of the values would take a line each.
        let names: Vec<&str> = values.iter().map(PossibleValue::get_name).collect();
        let names = format!("[{}]", names.join(", "));
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let space = if help.len() + names.len() > 70 {
            '\n'
        } else {
            ' '
        };
        arg.help(format!("{help}{space}{names}"))
            .hide_possible_values(true)
    };
    // Flags and their help share a line, however long a flag is. Nothing is wrapped.
    command.mut_subcommands(|command| command.term_width(200).mut_args(short))
}

#[cfg(test)]
mod tests;
