//! What can be asked on the command line.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::method::Method;
use crate::preset::Preset;

/// Memory, time and loss of LISA beside full training, LoRA and PyTorch.
///
/// Each method runs in a process of its own, on the same weights and tokens. Prints a table and
/// writes `compare.csv`, `compare.md` and plots.
#[derive(Parser, Debug)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) mode: Option<Mode>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// What else can be measured.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Mode {
    /// A LISA step beside the same step frozen by hand, and the cost of a draw
    Overhead,
    /// Memory over many draws
    Draws {
        /// How many
        #[arg(long, default_value_t = 60)]
        draws: usize,
    },
    /// A long run on a checkpoint, a draw after each step: memory, time and how even the draws are
    Soak {
        /// How many draws
        #[arg(long, default_value_t = 10_000)]
        draws: usize,
        /// Folder of the checkpoint [default: the bundled one]
        #[arg(long, value_name = "DIR")]
        model: Option<PathBuf>,
    },
    /// What the methods are worth on three made tasks; goes on where it was stopped
    Study(crate::study::Options),
    /// The convex case of the paper's theorem: average regret over steps
    Theory,
    /// Make the bundled model, its tokenizer and its data anew
    MakeModel(crate::make_model::Options),
}

/// Type of the weights.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    /// Four bytes.
    F32,
    /// Two, with the range of f32.
    Bf16,
    /// Two, for devices without bf16.
    F16,
}

/// Options of all modes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    /// The model's shape; weights are random
    #[arg(long, value_enum, default_value = "small", global = true)]
    pub(crate) preset: Preset,
    /// Divide all widths and the vocabulary by this; the number of layers stays
    #[arg(long, default_value_t = 1, value_name = "N", global = true)]
    pub(crate) shrink: usize,
    /// Methods, by commas [default: all that can run here]
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "A,B,..",
        global = true
    )]
    pub(crate) methods: Vec<Method>,
    /// Add PyTorch's, run by this interpreter (torch, transformers, peft, safetensors)
    #[arg(long, value_name = "PYTHON", global = true)]
    pub(crate) peer: Option<PathBuf>,
    /// Folder of the table and the plots
    #[arg(
        long,
        default_value = "runs/compare",
        value_name = "DIR",
        global = true
    )]
    pub(crate) out: PathBuf,
    /// Optimizer steps
    #[arg(long, default_value_t = 12, global = true)]
    pub(crate) steps: usize,
    /// First steps that are left out of the times
    #[arg(long, default_value_t = 2, value_name = "STEPS", global = true)]
    pub(crate) warmup: usize,
    /// Times that all methods are run; times are medians over all rounds
    #[arg(long, default_value_t = 1, value_name = "TIMES", global = true)]
    pub(crate) repeat: usize,
    /// Rows in a batch
    #[arg(long, default_value_t = 1, global = true)]
    pub(crate) batch: usize,
    /// Tokens in a row
    #[arg(long, default_value_t = 256, global = true)]
    pub(crate) sequence: usize,
    /// Layers that train in a period (gamma)
    #[arg(long, default_value_t = 2, value_name = "N", global = true)]
    pub(crate) active_layers: usize,
    /// Optimizer steps between two draws (K)
    #[arg(long, default_value_t = 5, value_name = "STEPS", global = true)]
    pub(crate) period: usize,
    /// Rank of LoRA, on all matrices
    #[arg(long, default_value_t = 16, value_name = "R", global = true)]
    pub(crate) lora_rank: usize,
    /// Learning rate
    #[arg(long, default_value_t = 1e-4, value_name = "RATE", global = true)]
    pub(crate) lr: f64,
    /// Seed of weights, tokens and draws
    #[arg(long, default_value_t = 42, global = true)]
    pub(crate) seed: u64,
    /// Type of the weights
    #[arg(long, value_enum, default_value = "f32", global = true)]
    pub(crate) dtype: Dtype,
    /// Train bf16 and f16 weights without f32 master weights
    #[arg(long, global = true)]
    pub(crate) no_master_weights: bool,
    /// Threads of each process
    #[arg(long, default_value_t = 1, value_name = "N", global = true)]
    pub(crate) threads: usize,

    /// Leave a method out that fails, as one that does not fit, and go on with the next
    #[arg(long, global = true)]
    pub(crate) keep_going: bool,

    /// Print what each method would need, and run nothing
    #[arg(long, global = true)]
    pub(crate) plan: bool,
    /// With --plan: the memory there is, in GB
    #[arg(long, value_name = "GB", global = true)]
    pub(crate) budget: Option<f64>,

    #[arg(long, hide = true, value_enum)]
    pub(crate) child: Option<Method>,
    #[arg(long, hide = true)]
    pub(crate) save_weights: Option<PathBuf>,
}

impl Settings {
    /// Refuses what cannot be measured.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            self.steps > self.warmup,
            "--steps is {} and --warmup {}, so nothing is left to measure",
            self.steps,
            self.warmup
        );
        ensure!(
            self.batch > 0 && self.sequence > 1,
            "a batch needs a row of two tokens"
        );
        ensure!(
            self.repeat > 0 && self.threads > 0,
            "--repeat and --threads need at least 1"
        );
        ensure!(
            self.shrink > 0,
            "--shrink is 0; 1 leaves the shape as it is"
        );
        Ok(())
    }

    /// What will run.
    pub(crate) fn methods(&self) -> Vec<Method> {
        if !self.methods.is_empty() {
            return self.methods.clone();
        }
        let all = Method::value_variants().iter().copied();
        all.filter(|m| m.is_default() && (!m.is_torch() || self.peer.is_some()))
            .collect()
    }

    /// The same again, for a child.
    pub(crate) fn to_args(&self) -> Vec<String> {
        let name = |value: &dyn ToString| value.to_string();
        let mut args: Vec<String> = [
            ("--preset", self.preset.to_string()),
            ("--shrink", name(&self.shrink)),
            ("--steps", name(&self.steps)),
            ("--warmup", name(&self.warmup)),
            ("--batch", name(&self.batch)),
            ("--sequence", name(&self.sequence)),
            ("--active-layers", name(&self.active_layers)),
            ("--period", name(&self.period)),
            ("--lora-rank", name(&self.lora_rank)),
            ("--lr", name(&self.lr)),
            ("--seed", name(&self.seed)),
            ("--threads", name(&self.threads)),
            ("--dtype", self.dtype.to_string()),
        ]
        .into_iter()
        .flat_map(|(key, value)| [key.to_string(), value])
        .collect();
        if self.no_master_weights {
            args.push("--no-master-weights".into());
        }
        args
    }
}

/// Prints a value as it is written on the command line.
macro_rules! display_as_value {
    ($type:ty) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match clap::ValueEnum::to_possible_value(self) {
                    Some(value) => f.write_str(value.get_name()),
                    None => write!(f, "{self:?}"),
                }
            }
        }
    };
}
pub(crate) use display_as_value;

display_as_value!(Dtype);
