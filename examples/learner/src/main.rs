//! A language model fine-tuned by LISA through burn-train: its dashboard, its checkpoints, its
//! early stopping.
//!
//! `cargo run --release -p learner`, and `--resume EPOCH` to go on from a checkpoint. With plain
//! AdamW the two lines at `LisaConfig` would be one: `let optimizer = AdamWConfig::new().init();`.

#[cfg(feature = "remote")]
mod remote;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use burn::data::dataloader::DataLoaderBuilder;
use burn::data::dataset::InMemDataset;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::optim::AdamWConfig;
use burn::tensor::distributed::{DistributedConfig, ReduceOperation};
use burn::tensor::{Device, FloatDType};
use burn::train::metric::LossMetric;
use burn::train::metric::store::{Aggregate, Direction, Split};
use burn::train::{
    ExecutionStrategy, Learner, MetricEarlyStoppingStrategy, MultiDeviceOptim, StoppingCondition,
    SupervisedTraining, TrainingStrategy,
};
use clap::{Parser, ValueEnum};
use lisa::{Explained, LisaConfig};
use lisa_lm::{
    Checkpoint, EncodeOptions, Encoded, LossOn, OnBadLine, SaveOptions, Tokenizer, encode_examples,
    read_examples, save,
};
use text::{TextBatcher, TextModel};

/// Fine-tunes a Hugging Face checkpoint through burn-train's `SupervisedTraining`.
#[derive(Debug, Parser)]
struct Arguments {
    /// Folder of a Hugging Face checkpoint [default: the one that comes with `finetune`]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// JSONL file to train on
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Held-out JSONL file
    #[arg(long, value_name = "FILE")]
    validation: Option<PathBuf>,
    /// Use this many training examples, for a short run; 0 for all
    #[arg(long, default_value_t = 0)]
    examples: usize,
    /// Times the data is gone through
    #[arg(long, default_value_t = 6)]
    epochs: usize,
    /// Rows in a batch
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// Batches in an optimizer step; burn-train adds their gradients up
    #[arg(long, default_value_t = 1)]
    accumulation: usize,
    /// The highest learning rate, at the start; it falls to a tenth along a cosine
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// Layers that train in a period (gamma)
    #[arg(long, default_value_t = 2)]
    active_layers: usize,
    /// Optimizer steps between two draws (K)
    #[arg(long, default_value_t = 10)]
    period: usize,
    /// Train on this many devices of the default kind
    #[arg(long, default_value_t = 1)]
    devices: usize,
    /// How several devices work together
    #[arg(long, value_enum, default_value_t = Together::Main)]
    together: Together,
    /// Train on the devices that these machines serve, by commas
    #[cfg(feature = "remote")]
    #[arg(long, value_name = "ws://HOST:PORT", value_delimiter = ',')]
    remote: Vec<String>,
    /// Serve this machine's device at this port and do nothing else
    #[cfg(feature = "remote")]
    #[arg(long, value_name = "PORT")]
    serve: Option<u16>,
    /// Go on from the checkpoint of this epoch
    #[arg(long, value_name = "EPOCH")]
    resume: Option<usize>,
    /// Folder for logs, checkpoints and the trained model
    #[arg(long, default_value = "runs/learner")]
    out: PathBuf,
}

/// How several devices work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Together {
    /// Gradients are summed on the first device, which updates the model.
    Main,
    /// Each parameter is updated on the device that holds its gradient.
    Sharded,
    /// Each device has its model and updates it; a collective sums the gradients (CUDA).
    Ddp,
}

/// The device of this number; a backend with one device stands for several, to try the path.
#[cfg(feature = "cuda")]
fn nth(i: usize) -> Device {
    Device::cuda(i)
}

/// The device of this number; a backend with one device stands for several, to try the path.
#[cfg(not(feature = "cuda"))]
fn nth(_: usize) -> Device {
    Device::default()
}

/// Where the training runs.
// Without the feature nothing here can fail.
#[cfg_attr(not(feature = "remote"), allow(clippy::unnecessary_wraps))]
fn devices(arguments: &Arguments) -> Result<Vec<Device>> {
    #[cfg(feature = "remote")]
    if !arguments.remote.is_empty() {
        return remote::connect(&arguments.remote);
    }
    Ok(match arguments.devices {
        1 => vec![Device::default()],
        several => (0..several).map(nth).collect(),
    })
}

/// How several devices run the training.
fn strategy(arguments: &Arguments, devices: Vec<Device>) -> ExecutionStrategy {
    match arguments.together {
        Together::Main => ExecutionStrategy::multi(devices, MultiDeviceOptim::OptimMainDevice),
        Together::Sharded => ExecutionStrategy::multi(devices, MultiDeviceOptim::OptimSharded),
        Together::Ddp => {
            let config = DistributedConfig {
                all_reduce_op: ReduceOperation::Mean,
            };
            ExecutionStrategy::ddp(devices, config)
        }
    }
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", Explained::new(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        arguments.batch_size > 0 && arguments.accumulation > 0 && arguments.devices > 0,
        "--batch-size, --accumulation or --devices is 0; give at least 1"
    );
    #[cfg(feature = "remote")]
    if let Some(port) = arguments.serve {
        return remote::serve(port);
    }
    let devices = devices(&arguments)?;
    let given = |path: &Option<PathBuf>, name: &str| path.clone().unwrap_or_else(|| bundled(name));
    let folder = given(&arguments.model, "base");
    let checkpoint = Checkpoint::open(&folder)?;
    let tokenizer = Tokenizer::from_dir(&folder)?;
    let mut train = read(&given(&arguments.data, "data/train.jsonl"), &tokenizer)?;
    if arguments.examples > 0 {
        train.truncate(arguments.examples);
    }
    let held_out = read(
        &given(&arguments.validation, "data/heldout.jsonl"),
        &tokenizer,
    )?;

    let device = devices[0].clone().autodiff();
    device.seed(42);
    let model = TextModel::new(checkpoint.load(&device, Some(FloatDType::F32))?);

    // let optimizer = AdamWConfig::new().with_epsilon(1e-8).init();
    let (lisa, model) = LisaConfig::new()
        .with_active_layers(arguments.active_layers)
        .with_sampling_period(arguments.period)
        .with_max_grad_norm(Some(1.0))
        .init(AdamWConfig::new().with_epsilon(1e-8), model)?;
    println!("{lisa}");
    let layers = lisa.layers().layers().len();
    let (optimizer, model) = lisa.into_learner(model)?;
    let metrics = model.metrics();

    let steps = train
        .len()
        .div_ceil(arguments.batch_size * arguments.accumulation);
    let schedule = CosineAnnealingLrSchedulerConfig::new(arguments.lr, steps * arguments.epochs)
        .with_min_lr(arguments.lr / 10.0)
        .init()
        .map_err(|e| anyhow::anyhow!("the learning rate: {e}"))?;
    let loader = |examples: Vec<Encoded>, shuffle: bool| {
        let mut builder = DataLoaderBuilder::new(TextBatcher::new(tokenizer.pad_id()))
            .batch_size(arguments.batch_size)
            .set_device(device.clone());
        if shuffle {
            builder = builder.shuffle(42);
        }
        builder.build(InMemDataset::new(examples))
    };
    let mut training =
        SupervisedTraining::new(&arguments.out, loader(train, true), loader(held_out, false))
            .metric_train_numeric(LossMetric::new())
            .metric_valid_numeric(LossMetric::new())
            .metric_train_numeric(metrics.active_layers())
            .metric_train_numeric(metrics.trainable_parameters())
            .metric_train_numeric(metrics.moments_bytes())
            .metric_train_numeric(metrics.device_memory())
            .early_stopping(MetricEarlyStoppingStrategy::new(
                &LossMetric::new(),
                Aggregate::Mean,
                Direction::Lowest,
                Split::Valid,
                StoppingCondition::NoImprovementSince { n_epochs: 2 },
            ))
            .with_default_checkpointers()
            .grads_accumulation(arguments.accumulation)
            .num_epochs(arguments.epochs)
            .summary();
    for norm in (0..layers).filter_map(|layer| metrics.gradient_norm(layer)) {
        training = training.metric_train_numeric(norm);
    }
    if devices.len() > 1 {
        let strategy = TrainingStrategy::Default(strategy(&arguments, devices));
        training = training.with_training_strategy(strategy);
    }
    if let Some(epoch) = arguments.resume {
        // Three files make a checkpoint; a run that was killed between them has not all.
        for part in ["model", "optim", "scheduler"] {
            let file = arguments.out.join(format!("checkpoint/{part}-{epoch}.bpk"));
            ensure!(
                file.is_file(),
                "there is no whole checkpoint of epoch {epoch}: `{}` is not there; give another",
                file.display()
            );
        }
        training = training.checkpoint(epoch);
    }

    let result = training.launch(Learner::new(model, optimizer, schedule));
    if let Some(error) = result.error {
        anyhow::bail!("training stopped: {error}");
    }
    let folder = arguments.out.join("model");
    let options = SaveOptions {
        source: Some(&checkpoint),
        ..SaveOptions::default()
    };
    save(&result.model.into_inner().into_inner(), &folder, &options)?;
    println!("the model is in {}", folder.display());
    Ok(())
}

/// A file of the `finetune` example.
fn bundled(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../crates/lisa-cli")
        .join(name)
}

fn read(path: &Path, tokenizer: &Tokenizer) -> Result<Vec<Encoded>> {
    let options = EncodeOptions {
        max_length: 256,
        loss_on: LossOn::Answer,
    };
    let examples = read_examples(path, OnBadLine::Stop)?.examples;
    let encoded = encode_examples(&examples, tokenizer, options)
        .with_context(|| format!("the data of `{}`", path.display()))?;
    Ok(encoded.examples)
}
