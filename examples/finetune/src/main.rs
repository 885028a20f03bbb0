//! Fine-tunes a Hugging Face checkpoint on JSONL data with LISA. Everything is in one file that you
//! can copy into your own trainer.
//!
//! ```text
//! cargo run --release -p finetune                        # the bundled model and data
//! cargo run --release -p finetune -- MODEL DATA OUTPUT   # a model folder, a JSONL file, a new folder
//! ```
//!
//! It trains on `Device::default()`: the CPU with flex, or a GPU with `--features wgpu`, `vulkan`
//! or `cuda`, or LibTorch with `--features tch` (see `docs/gpu.md`).

use std::path::{Path, PathBuf};

use anyhow::Result;
use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, FloatDType};
use lisa::LisaConfig;
use lisa::optimizer::Decay;
use lisa_lm::checkpoint::{SaveOptions, save};
use lisa_lm::text::{
    BatchOptions, Batches, EncodeOptions, Example, ReadOptions, encode_examples, read_examples,
    split,
};
use lisa_lm::{CausalLm, Checkpoint, Tokenizer};

// LISA
const ACTIVE_LAYERS: usize = 2; // gamma: layers that train at a time; more learn faster, cost memory
const SAMPLING_PERIOD: usize = 10; // K: optimizer steps until other layers are sampled

// Optimization
const STEPS: usize = 200;
const BATCH_SIZE: usize = 8; // rows
const LEARNING_RATE: f64 = 1e-3; // for the bundled 1.5 M parameters; start with 1e-5 at 7 B
const WARMUP_STEPS: usize = 10;
const MIN_LEARNING_RATE: f64 = 1e-4; // where the cosine schedule ends
const WEIGHT_DECAY: f32 = 0.01;
const MAX_GRAD_NORM: f64 = 1.0; // of the whole gradient

// Model and data
const DTYPE: FloatDType = FloatDType::F32; // BF16 and F16 train through f32 master weights
const MAX_LENGTH: usize = 256; // tokens of an example; the rest is cut off
const HELD_OUT: f64 = 0.1; // fraction of the examples that is only evaluated
const SEED: u64 = 42;

// Output
const LOG_EVERY: usize = 20; // steps
const EVAL_EVERY: usize = 100; // steps

fn main() -> Result<()> {
    let [folder, data, output] = paths();
    let device = Device::default().autodiff();
    device.seed(SEED);

    // 1. Load the model and its tokenizer. The folder has the files that `transformers` saves.
    let checkpoint = Checkpoint::open(&folder)?;
    let tokenizer = Tokenizer::from_dir(&folder)?;
    let model = checkpoint.load(&device, Some(DTYPE))?;

    // 2. Read the data. A line is a JSON object: `messages`, `instruction` and `output`, `prompt`
    //    and `completion`, or `text`. The loss covers the answers only.
    let options = EncodeOptions {
        max_length: MAX_LENGTH,
        ..EncodeOptions::default()
    };
    let encode = |examples: &[Example]| encode_examples(examples, &tokenizer, options);
    let examples = read_examples(&[data], &ReadOptions::default())?.examples;
    let (train, held_out) = split(examples, HELD_OUT, SEED)?;
    let (train, held_out) = (encode(&train)?, encode(&held_out)?);
    println!("training data: {train}");
    let options = |shuffle| BatchOptions {
        batch_size: BATCH_SIZE,
        pack_to: None,
        shuffle,
        seed: SEED,
        pad_id: tokenizer.pad_id(),
        vocab_size: checkpoint.config().vocab_size(),
    };
    let batches = Batches::new(train.examples, options(true))?;
    let held_out = Batches::new(held_out.examples, options(false))?;

    // 3. Let LISA wrap the optimizer and freeze the layers that do not train in the first period.
    let optimizer = AdamWConfig::new().with_weight_decay(WEIGHT_DECAY);
    let (mut lisa, mut model) = LisaConfig::new()
        .with_active_layers(ACTIVE_LAYERS)
        .with_sampling_period(SAMPLING_PERIOD)
        .with_max_grad_norm(Some(MAX_GRAD_NORM))
        .with_decay(Decay::Matrices) // not of biases and norms
        .with_seed(SEED)
        .init(optimizer, model)?;
    println!("{lisa}");

    // 4. Train. Every `SAMPLING_PERIOD` steps, `step` returns the model with other active layers.
    let loss = evaluate(&model, &held_out, &device);
    println!("step    0: held-out loss {loss:.4}");
    for (step, batch) in (1..=STEPS).zip(batches) {
        let loss = model.batch_loss(batch.to_tensors(&device));
        let value = loss.clone().into_scalar::<f32>();
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        if step % LOG_EVERY == 0 {
            let layers = lisa.active_layers();
            println!("step {step:>4}: loss {value:.4}, active layers {layers:?}");
        }
        model = lisa.step(learning_rate(step), model, grads);
        if step % EVAL_EVERY == 0 || step == STEPS {
            let loss = evaluate(&model, &held_out, &device);
            println!("step {step:>4}: held-out loss {loss:.4}");
        }
    }

    // 5. Save a folder that `transformers` opens, with the tokenizer and licence of the base model.
    let options = SaveOptions {
        source: Some(&checkpoint),
        files: &tokenizer.changed_files()?,
        ..SaveOptions::default()
    };
    save(&model, &output, &options)?;
    println!("saved {}", output.display());
    Ok(())
}

/// Model folder, data file and output folder: the arguments, or the bundled ones.
fn paths() -> [PathBuf; 3] {
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/lisa-cli");
    let (folder, data) = (bundled.join("base"), bundled.join("data/train.jsonl"));
    let mut arguments = std::env::args_os().skip(1);
    [folder, data, "runs/finetune".into()]
        .map(|default| arguments.next().map_or(default, PathBuf::from))
}

/// The mean loss of all held-out answer tokens, in nats, without gradients.
fn evaluate(model: &CausalLm, held_out: &Batches, device: &Device) -> f64 {
    let model = model.valid();
    let (mut sum, mut weights) = (0.0, 0.0);
    for batch in held_out.clone().take(held_out.per_epoch()) {
        let mean = model.batch_loss(batch.to_tensors(device));
        sum += f64::from(mean.into_scalar::<f32>()) * batch.weight();
        weights += batch.weight();
    }
    sum / weights
}

/// A linear warm-up, then half a cosine.
fn learning_rate(step: usize) -> f64 {
    if step <= WARMUP_STEPS {
        return LEARNING_RATE * step as f64 / WARMUP_STEPS as f64;
    }
    let done = (step - WARMUP_STEPS) as f64 / (STEPS - WARMUP_STEPS) as f64;
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
    MIN_LEARNING_RATE + (LEARNING_RATE - MIN_LEARNING_RATE) * cosine
}
