//! Fine-tunes a language model with LISA through burn-train's `Learner`: its metrics, checkpoints,
//! early stopping and multi-device strategies.
//!
//! ```text
//! cargo run --release -p learner                           # the bundled model and data
//! cargo run --release -p learner -- --steps 5 --epochs 2   # two epochs of five steps
//! cargo run --release -p learner --features tui            # with burn-train's dashboard
//! ```

mod devices;
mod model;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::data::dataloader::DataLoaderBuilder;
use burn::data::dataset::InMemDataset;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::optim::AdamWConfig;
use burn::tensor::FloatDType;
use burn::train::metric::LossMetric;
use burn::train::metric::store::{Aggregate, Direction, Split};
use burn::train::{
    Learner, MetricEarlyStoppingStrategy, StoppingCondition, SupervisedTraining, TrainingStrategy,
};
use clap::Parser;
use devices::Devices;
use lisa::LisaConfig;
use lisa_lm::checkpoint::{SaveOptions, save};
use lisa_lm::text::{EncodeOptions, Encoded, ReadOptions, encode_examples, read_examples};
use lisa_lm::{Checkpoint, Tokenizer};
use model::{TextBatcher, TextModel};

const ACTIVE_LAYERS: usize = 2; // gamma
const SAMPLING_PERIOD: usize = 10; // K, in optimizer steps
const BATCH_SIZE: usize = 8; // rows
const LEARNING_RATE: f64 = 1e-3; // at the start; it falls to a tenth along a cosine
const MAX_GRAD_NORM: f64 = 1.0; // of the whole gradient
const MAX_LENGTH: usize = 256; // tokens of an example
const SEED: u64 = 42;

/// Fine-tunes a Hugging Face checkpoint with LISA through burn-train's `SupervisedTraining`.
#[derive(Debug, Parser)]
struct Arguments {
    /// Folder of a Hugging Face checkpoint [default: the bundled model]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// JSONL file to train on [default: the bundled data]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// JSONL file to validate on [default: the bundled held-out data]
    #[arg(long, value_name = "FILE")]
    validation: Option<PathBuf>,
    /// Optimizer steps in an epoch [default: the whole data]
    #[arg(long)]
    steps: Option<usize>,
    #[arg(long, default_value_t = 6)]
    epochs: usize,
    /// Continue from the checkpoint of this epoch
    #[arg(long, value_name = "EPOCH")]
    resume: Option<usize>,
    /// Folder for logs, checkpoints and the trained model
    #[arg(long, default_value = "runs/learner")]
    out: PathBuf,
    #[command(flatten)]
    devices: Devices,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    #[cfg(feature = "remote")]
    if let Some(port) = arguments.devices.serve {
        return devices::remote::serve(port);
    }
    let devices = arguments.devices.connect()?;
    let device = devices[0].clone().autodiff();
    device.seed(SEED);

    // The model and the data.
    let path = |given: &Option<PathBuf>, name: &str| {
        let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/lisa-cli");
        given.clone().unwrap_or_else(|| bundled.join(name))
    };
    let folder = path(&arguments.model, "base");
    let checkpoint = Checkpoint::open(&folder)?;
    let tokenizer = Tokenizer::from_dir(&folder)?;
    let mut train = read(&path(&arguments.data, "data/train.jsonl"), &tokenizer)?;
    let validation = path(&arguments.validation, "data/heldout.jsonl");
    let validation = read(&validation, &tokenizer)?;
    if let Some(steps) = arguments.steps {
        train.truncate(steps * BATCH_SIZE * devices.len());
    }
    // Each device has a batch of its own in each step.
    let steps = train.len().div_ceil(BATCH_SIZE * devices.len()) * arguments.epochs;
    let loader = |examples: Vec<Encoded>| {
        let pad_id = tokenizer.pad_id();
        DataLoaderBuilder::new(TextBatcher { pad_id })
            .batch_size(BATCH_SIZE)
            .set_device(device.clone())
            .shuffle(SEED)
            .build(InMemDataset::new(examples))
    };
    let (train, validation) = (loader(train), loader(validation));

    // LISA: the optimizer and the module that `Learner` gets. Plain AdamW would be one line:
    // let optimizer = AdamWConfig::new().init();
    let model = checkpoint.load(&device, Some(FloatDType::F32))?;
    let summed = arguments.devices.summed(devices.len());
    let (lisa, model) = LisaConfig::new()
        .with_active_layers(ACTIVE_LAYERS)
        .with_sampling_period(SAMPLING_PERIOD)
        .with_max_grad_norm(Some(MAX_GRAD_NORM))
        .with_seed(SEED)
        .init(AdamWConfig::new(), TextModel { model, summed })?;
    println!("{lisa}");
    let (optimizer, model) = lisa.into_learner(model)?;

    // The training.
    let schedule = CosineAnnealingLrSchedulerConfig::new(LEARNING_RATE, steps)
        .with_min_lr(LEARNING_RATE / 10.0)
        .init()
        .map_err(anyhow::Error::msg)?;
    let early_stopping = MetricEarlyStoppingStrategy::new(
        &LossMetric::new(),
        Aggregate::Mean,
        Direction::Lowest,
        Split::Valid,
        StoppingCondition::NoImprovementSince { n_epochs: 2 },
    );
    let metrics = model.metrics();
    let mut training = SupervisedTraining::new(&arguments.out, train, validation)
        .metric_train_numeric(LossMetric::new())
        .metric_valid_numeric(LossMetric::new())
        .metric_train_numeric(metrics.active_layers())
        .metric_train_numeric(metrics.trainable_parameters())
        .metric_train_numeric(metrics.optimizer_state())
        .metric_train_numeric(metrics.device_memory())
        .early_stopping(early_stopping)
        .with_default_checkpointers()
        .num_epochs(arguments.epochs)
        .summary();
    if devices.len() > 1 {
        let strategy = arguments.devices.strategy(devices);
        training = training.with_training_strategy(TrainingStrategy::Default(strategy));
    }
    if let Some(epoch) = arguments.resume {
        // burn-train writes a checkpoint as three files. If a run was killed, some may be missing.
        for name in ["model", "optim", "scheduler"] {
            let file = format!("checkpoint/{name}-{epoch}.bpk");
            let file = arguments.out.join(file);
            ensure!(
                file.is_file(),
                "the checkpoint of epoch {epoch} is not complete: there is no `{}`",
                file.display()
            );
        }
        training = training.checkpoint(epoch);
    }
    let result = training.launch(Learner::new(model, optimizer, schedule));
    if let Some(error) = result.error {
        anyhow::bail!("training stopped: {error}");
    }

    // Save the trained model as a Hugging Face folder.
    let folder = arguments.out.join("model");
    let options = SaveOptions {
        source: Some(&checkpoint),
        ..SaveOptions::default()
    };
    save(&result.model.into_inner().model, &folder, &options)?;
    println!("saved {}", folder.display());
    Ok(())
}

/// The examples of a JSONL file as tokens. The loss covers the answers only.
fn read(path: &Path, tokenizer: &Tokenizer) -> Result<Vec<Encoded>> {
    let options = EncodeOptions {
        max_length: MAX_LENGTH,
        ..EncodeOptions::default()
    };
    let examples = read_examples(&[path], &ReadOptions::default())?.examples;
    let encoded = encode_examples(&examples, tokenizer, options);
    let encoded = encoded.with_context(|| format!("cannot encode `{}`", path.display()))?;
    Ok(encoded.examples)
}
