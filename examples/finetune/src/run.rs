//! The job from top to bottom: read, split, evaluate, train, evaluate, write.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, FloatDType, Int, Tensor};
use lisa::Pass;
use lisa_lm::{
    Batch, BatchOptions, Batches, CausalLm, Checkpoint, EncodeOptions, Encoded, Example, Input,
    LossOn, OnBadLine, Position, SaveOptions, Tokenizer, encode_examples_with, read_examples,
    write_atomically,
};
use serde_json::json;

use crate::checkpoints::{self, State};
use crate::evaluate::{Evaluate, Evaluation, held_out_loss};
use crate::method::Trainer;
use crate::metrics::{Line, Metrics, memory_bytes, peak_bytes, show};
use crate::progress::{Slow, bar};
use crate::settings::{Dtype, Flags, Method, Settings};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The model is written.
    Finished,
    /// `stop` was set; a checkpoint is written.
    Stopped,
}

/// Where a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first step, in a folder that holds no run.
    Fresh,
    /// At the first step; what the folder holds of an earlier run is replaced.
    Overwrite,
    /// At the newest checkpoint in the folder.
    Resume,
}

/// After so many bad batches in a row a run stops, whatever it was told.
const MOST_SKIPPED: usize = 10;

/// A run's data, as examples and as tokens.
pub(crate) struct Data {
    pub(crate) train: Vec<Encoded>,
    held_out: Vec<Encoded>,
    held_out_examples: Vec<Example>,
    in_words: String,
}

impl Data {
    /// The most tokens of a row.
    fn longest(&self, settings: &Settings) -> usize {
        let longest = self.train.iter().map(|example| example.ids.len()).max();
        if settings.pack {
            settings.max_length
        } else {
            longest.unwrap_or(settings.max_length)
        }
    }

    /// How many tokens there are, and how many so many batches see.
    fn describe(&self, batches: &Batches, number: u64) {
        println!("{}", self.in_words);
        let tokens: usize = self.train.iter().map(|example| example.ids.len()).sum();
        let epochs = number as f64 / batches.per_epoch().max(1) as f64;
        println!(
            "{} rows, {} batches an epoch; {number} batches see the data {epochs:.2} times, \
             about {:.0} tokens",
            batches.rows(),
            batches.per_epoch(),
            tokens as f64 * epochs
        );
    }
}

/// Runs the job. `stop` set at any time ends it after the step in hand, with a checkpoint.
pub fn run(flags: Flags, start: Start, device: &Device, stop: &AtomicBool) -> Result<Outcome> {
    job(flags, start, device, Some(stop))
}

/// Loads all that the job needs, prints what will train and what it will take, and writes nothing.
pub fn dry_run(flags: Flags, start: Start, device: &Device) -> Result<()> {
    job(flags, start, device, None).map(drop)
}

// It reads from top to bottom; in parts it would have to be put together again.
#[allow(clippy::too_many_lines)]
fn job(flags: Flags, start: Start, device: &Device, stop: Option<&AtomicBool>) -> Result<Outcome> {
    let (flags, saved) = if start == Start::Resume {
        let out = flags.clone().resolve(None)?.out;
        let (path, state) = checkpoints::newest(&out)?;
        (flags.or(state.settings.clone()), Some((path, state)))
    } else {
        (flags, None)
    };
    let model_dir = crate::hub::folder(&flags.clone().resolve(None)?.model)?;
    let checkpoint = Checkpoint::open(&model_dir)?;
    let settings = flags.resolve(stored_dtype(&checkpoint))?;
    ensure!(
        device.supports_dtype(dtype_of(settings.dtype)),
        "{} does not compute in {:?}; give another type by --dtype",
        device_name(device),
        settings.dtype
    );
    if let Some((_, state)) = &saved {
        let made_with = state.settings.clone().resolve(None)?;
        if let Some(difference) = settings.differs(&made_with) {
            bail!("cannot resume: {difference}");
        }
    }
    if start == Start::Fresh && holds_a_run(&settings.out) {
        bail!(
            "`{}` holds a run already; go on with it by --resume, replace it by --overwrite, or \
             give another folder by --out",
            settings.out.display()
        );
    }
    if stop.is_some() {
        std::fs::create_dir_all(&settings.out)
            .with_context(|| format!("cannot make the folder `{}`", settings.out.display()))?;
    }

    // 1. Tokens and weights.
    let tokenizer = Tokenizer::from_dir(&model_dir)?;
    let data = read(&settings, &tokenizer, &checkpoint)?;
    device.seed(settings.seed);
    let training_device = device.clone().autodiff();
    let slow = Slow::bytes("reading the weights");
    let dtype = Some(dtype_of(settings.dtype));
    let model = checkpoint.load_with(&training_device, dtype, move |done, all| {
        slow.set(done, all);
    })?;
    let layers = model.num_layers();
    let planned = match stop {
        None => Some(crate::plan::of(
            &settings,
            &model,
            device,
            data.longest(&settings),
        )?),
        Some(_) => None,
    };

    // 2. The method, and where a resumed run stands.
    let (trainer, model) = Trainer::new(&settings, model)?;
    let mut batches = Batches::new(
        data.train.clone(),
        BatchOptions {
            batch_size: settings.batch_size,
            pack_to: settings.pack.then_some(settings.max_length),
            shuffle: true,
            seed: settings.seed,
            pad_id: tokenizer.pad_id(),
        },
    )?;
    let steps = match settings.steps {
        0 => {
            let batches = settings.epochs * batches.per_epoch() as f64;
            (batches / settings.accumulation as f64).ceil() as u64
        }
        steps => steps as u64,
    };
    println!(
        "{} on {}, {:?}",
        settings.model.display(),
        device_name(device),
        settings.dtype
    );
    println!("{}", trainer.describe(&model));
    println!(
        "{} training and {} held-out examples; {steps} steps of {} x {} rows",
        data.train.len(),
        data.held_out.len(),
        settings.accumulation,
        settings.batch_size
    );
    let Some(stop) = stop else {
        if let Some((path, _)) = &saved {
            checkpoints::load(path, model, trainer)?;
            println!("the checkpoint {} loads", path.display());
        }
        data.describe(&batches, steps * settings.accumulation as u64);
        print!("{}", planned.unwrap_or_default());
        println!("dry run: nothing was trained and nothing written");
        return Ok(Outcome::Finished);
    };

    let evaluate = Evaluate {
        tokenizer: &tokenizer,
        examples: &data.held_out_examples,
        encoded: &data.held_out,
        batch_size: settings.batch_size,
        answers: settings.eval_examples,
        max_new_tokens: settings.max_new_tokens,
    };
    let (mut model, mut trainer, mut state) = if let Some((path, state)) = saved {
        let (model, trainer) = checkpoints::load(&path, model, trainer)?;
        batches.seek(state.position);
        println!("resumed at step {} from {}", state.step, path.display());
        (model, trainer, state)
    } else {
        let before = evaluation("before", &evaluate, &model, device)?;
        let state = State {
            step: 0,
            position: batches.position(),
            settings: settings.to_flags(),
            before,
            seconds: 0.0,
            tokens: 0,
        };
        (model, trainer, state)
    };
    if start == Start::Overwrite {
        checkpoints::remove(&settings.out)?;
    }
    checkpoints::clean(&settings.out)?;
    let mut metrics = Metrics::open(settings.out.join("metrics.jsonl"), state.step)?;

    // 3. Train.
    let bar = bar(steps, state.step);
    let started = Instant::now();
    let seconds_before = state.seconds;
    let mut skipped = 0;
    while state.step < steps {
        let active = trainer.active_layers().to_vec();
        let lr = settings.learning_rate(state.step, steps);
        let first = batches.position();
        let (work, loss, tokens) = if settings.update_in_backward {
            forward(&model, &mut batches, &settings, &training_device)
        } else {
            accumulate(&model, &mut batches, &settings, &training_device)
        };
        if let Err(error) = finite(state.step + 1, loss, &trainer, &model, &work) {
            let batch = origin(&mut batches, first, &tokenizer)?;
            skipped += 1;
            if !settings.skip_bad_steps || skipped > MOST_SKIPPED {
                bail!(
                    "{error:#}. It came with {batch}, at --lr {lr:.1e}. What was saved is as it \
                     was; --skip-bad-steps leaves such batches out"
                );
            }
            bar.suspend(|| println!("left out {batch}: {error:#}"));
            continue;
        }
        skipped = 0;
        model = match work {
            Work::Gradients(grads) => trainer.step(lr, model, grads),
            Work::Pass(pass) => trainer.step_layered(lr, model, *pass)?,
        };
        state.step += 1;
        state.tokens += tokens as u64;
        state.position = batches.position();
        state.seconds = seconds_before + started.elapsed().as_secs_f64();

        let rate = state.tokens as f64 / state.seconds.max(1e-9);
        let memory = memory_bytes(device);
        let every = |n: usize| n > 0 && state.step.is_multiple_of(n as u64);
        let held_out = if every(settings.eval_every) && state.step < steps {
            let (rows, pad) = (settings.batch_size, tokenizer.pad_id());
            let loss = held_out_loss(&model, &data.held_out, rows, pad, device)?;
            bar.suspend(|| println!("step {:>6}: held-out loss {loss:.4}", state.step));
            Some(loss)
        } else {
            None
        };
        metrics.push(Line {
            step: state.step,
            loss: Some(loss),
            held_out_loss: held_out,
            lr: Some(lr),
            tokens_per_second: Some(rate),
            active_layers: active.clone(),
            state_bytes: trainer.state_bytes(),
            memory_bytes: memory,
        })?;
        bar.set_message(format!(
            "loss {loss:.3}  {rate:.0} tokens/s  layers {active:?}  {}",
            memory.map_or(String::new(), show)
        ));
        bar.inc(1);

        let stopping = stop.load(Ordering::SeqCst) && state.step < steps;
        if stopping || (every(settings.checkpoint_every) && state.step < steps) {
            bar.set_message("saving a checkpoint");
            let path = checkpoints::save(&settings.out, &trainer.exact(&model), &trainer, &state)?;
            if stopping {
                bar.abandon();
                println!(
                    "stopped after step {}; saved {}.\nGo on with: finetune --resume --out {}",
                    state.step,
                    path.display(),
                    settings.out.display()
                );
                return Ok(Outcome::Stopped);
            }
        }
    }
    bar.finish();

    // 4. Write.
    let model = match settings.method {
        Method::Lora => model.materialize(),
        _ => trainer.exact(&model),
    };
    let folder = settings.out.join("model");
    let options = SaveOptions {
        source: Some(&checkpoint),
        ..SaveOptions::default()
    };
    let slow = Slow::bytes("writing the model");
    lisa_lm::save_with(&model, &folder, &options, move |done, all| {
        slow.set(done, all);
    })?;
    let after = evaluation("after", &evaluate, &model, device)?;
    for (step, loss) in [(0, state.before.loss), (steps, after.loss)] {
        metrics.lines.push(Line {
            step,
            loss: None,
            held_out_loss: Some(loss),
            lr: None,
            tokens_per_second: None,
            active_layers: Vec::new(),
            state_bytes: None,
            memory_bytes: None,
        });
    }
    metrics.lines.sort_by_key(|line| line.step);
    crate::plot::losses(&metrics.lines, layers, &settings.out.join("losses.svg"))?;
    crate::plot::memory(&metrics.lines, &settings.out.join("memory.svg"))?;
    let summary = json!({
        "settings": settings.to_flags(),
        "steps": steps,
        "seconds": state.seconds,
        "tokens": state.tokens,
        "tokens_per_second": state.tokens as f64 / state.seconds.max(1e-9),
        "peak_bytes": peak_bytes(),
        "optimizer_state_bytes": trainer.state_bytes(),
        "before": state.before,
        "after": after,
    });
    let text = format!("{summary:#}\n");
    write_atomically(&settings.out.join("summary.json"), text.as_bytes())?;
    println!(
        "held-out loss {:.4} -> {:.4} in {steps} steps, {:.0} s; the model is in {}",
        state.before.loss,
        after.loss,
        state.seconds,
        folder.display()
    );
    Ok(Outcome::Finished)
}

/// Where a step's first batch stands, and how its first row begins, so that it can be found.
fn origin(batches: &mut Batches, at: Position, tokenizer: &Tokenizer) -> Result<String> {
    let now = Batches::position(batches);
    batches.seek(at);
    let batch = batches.next_batch();
    batches.seek(now);
    let row = batch.rows().first().map_or(&[][..], |row| &row.tokens);
    let text = tokenizer.decode(row, true)?;
    let start: String = text.trim().chars().take(80).collect();
    let (index, epoch) = (at.index + 1, at.epoch + 1);
    Ok(format!(
        "batch {index} of epoch {epoch}, whose first row begins `{}`",
        start.replace('\n', " / ")
    ))
}

/// Whether a step's loss and gradients are numbers.
fn finite(step: u64, loss: f64, trainer: &Trainer, model: &CausalLm, work: &Work) -> Result<()> {
    if let Work::Gradients(grads) = work {
        trainer.check(model, grads)?;
    }
    anyhow::ensure!(loss.is_finite(), "the loss of step {step} is {loss}");
    Ok(())
}

/// The batch as the model takes it, with its targets.
#[must_use]
pub fn input_of(batch: &Batch, device: &Device) -> (Input, Tensor<2, Int>) {
    let tensors = batch.to_tensors(device);
    let targets = tensors.targets.clone();
    (Input::from(tensors), targets)
}

/// What is left of a step behind its forward pass.
pub(crate) enum Work {
    /// The update.
    Gradients(GradientsParams),
    /// The backward pass, in which each layer is updated.
    Pass(Box<Pass<CausalLm>>),
}

/// The forward pass of one batch, its loss, and how many tokens it saw.
fn forward(
    model: &CausalLm,
    batches: &mut Batches,
    settings: &Settings,
    device: &Device,
) -> (Work, f64, usize) {
    let batch = batches.next_batch();
    let pass = settings
        .recomputation()
        .forward(model, &batch.to_tensors(device));
    let loss = f64::from(pass.loss().into_scalar::<f32>());
    (Work::Pass(Box::new(pass)), loss, batch.tokens())
}

/// Gradients of one optimizer step, its mean loss, and how many tokens it saw. Each target counts
/// the same, in whichever batch of the step it is.
pub(crate) fn accumulate(
    model: &CausalLm,
    batches: &mut Batches,
    settings: &Settings,
    device: &Device,
) -> (Work, f64, usize) {
    let times = settings.accumulation;
    let group: Vec<Batch> = (0..times).map(|_| batches.next_batch()).collect();
    let targets: usize = group.iter().map(Batch::trained).sum();
    let mut accumulator = GradientsAccumulator::new();
    let (mut mean, mut tokens) = (0.0, 0);
    for batch in &group {
        let share = batch.trained() as f64 / targets.max(1) as f64;
        let (grads, value) = if settings.recompute > 0 {
            let plan = settings.recomputation();
            let pass = plan.forward(model, &batch.to_tensors(device));
            let value = pass.loss().into_scalar::<f32>();
            (pass.scale(share).backward(model), value)
        } else {
            let (input, labels) = input_of(batch, device);
            let loss = model.next_token_loss(&input, labels);
            let value = loss.clone().into_scalar::<f32>();
            let grads = (loss * share).backward();
            (GradientsParams::from_grads(grads, model), value)
        };
        mean += f64::from(value) * share;
        tokens += batch.tokens();
        if times == 1 {
            return (Work::Gradients(grads), mean, tokens);
        }
        accumulator.accumulate(model, grads);
    }
    (Work::Gradients(accumulator.grads()), mean, tokens)
}

pub(crate) fn read(
    settings: &Settings,
    tokenizer: &Tokenizer,
    checkpoint: &Checkpoint,
) -> Result<Data> {
    let longest = checkpoint.config().max_positions();
    let options = EncodeOptions {
        max_length: settings.max_length.min(longest),
        loss_on: if settings.loss_on_all {
            LossOn::All
        } else {
            LossOn::Answer
        },
    };
    let on_bad = if settings.skip_bad_lines {
        OnBadLine::Skip
    } else {
        OnBadLine::Stop
    };
    let train = read_examples(&settings.data, on_bad)?.examples;
    let (train, held_out) = if settings.validation.as_os_str().is_empty() {
        lisa_lm::split(train, settings.validation_split, settings.seed)?
    } else {
        (train, read_examples(&settings.validation, on_bad)?.examples)
    };
    if held_out.is_empty() {
        bail!("no example is held out; give --validation FILE or --validation-split above 0");
    }
    let encode = |examples: &[Example]| {
        let (bar, all) = (Slow::items("tokenizing"), examples.len() as u64);
        encode_examples_with(examples, tokenizer, options, |done| {
            bar.set(done as u64, all);
        })
    };
    let train = encode(&train)?;
    log::info!("training: {train}");
    let held = encode(&held_out)?;
    log::info!("held out: {held}");
    Ok(Data {
        in_words: format!("training: {train}\nheld out: {held}"),
        train: train.examples,
        held_out_examples: held.sources.iter().map(|&i| held_out[i].clone()).collect(),
        held_out: held.examples,
    })
}

fn evaluation(
    when: &str,
    evaluate: &Evaluate,
    model: &CausalLm,
    device: &Device,
) -> Result<Evaluation> {
    let bar = bar(evaluate.answers.min(evaluate.examples.len()) as u64, 0);
    bar.set_message(format!("evaluating {when} training"));
    let result = evaluate.run(model, device, || bar.inc(1))?;
    bar.finish_and_clear();
    println!("{when}: {result}");
    Ok(result)
}

pub(crate) fn stored_dtype(checkpoint: &Checkpoint) -> Option<Dtype> {
    match checkpoint.config().common().dtype? {
        FloatDType::BF16 => Some(Dtype::Bf16),
        FloatDType::F16 => Some(Dtype::F16),
        _ => Some(Dtype::F32),
    }
}

pub(crate) fn dtype_of(dtype: Dtype) -> FloatDType {
    match dtype {
        Dtype::F32 => FloatDType::F32,
        Dtype::Bf16 => FloatDType::BF16,
        Dtype::F16 => FloatDType::F16,
    }
}

fn device_name(device: &Device) -> String {
    format!("{device:?}").chars().take(40).collect()
}

/// Whether a run left anything in this folder.
fn holds_a_run(out: &Path) -> bool {
    ["metrics.jsonl", "checkpoints", "model", "summary.json"]
        .iter()
        .any(|name| out.join(name).exists())
}
