//! `finetune importance`: weight norms under LoRA and under full training, and the paper's Figure 1.
//!
//! Two short runs on the same model, data and seed. What comes out, `importance.json`, says how
//! probable `--policy weighted` and `--policy bernoulli` make each layer. Tests: at the foot, and
//! `tests/run.rs`.

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use lisa::importance::{Importance, NormTracker, WeightNorms};
use lisa_lm::{Checkpoint, Tokenizer};

use crate::data::{batches, read};
use crate::method::Trainer;
use crate::plot;
use crate::settings::{Dtype, Flags, Method, Settings};
use crate::step::{Work, accumulate};

/// What the norms of the LoRA run are taken of.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The merged weights, as in the paper
    Weights,
    /// What training added to them, in both runs
    Update,
}

/// What LoRA is held against.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// Training of everything, as in the paper
    Full,
    /// LISA, where full training does not fit
    Lisa,
}

/// The options of `finetune importance`.
#[derive(Args, Debug)]
pub struct Options {
    /// What the norms are taken of
    #[arg(
        long,
        value_enum,
        default_value = "weights",
        help_heading = "Importance"
    )]
    pub of: Of,
    /// What LoRA is held against
    #[arg(long, value_enum, default_value = "full", help_heading = "Importance")]
    pub against: Against,
    /// The highest learning rate of the LoRA run [default: three times --lr]
    #[arg(long, value_name = "RATE", help_heading = "Importance")]
    pub lora_lr: Option<f64>,
    /// Both runs are made with these; --steps is 200 and --out runs/importance where they are not given
    #[command(flatten)]
    pub flags: Flags,
}

/// Runs both probes; writes `importance.json` and `norms.svg` and prints what they show.
pub fn importance(options: &Options, device: &Device) -> Result<()> {
    let mut flags = options.flags.clone();
    flags.steps = flags.steps.or(Some(200));
    flags.out = flags.out.or_else(|| Some("runs/importance".into()));
    let model = crate::hub::folder(&flags.clone().resolve(None)?.model)?;
    let checkpoint = Checkpoint::open(&model)?;
    let settings = flags.resolve(Dtype::stored(&checkpoint))?;
    ensure!(
        settings.steps > 0,
        "--steps is 0; the norms are means over a run, give at least 1"
    );
    let out = &settings.out;
    std::fs::create_dir_all(out)
        .with_context(|| format!("cannot make the folder `{}`", out.display()))?;
    let lora = Settings {
        method: Method::Lora,
        lr: options.lora_lr.unwrap_or(3.0 * settings.lr),
        ..settings.clone()
    };
    let other = Settings {
        method: match options.against {
            Against::Full => Method::Full,
            Against::Lisa => Method::Lisa,
        },
        ..settings.clone()
    };
    let tokenizer = Tokenizer::from_dir(&model)?;
    let probe = |settings: &Settings| {
        let name = format!("{:?}", settings.method).to_lowercase();
        probe(settings, &checkpoint, &tokenizer, options.of, device)
            .with_context(|| format!("in the {name} run"))
    };
    let importance = Importance {
        lora: probe(&lora)?,
        full: probe(&other)?,
    };
    let path = out.join("importance.json");
    importance.save(&path)?;
    plot::norms(&importance, &out.join("norms.svg"))?;
    print!("{}", describe(&importance)?);
    println!(
        "{} and norms.svg are written; use them by --policy weighted --importance {}",
        path.display(),
        path.display()
    );
    Ok(())
}

/// One short run, and the mean norms over its steps.
fn probe(
    settings: &Settings,
    checkpoint: &Checkpoint,
    tokenizer: &Tokenizer,
    of: Of,
    device: &Device,
) -> Result<WeightNorms> {
    let data = read(settings, tokenizer, checkpoint)?;
    device.seed(settings.seed);
    let training = device.clone().autodiff();
    let base = checkpoint.load(&training, Some(settings.dtype.into()))?;
    let mut tracker = NormTracker::new(&base, &[])?;
    let (mut trainer, mut model) = Trainer::new(settings, base.clone())?;
    let mut batches = batches(settings, tokenizer, data.train)?;
    let bar = crate::progress::bar(settings.steps as u64, 0);
    for step in 0..settings.steps as u64 {
        let lr = settings.learning_rate(step, settings.steps as u64);
        let (work, loss, _) = accumulate(&model, &mut batches, settings, &training);
        ensure!(
            loss.is_finite(),
            "the loss of step {} is {loss}; lower the learning rate",
            step + 1
        );
        if let Work::Gradients(grads) = work {
            model = trainer.step(lr, model, grads);
        }
        let merged = match settings.method {
            Method::Lora => model.clone().materialize(),
            _ => trainer.exact(&model),
        };
        match of {
            Of::Weights => tracker.observe(&merged)?,
            Of::Update => tracker.observe_update(&merged, &base)?,
        }
        bar.set_message(format!("loss {loss:.3}"));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(tracker.norms()?)
}

/// The norms side by side, and whether LoRA leaves the layers behind.
fn describe(importance: &Importance) -> Result<String> {
    let mut text = format!(
        "mean L2 norms over {} steps\n  {:<44}{:>12}{:>12}{:>8}\n",
        importance.full.observations, "", "LoRA", "other", "ratio"
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
        "p(l) of the layers, w~ / w at most 1, lies between {least:.4} and {most:.4}\n"
    ));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(text.contains("between 0.5000 and 1.0000"), "{text}");
    }
}
