//! [`planned`]: estimates the memory of a run before it starts.

use anyhow::Result;
use burn::tensor::Device;
use lisa::memory::{MemoryPlan, Workload};
use lisa_lm::CausalLm;

use super::method::lisa_config;
use crate::settings::{Method, Settings};
use crate::terminal::text::size;

/// The estimated memory of a run, as text. `longest` is the number of tokens in its longest row.
pub fn planned(
    settings: &Settings,
    model: &CausalLm,
    device: &Device,
    longest: usize,
) -> Result<String> {
    let run = Workload {
        sequence: longest,
        ..workload(settings, device)
    };
    let plan = if settings.method.method == Method::Lora {
        MemoryPlan::lora(model, settings.method.lora_rank, true, &run)?
    } else {
        MemoryPlan::lisa(model, &lisa_config(settings, model)?, &run)?
    };
    let recomputed = settings.memory.recompute > 0;
    let activations = if recomputed { 0 } else { plan.activations };
    let mut text = format!(
        "planned memory for {} rows of {longest} tokens:\n",
        run.batch
    );
    for (name, bytes) in [
        ("weights", plan.weights),
        ("gradients", plan.gradients),
        ("optimizer state", plan.optimizer_state),
        ("master weights", plan.master_weights),
        ("activations", activations),
        ("host memory", plan.host),
    ] {
        text.push_str(&format!("  {name:<16}{:>10}\n", size(bytes)));
    }
    let (low, high) = (size(plan.peak_recomputed), size(plan.peak));
    text.push_str(&match (recomputed, settings.memory.update_in_backward) {
        (false, _) => format!("  {:<16}{high:>10}\n", "peak"),
        (true, true) => format!("  {:<16}{low:>10}\n", "peak"),
        (true, false) => format!(
            "  {:<16}{low:>10} with --update-in-backward, at most {high} without\n",
            "peak"
        ),
    });
    Ok(text)
}

/// The batch, sequence length and recomputation of the memory estimate.
pub(crate) fn workload(settings: &Settings, device: &Device) -> Workload {
    Workload {
        batch: settings.training.batch_size,
        sequence: settings.input.max_seq_length,
        dtype: settings.memory.dtype.into(),
        flex: device.memory_pool_usage().is_none(),
        lowest_active: 0,
        recompute: settings.memory.recomputation(),
    }
}
