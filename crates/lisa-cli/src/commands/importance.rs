//! `lisa importance`: how important each layer is, by the gradients of a few batches, by its change in a run
//! with LoRA, or by weight norms under LoRA and under full training, as in the paper's Figure 1.
//!
//! For the norms, the command makes two short runs with the same model, data and seed.
//! `importance.json` then gives `--policy weighted` and `--policy bernoulli` the probability of each
//! layer. Tests: at the end, and `tests/run/`.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use lisa::importance::{Importance, NormTracker, Scores, WeightNorms};
use lisa_lm::Checkpoint;

use super::norms_plot::Names;
use super::probe::{After, Source, probe};
use super::{norms_plot, scores, scores_plot};
use crate::model_tokenizer::model_tokenizer;
use crate::output_folder::{self, OTHER_DISK};
use crate::settings::{Dtype, Flags, Method, Settings};
use crate::terminal::output::{say, warn};
use crate::terminal::text::{counted, shell_word};
use crate::train::prepare::settle::{Shapes, Unread};
use crate::user_error::require;

mod options;

pub use options::{Against, By, Of, Options};

/// The most bytes of importance.json and its picture.
const BYTES: u64 = 1 << 20;

/// Measures, writes `importance.json` and a picture, and prints a table.
pub fn importance(options: &Options, device: &Device) -> Result<()> {
    let flags = options.flags()?;
    let out = flags.out()?;
    let is_ours = out.join("importance.json").is_file();
    require!(
        options.overwrite || !is_ours,
        "replace it with --overwrite, or give another folder with --out",
        "`{}` has an importance.json already",
        out.display()
    );
    output_folder::require_ours(&out, is_ours, "`lisa importance`")?;
    let _made = output_folder::make(&out)?;
    output_folder::require_room(&out, BYTES, OTHER_DISK)?;
    let source = source(flags, options.method(), &out, device)?;
    let weights = measured(options, &source, &out)?;
    let (text, is_uniform) = scores::from_uniform(&weights);
    say(text)?;
    if is_uniform {
        warn("sampling by this importance is nearly uniform: `--policy uniform` does the same");
    }
    let path = out.join("importance.json");
    say(format_args!(
        "wrote {} and a picture of it; use it with --policy weighted --importance {}",
        path.display(),
        shell_word(&path)
    ))?;
    Ok(())
}

/// Opens the model, and reads the data.
fn source<'a>(
    mut flags: Flags,
    method: Method,
    out: &Path,
    device: &'a Device,
) -> Result<Source<'a>> {
    let model = flags.clone().resolve(None)?.input.folder()?;
    let checkpoint = Checkpoint::open(&model)?;
    flags.method.method = Some(method);
    let shapes = Shapes::of(&checkpoint, device)?;
    let settings = shapes.settings(flags.clone())?;
    // The settings of the LoRA run have an effect with both.
    let mut of_other = flags.clone();
    let method = &mut of_other.method;
    (method.lora_rank, method.lora_alpha, method.lora_dropout) = (None, None, None);
    (method.rslora, method.lora_target_modules) = (None, None);
    of_other.check_effect(&settings)?;
    require!(
        settings.training.steps > 0,
        "give at least 1: the values are means over the steps",
        "--steps is 0"
    );
    if let Some(warning) = settings.input.half_bundled() {
        warn(warning);
    }
    let adapter = &settings.method.adapter;
    let tokenizer = model_tokenizer(&model, adapter, &settings.input.chat_template)?;
    let unread = Unread {
        flags,
        settings: &settings,
        checkpoint: &checkpoint,
        tokenizer,
        folder: out,
    };
    let settled = shapes.settle(unread, device)?;
    Ok(Source {
        settings: settled.settings,
        checkpoint,
        data: settled.data,
        tokenizer: settled.tokenizer,
        device,
    })
}

/// Measures the importance of each layer, writes the files and prints the table. Returns the weights of
/// the layers.
fn measured(options: &Options, source: &Source<'_>, out: &Path) -> Result<Vec<f64>> {
    let path = out.join("importance.json");
    if options.by == By::Ratio {
        let importance = ratio(options, source)?;
        importance.save(&path)?;
        let names = options.names();
        norms_plot::norms(&importance, names, &out.join("norms.svg"))?;
        say(describe(&importance, names)?.trim_end())?;
        return Ok(importance.probabilities()?);
    }
    let (scores, observations) = scored(options.by, source)?;
    scores.save(&path)?;
    scores_plot::scores(&scores, &out.join("scores.svg"))?;
    say(scores::table(&scores, observations)?.trim_end())?;
    Ok(scores.weights()?)
}

/// The scores by another signal than the ratio, and the words for one and several of its observations.
fn scored(by: By, source: &Source<'_>) -> Result<(Scores, [&'static str; 2])> {
    if by == By::LoraUpdate {
        return Ok((scores::lora_update(source)?, ["step", "steps"]));
    }
    let tracker = scores::gradients(source, by == By::LossDecrease)?;
    let scores = match tracker.loss_decreases() {
        Some(decreases) => decreases,
        None if by == By::SquaredGradient => tracker.squares(),
        None => tracker.root_mean_squares(),
    };
    Ok((scores, ["batch", "batches"]))
}

/// Makes two short runs, one of which is LoRA.
fn ratio(options: &Options, source: &Source<'_>) -> Result<Importance> {
    let other = &source.settings;
    if options.of == Some(Of::Update) && other.memory.dtype != Dtype::F32 {
        let dtype = other.memory.dtype;
        warn(format_args!(
            "the update of the run with --method {} is measured on its {dtype} weights, without what they \
             round away; --dtype f32 measures all of it",
            other.method.method
        ));
    }
    let mut lora = other.clone();
    lora.method.method = Method::Lora;
    lora.training.lr = options.lora_lr.unwrap_or(3.0 * other.training.lr);
    let norms = |settings: &Settings| -> Result<WeightNorms> {
        let model = source.model()?;
        let mut tracker = NormTracker::new(&model, &[])?;
        let base = (options.of == Some(Of::Update)).then(|| model.clone());
        probe(
            source,
            settings,
            model,
            After::EachStep,
            |merged| match &base {
                Some(base) => Ok(tracker.observe_update(merged, base)?),
                None => Ok(tracker.observe(merged)?),
            },
        )?;
        Ok(tracker.norms()?)
    };
    Ok(Importance {
        lora: norms(&lora)?,
        full: norms(other)?,
    })
}

/// The norms of both runs and their ratios.
fn describe(importance: &Importance, names: Names) -> Result<String> {
    let mut text = format!(
        "mean L2 norms of the {} over {}\n  {:<44}{:>12}{:>12}{:>8}\n",
        names.measured,
        counted(importance.full.observations as usize, "step"),
        "",
        "LoRA",
        names.other,
        "ratio"
    );
    let (lora, other) = (&importance.lora, &importance.full);
    let rows = |norms: &WeightNorms| {
        let all = norms.outside.iter().chain(&norms.layers);
        all.cloned().collect::<Vec<_>>()
    };
    for ((path, lora), (_, other)) in rows(lora).iter().zip(&rows(other)) {
        text.push_str(&format!(
            "  {path:<44}{lora:>12.4}{other:>12.4}{:>8.3}\n",
            lora / other
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
mod tests;
