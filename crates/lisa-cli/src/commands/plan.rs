//! `lisa plan`: the memory that each method needs, from `config.json` only.

use std::path::PathBuf;

use anyhow::{Context, Result};
use burn::module::ParamGroup;
use burn::tensor::Device;
use clap::Args;
use lisa::memory::{MemoryPlan, Workload};
use lisa::recompute::Recompute;
use lisa::{FrozenWeights, LisaConfig};
use lisa_lm::ModelConfig;

use crate::bundled;
use crate::settings::{
    Dtype, Flags, InputFlags, MemoryFlags, MethodFlags, Settings, TrainingFlags,
};
use crate::terminal::output::say;
use crate::train::planned::workload;

/// Options of `lisa plan`.
#[derive(Args, Debug)]
pub struct Options {
    /// Memory of the device in GB; the table then says which methods fit
    #[arg(long, value_name = "GB")]
    budget: Option<f64>,
    /// Folder of a model, read for config.json [default: bundled model]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Dtype of the weights [default: f32]
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Rows of a batch [default: 8]
    #[arg(long, value_name = "ROWS")]
    batch_size: Option<usize>,
    /// Tokens of a row [default: 256]
    #[arg(long, value_name = "TOKENS")]
    max_seq_length: Option<usize>,
    /// Number of layers that LISA trains in a period [default: 2]
    #[arg(long, value_name = "N")]
    active_layers: Option<usize>,
    /// Rank of the adapters of LoRA [default: 8]
    #[arg(long, value_name = "R")]
    lora_rank: Option<usize>,
    /// Without f32 master weights for bf16 and f16
    #[arg(long)]
    no_master_weights: bool,
    /// TOML file of settings, such as that of a run
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
}

impl Options {
    /// The settings of the plan.
    fn settings(&self) -> Result<Settings> {
        let file = match &self.config {
            Some(path) => Flags::from_file(path)?,
            None => Flags::default(),
        };
        let flags = Flags {
            input: InputFlags {
                model: self.model.clone(),
                max_seq_length: self.max_seq_length,
                ..InputFlags::default()
            },
            method: MethodFlags {
                active_layers: self.active_layers,
                lora_rank: self.lora_rank,
                ..MethodFlags::default()
            },
            memory: MemoryFlags {
                dtype: self.dtype,
                no_master_weights: self.no_master_weights.then_some(true),
                ..MemoryFlags::default()
            },
            training: TrainingFlags {
                batch_size: self.batch_size,
                ..TrainingFlags::default()
            },
            ..Flags::default()
        };
        flags.or(file).resolve(None)
    }
}

/// Prints the table.
pub fn plan(options: &Options, device: &Device) -> Result<()> {
    let table = table(&options.settings()?, options.budget, device)?;
    Ok(say(table.trim_end())?)
}

/// One line per method with its memory in GB. With `budget`, in GB, it says which methods fit.
fn table(settings: &Settings, budget: Option<f64>, device: &Device) -> Result<String> {
    let config = if settings.input.model.as_os_str().is_empty() {
        bundled::CONFIG.to_owned()
    } else {
        let path = settings.input.folder()?.join("config.json");
        lisa_lm::files::read_small_text(&path)
            .with_context(|| format!("cannot read `{}`", path.display()))?
    };
    // Parameters are initialized lazily: nothing is allocated.
    let model = ModelConfig::from_json(&config)?.init(&device.clone().autodiff())?;
    let run = workload(settings, device);
    let lisa = LisaConfig::new()
        .with_active_layers(settings.method.active_layers.min(model.num_layers()))
        .with_master_weights(!settings.memory.no_master_weights);
    let outer = vec!["embed_tokens", "embed_positions", "lm_head"];
    let frozen = lisa
        .clone()
        .with_frozen(Some(ParamGroup::from_any_predicates(outer)));
    let full = lisa.clone().with_active_layers(model.num_layers());
    let quantized = |kind| lisa.clone().with_frozen_weights(kind);
    let of = |config: &LisaConfig| MemoryPlan::lisa(&model, config, &run);
    let every = model.num_layers().isqrt().max(1);
    let sublayers = Workload {
        recompute: Recompute::new().with_every(every).with_sublayers(),
        ..run
    };
    let in_sublayers = format!("  the same, --recompute {every} --sublayers");
    let lora = MemoryPlan::lora(&model, settings.method.lora_rank, true, &run)?;
    // The last value: activations are recomputed and layers are updated in the backward pass.
    let rows = [
        ("--method full", of(&full)?, false),
        ("--method lora", lora, false),
        ("--method lisa", of(&lisa)?, false),
        ("  --recompute --update-in-backward", of(&lisa)?, true),
        (
            "  the same, --freeze embed_tokens,lm_head",
            of(&frozen)?,
            true,
        ),
        (
            &in_sublayers,
            MemoryPlan::lisa(&model, &frozen, &sublayers)?,
            true,
        ),
        (
            "  --recompute --update-in-backward --quantize int8",
            of(&quantized(FrozenWeights::Int8))?,
            true,
        ),
        (
            "  --recompute --update-in-backward --quantize int4",
            of(&quantized(FrozenWeights::Int4))?,
            true,
        ),
    ];
    let mut text = format!(
        "{:.1} M parameters in {} layers, {}, {} rows of {} tokens; memory in GB\n\
         {:<52}{:>9}{:>9}{:>9}{:>12}{:>9}{:>9}\n",
        model.num_parameters() as f64 / 1e6,
        model.num_layers(),
        settings.memory.dtype,
        run.batch,
        run.sequence,
        "",
        "weights",
        "state",
        "masters",
        "activations",
        "host",
        "peak"
    );
    for (name, plan, recomputed) in rows {
        let (activations, peak) = if recomputed {
            (0, plan.peak_recomputed)
        } else {
            (plan.activations, plan.peak)
        };
        let gb = |bytes: u64| bytes as f64 / 1e9;
        let fits = match budget {
            Some(budget) if gb(peak) <= budget => "  fits",
            Some(_) => "  does not fit",
            None => "",
        };
        text.push_str(&format!(
            "{name:<52}{:>9.3}{:>9.3}{:>9.3}{:>12.3}{:>9.3}{:>9.3}{fits}\n",
            gb(plan.weights),
            gb(plan.optimizer_state),
            gb(plan.master_weights),
            gb(activations),
            gb(plan.host),
            gb(peak)
        ));
    }
    Ok(text)
}
