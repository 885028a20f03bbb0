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
    let plan = plan(settings, model, device, longest)?;
    let recomputed = settings.memory.recompute > 0;
    let activations = if recomputed { 0 } else { plan.activations };
    let mut text = format!(
        "planned memory for {} rows of {longest} tokens:\n",
        settings.training.batch_size
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

/// The planned peak of memory in bytes.
pub(crate) fn peak(
    settings: &Settings,
    model: &CausalLm,
    device: &Device,
    longest: usize,
) -> Result<u64> {
    let plan = plan(settings, model, device, longest)?;
    let in_backward = settings.memory.recompute > 0 && settings.memory.update_in_backward;
    Ok(if in_backward {
        plan.peak_recomputed
    } else {
        plan.peak
    })
}

/// The most bytes that a run of `steps` steps has on disk: checkpoints, one of them being written,
/// and the finished models.
pub(crate) fn disk(
    settings: &Settings,
    model: &CausalLm,
    device: &Device,
    steps: u64,
) -> Result<u64> {
    let plan = plan(settings, model, device, 1)?;
    let checkpoint = plan.weights + plan.optimizer_state + plan.master_weights + plan.host;
    let saved = match settings.output.save_every {
        0 => 1,
        every => steps.div_ceil(every as u64),
    };
    // The newest ones, the best one, and the one that is being written.
    let kept = saved.min(settings.output.keep as u64 + 2);
    Ok(kept * checkpoint + 2 * plan.weights)
}

fn plan(
    settings: &Settings,
    model: &CausalLm,
    device: &Device,
    longest: usize,
) -> Result<MemoryPlan> {
    let run = Workload {
        sequence: longest,
        ..workload(settings, device)
    };
    Ok(if settings.method.method == Method::Lora {
        MemoryPlan::lora(model, settings.method.lora_rank, true, &run)?
    } else {
        MemoryPlan::lisa(model, &lisa_config(settings, model)?, &run)?
    })
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
