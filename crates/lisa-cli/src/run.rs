//! The job from top to bottom: read, split, evaluate, train, evaluate, write.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use burn::module::Module;
use burn::tensor::{Device, FloatDType};
use lisa_lm::{CausalLm, Checkpoint, SaveOptions, Tokenizer, write_atomically};
use serde_json::json;

use crate::checkpoints::{self, State};
use crate::data;
use crate::evaluate::{Evaluate, Evaluation, held_out_loss};
use crate::method::Trainer;
use crate::metrics::{Line, Metrics, memory_bytes, peak_bytes, show};
use crate::progress::{Slow, bar};
use crate::settings::{Dtype, Flags, Method};
use crate::step::{Work, accumulate, finite, forward, origin};

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
    let settings = flags.resolve(Dtype::stored(&checkpoint))?;
    ensure!(
        device.supports_dtype(FloatDType::from(settings.dtype)),
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
    let data = data::read(&settings, &tokenizer, &checkpoint)?;
    device.seed(settings.seed);
    let training_device = device.clone().autodiff();
    let slow = Slow::bytes("reading the weights");
    let dtype = Some(FloatDType::from(settings.dtype));
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
    let mut batches = data::batches(&settings, &tokenizer, data.train.clone())?;
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

fn device_name(device: &Device) -> String {
    format!("{device:?}").chars().take(40).collect()
}

/// Whether a run left anything in this folder.
fn holds_a_run(out: &Path) -> bool {
    ["metrics.jsonl", "checkpoints", "model", "summary.json"]
        .iter()
        .any(|name| out.join(name).exists())
}
