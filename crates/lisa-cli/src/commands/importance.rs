//! `lisa importance`: weight norms under LoRA and under full training, as in the paper's Figure 1.
//!
//! The command makes two short runs with the same model, data and seed. `importance.json` then
//! gives `--policy weighted` and `--policy bernoulli` the probability of each layer. Tests: at the
//! end, and `tests/run/`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use lisa::importance::{Importance, NormTracker, WeightNorms};
use lisa_lm::Checkpoint;
use lisa_lm::text::Batches;

use super::norms_plot;
use crate::model_tokenizer::model_tokenizer;
use crate::output_folder;
use crate::settings::{Flags, Method, Settings};
use crate::terminal::output::say;
use crate::terminal::progress::bar;
use crate::terminal::text::counted;
use crate::train::clock::Clock;
use crate::train::data;
use crate::train::method::Trainer;
use crate::train::settle::Shapes;
use crate::train::step::{Work, accumulate};
use crate::user_error::require;

/// The most bytes of importance.json and norms.svg.
const BYTES: u64 = 1 << 20;

/// Which norms are measured.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The weights, with merged adapters, as in the paper
    Weights,
    /// The change of the weights since the start of training
    Update,
}

/// What LoRA is compared with.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// Full training, as in the paper
    Full,
    /// LISA, for models whose full training needs too much memory
    Lisa,
}

/// Settings without effect here: the methods are given, adapters are new and not saved, the gradients of all layers are needed at
/// once, and nothing is skipped, evaluated or saved on the way.
const WITHOUT_EFFECT: [&str; 17] = [
    "method",
    "adapter",
    "no-merge",
    "update-in-backward",
    "skip-bad-steps",
    "epochs",
    "save-every",
    "keep",
    "log-every",
    "eval-every",
    "eval-rows",
    "eval-first",
    "final-eval-all",
    "no-eval",
    "metric",
    "eval-examples",
    "max-new-tokens",
];

/// Settings of `--against lisa`.
const OF_LISA: [&str; 11] = [
    "active-layers",
    "period",
    "policy",
    "moments",
    "importance",
    "probabilities",
    "order",
    "fixed-layers",
    "share",
    "split",
    "unbiased",
];

/// Options of `lisa importance`.
#[derive(Args, Debug)]
#[command(
    mut_args(|arg| {
        let is_without_effect = arg.get_long().is_some_and(|name| WITHOUT_EFFECT.contains(&name));
        if is_without_effect { arg.hide(true) } else { arg }
    }),
    mut_arg("steps", |arg| arg.help("Optimizer steps of each run [default: 200]")),
    mut_arg("out", |arg| arg.help("Folder of importance.json and norms.svg [default: runs/importance]"))
)]
pub struct Options {
    /// Which norms are measured
    #[arg(long, value_enum, default_value = "weights")]
    pub of: Of,
    /// What LoRA is compared with
    #[arg(long, value_enum, default_value = "full")]
    pub against: Against,
    /// Highest learning rate of the LoRA run [default: three times --lr]
    #[arg(long, value_name = "RATE")]
    pub lora_lr: Option<f64>,
    /// Replace the file of an earlier command
    #[arg(long)]
    pub overwrite: bool,
    /// TOML file of settings (keys: long flag names); flags override it
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// The settings of both runs.
    #[command(flatten)]
    pub flags: Flags,
}

/// Makes both runs, writes `importance.json` and `norms.svg`, and prints the norms.
pub fn importance(options: &Options, device: &Device) -> Result<()> {
    let mut flags = options.flags.clone();
    flags.refuse_flags(
        &WITHOUT_EFFECT,
        "`lisa importance`",
        "use it with `lisa train`",
    )?;
    if options.against == Against::Full {
        flags.refuse_flags(&OF_LISA, "--against full", "use --against lisa")?;
    }
    if let Some(lr) = options.lora_lr {
        require!(
            lr > 0.0 && lr.is_finite(),
            "give a learning rate above 0",
            "--lora-lr is {lr}"
        );
    }
    if let Some(path) = &options.config {
        flags = flags.or(Flags::from_file(path)?);
    }
    flags.training.steps = flags.training.steps.or(Some(200));
    flags.output.out = flags.output.out.or_else(|| Some("runs/importance".into()));
    let out = flags.out()?;
    let is_ours = out.join("importance.json").is_file();
    require!(
        options.overwrite || !is_ours,
        "replace it with --overwrite, or give another folder with --out",
        "`{}` has an importance.json already",
        out.display()
    );
    output_folder::require_ours(&out, is_ours, "`lisa importance`")?;
    output_folder::make(&out)?;
    output_folder::require_room(&out, BYTES)?;
    let model = flags.clone().resolve(None)?.input.folder()?;
    let checkpoint = Checkpoint::open(&model)?;
    let method = match options.against {
        Against::Full => Method::Full,
        Against::Lisa => Method::Lisa,
    };
    flags.method.method = Some(method);
    let shapes = Shapes::of(&checkpoint, device)?;
    let settings = shapes.settings(flags.clone())?;
    // Those of the LoRA run have an effect with both.
    let mut of_other = flags.clone();
    let method = &mut of_other.method;
    (method.lora_rank, method.lora_alpha, method.lora_dropout) = (None, None, None);
    (method.rslora, method.lora_target_modules) = (None, None);
    of_other.check_effect(&settings)?;
    require!(
        settings.training.steps > 0,
        "give at least 1: the norms are means over the steps",
        "--steps is 0"
    );
    let out = &settings.output.out;
    let tokenizer = model_tokenizer(&model, &settings.input.chat_template)?;
    let settled = shapes.settle(flags, &settings, tokenizer, &checkpoint, device)?;
    let (other, data, tokenizer) = (settled.settings, settled.data, settled.tokenizer);
    let mut lora = other.clone();
    lora.method.method = Method::Lora;
    lora.training.lr = options.lora_lr.unwrap_or(3.0 * other.training.lr);
    let probe = |settings: &Settings| {
        let batches = data::batches(settings, &tokenizer, data.train.clone(), data.vocab_size)?;
        probe(
            settings,
            &checkpoint,
            batches,
            data.vocab_size,
            options.of,
            device,
        )
        .with_context(|| format!("the run with --method {} failed", settings.method.method))
    };
    let importance = Importance {
        lora: probe(&lora)?,
        full: probe(&other)?,
    };
    let path = out.join("importance.json");
    importance.save(&path)?;
    norms_plot::norms(&importance, &out.join("norms.svg"))?;
    say(describe(&importance)?.trim_end())?;
    say(format_args!(
        "wrote {path} and norms.svg; use the norms with --policy weighted --importance {path}",
        path = path.display()
    ))?;
    Ok(())
}

/// Makes one short run, and returns the mean norms over its steps.
fn probe(
    settings: &Settings,
    checkpoint: &Checkpoint,
    mut batches: Batches,
    vocab_size: usize,
    of: Of,
    device: &Device,
) -> Result<WeightNorms> {
    let training = device.clone().autodiff();
    let base = checkpoint.load(&training, Some(settings.memory.dtype.into()))?;
    let base = base.resize_embeddings(vocab_size)?;
    let mut tracker = NormTracker::new(&base, &[])?;
    let (mut trainer, mut model) = Trainer::new(settings, base.clone())?;
    let progress = bar(settings.training.steps as u64, 0);
    for step in 0..settings.training.steps as u64 {
        let lr = settings
            .training
            .learning_rate(step, settings.training.steps as u64);
        let clock = &mut Clock::default();
        let (work, loss, _) =
            accumulate(&model, &mut batches, settings, &training, clock, &|_| false)?;
        require!(
            loss.is_finite(),
            "give a lower --lr",
            "the loss of step {} is {loss}",
            step + 1
        );
        if let Work::Gradients(grads) = work {
            model = trainer.step(lr, model, grads)?;
        }
        let merged = match settings.method.method {
            Method::Lora => model.clone().merge_lora(),
            _ => trainer.exact(&model),
        };
        match of {
            Of::Weights => tracker.observe(&merged)?,
            Of::Update => tracker.observe_update(&merged, &base)?,
        }
        progress.set_message(format!("loss {loss:.3}"));
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(tracker.norms()?)
}

/// The norms of both runs and their ratios.
fn describe(importance: &Importance) -> Result<String> {
    let mut text = format!(
        "mean L2 norms over {}\n  {:<44}{:>12}{:>12}{:>8}\n",
        counted(importance.full.observations as usize, "step"),
        "",
        "LoRA",
        "other",
        "ratio"
    );
    let (lora, full) = (&importance.lora, &importance.full);
    let rows = |norms: &WeightNorms| {
        let all = norms.outside.iter().chain(&norms.layers);
        all.cloned().collect::<Vec<_>>()
    };
    for ((path, lora), (_, full)) in rows(lora).iter().zip(&rows(full)) {
        text.push_str(&format!(
            "  {path:<44}{lora:>12.4}{full:>12.4}{:>8.3}\n",
            lora / full
        ));
    }
    let p = importance.probabilities()?;
    let (least, most) = p
        .iter()
        .fold((f64::INFINITY, 0.0f64), |(a, b), &p| (a.min(p), b.max(p)));
    text.push_str(&format!(
        "probabilities of the layers, the ratio but at most 1: from {least:.4} to {most:.4}\n"
    ));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_on_the_disk_is_checked_before_the_runs() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let line = ["importance", "--steps", "1", "--out", out.to_str().unwrap()];
        let line = <Line as clap::Parser>::try_parse_from(line).unwrap();
        output_folder::FREE.set(Some(1000));
        let error = importance(&line.options, &Device::flex());
        output_folder::FREE.set(None);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("there is no room"), "{error}");
    }

    #[test]
    fn the_table_has_every_norm_and_the_range_of_p() {
        let norms = |scale: f64| WeightNorms {
            observations: 7,
            layers: vec![("layers.0".into(), 2.0), ("layers.1".into(), 4.0 * scale)],
            outside: vec![("embed".into(), 9.0)],
        };
        let importance = Importance {
            lora: norms(0.5),
            full: norms(1.0),
        };
        let text = describe(&importance).unwrap();
        assert!(text.contains("over 7 steps"), "{text}");
        assert!(text.contains("embed"), "{text}");
        assert!(text.contains("from 0.5000 to 1.0000"), "{text}");
    }
}
