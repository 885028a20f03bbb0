//! What a run would need: `--plan`, each method from the configuration of the model alone, and
//! `--dry-run`, one run of a model that is there.

use anyhow::{Context, Result};
use burn::module::ParamGroup;
use burn::tensor::Device;
use lisa::memory::{MemoryPlan, Workload};
use lisa::recompute::Recompute;
use lisa::{FrozenWeights, LisaConfig};
use lisa_lm::{CausalLm, ModelConfig};

use crate::method::lisa_config;
use crate::metrics::show;
use crate::settings::{Method, Settings};

/// What the run that is asked for needs on its device, in words; no row has more than `longest`
/// tokens.
pub fn of(
    settings: &Settings,
    model: &CausalLm,
    device: &Device,
    longest: usize,
) -> Result<String> {
    let run = Workload {
        sequence: longest,
        ..planned(settings, device)
    };
    let plan = if settings.method == Method::Lora {
        MemoryPlan::lora(model, settings.lora_rank, true, &run)?
    } else {
        MemoryPlan::lisa(model, &lisa_config(settings, model)?, &run)?
    };
    let recomputed = settings.recompute > 0;
    let activations = if recomputed { 0 } else { plan.activations };
    let mut text = format!(
        "memory, planned for {} rows of {longest} tokens:\n",
        run.batch
    );
    for (name, bytes) in [
        ("weights", plan.weights),
        ("gradients", plan.gradients),
        ("moments", plan.optimizer_state),
        ("master weights", plan.master_weights),
        ("activations", activations),
        ("on the host", plan.host),
    ] {
        text.push_str(&format!("  {name:<16}{:>10}\n", show(bytes)));
    }
    let (low, high) = (show(plan.peak_recomputed), show(plan.peak));
    text.push_str(&match (recomputed, settings.update_in_backward) {
        (false, _) => format!("  {:<16}{high:>10}\n", "peak"),
        (true, true) => format!("  {:<16}{low:>10}\n", "peak"),
        (true, false) => format!(
            "  {:<16}{low:>10} with --update-in-backward, which this run does without, to {high}\n",
            "peak"
        ),
    });
    Ok(text)
}

/// The table; `budget` in GB says which fit.
pub fn plan(settings: &Settings, budget: Option<f64>, device: &Device) -> Result<String> {
    let path = settings.model.join("config.json");
    let text = lisa_lm::read_small_text(&path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    // Parameters stay lazy: nothing is allocated.
    let model = ModelConfig::from_json(&text)?.init(&device.clone().autodiff())?;
    let run = planned(settings, device);
    let lisa = LisaConfig::new()
        .with_active_layers(settings.active_layers.min(model.num_layers()))
        .with_master_weights(!settings.no_master_weights);
    let outer = vec!["embed_tokens", "lm_head", "wte", "wpe"];
    let frozen = Some(ParamGroup::from_any_predicates(outer));
    let full = lisa.clone().with_active_layers(model.num_layers());
    let quantized = |kind| lisa.clone().with_frozen_weights(kind);
    let of = |config: &LisaConfig| MemoryPlan::lisa(&model, config, &run);
    let held = lisa.clone().with_frozen(frozen);
    let every = model.num_layers().isqrt().max(1);
    let pieces = Workload {
        recompute: Recompute::new().with_every(every).with_sublayers(),
        ..run
    };
    let in_pieces = format!("  the same, --recompute {every} --pieces");
    let lora = MemoryPlan::lora(&model, settings.lora_rank, true, &run)?;
    let rows = [
        ("--method full", of(&full)?, false),
        ("--method lora", lora, false),
        ("--method lisa", of(&lisa)?, false),
        ("  --recompute --update-in-backward", of(&lisa)?, true),
        (
            "  the same, --freeze embed_tokens,lm_head",
            of(&held)?,
            true,
        ),
        (&in_pieces, MemoryPlan::lisa(&model, &held, &pieces)?, true),
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
        "{:.1} M parameters in {} layers, {:?}, {} rows of {} tokens; GB\n{:<52}{:>9}{:>9}{:>9}{:>12}{:>9}{:>9}\n",
        model.num_parameters() as f64 / 1e6,
        model.num_layers(),
        settings.dtype,
        run.batch,
        run.sequence,
        "",
        "weights",
        "moments",
        "masters",
        "activations",
        "host",
        "peak"
    );
    for (name, plan, recomputed) in rows {
        let peak = if recomputed {
            plan.peak_recomputed
        } else {
            plan.peak
        };
        let gb = |bytes: u64| bytes as f64 / 1e9;
        let fits = match budget {
            Some(budget) if gb(peak) <= budget => "  fits",
            Some(_) => "  does not fit",
            None => "",
        };
        let kept = if recomputed { 0 } else { plan.activations };
        text.push_str(&format!(
            "{name:<52}{:>9.3}{:>9.3}{:>9.3}{:>12.3}{:>9.3}{:>9.3}{fits}\n",
            gb(plan.weights),
            gb(plan.optimizer_state),
            gb(plan.master_weights),
            gb(kept),
            gb(plan.host),
            gb(peak)
        ));
    }
    Ok(text)
}

/// The shape of a step.
fn planned(settings: &Settings, device: &Device) -> Workload {
    Workload {
        batch: settings.batch_size,
        sequence: settings.max_length,
        dtype: settings.dtype.into(),
        flex: device.memory_pool_usage().is_none(),
        lowest_active: 0,
        recompute: settings.recomputation(),
    }
}
