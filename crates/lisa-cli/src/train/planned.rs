//! `Planned`: estimates the memory of a run before it starts.

use anyhow::Result;
use burn::tensor::Device;
use lisa::memory::{Breakdown, MemoryPlan, Workload};
use lisa_lm::CausalLm;

use super::method::lisa_config;
use crate::machine::available_bytes;
use crate::settings::{Method, Settings};
use crate::terminal::text::{counted, size};

/// The memory that a run needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Planned {
    /// What the device holds at the peak of a step.
    pub(crate) peak: Breakdown,
    /// Bytes in host memory.
    pub(crate) host: u64,
    /// Whether the device is the host.
    on_host: bool,
}

impl Planned {
    /// Plans batches of `rows` rows of `tokens` tokens. The parameters of the model may be lazy.
    pub(crate) fn of(
        settings: &Settings,
        model: &CausalLm,
        device: &Device,
        rows: usize,
        tokens: usize,
    ) -> Result<Self> {
        let memory = &settings.memory;
        let plan = plan(settings, model, device, rows, tokens)?;
        let mut peak = plan.at_peak;
        if memory.recompute > 0 {
            let mut recomputed = plan.at_peak_recomputed;
            if !memory.update_in_backward {
                // All gradients exist until the update; some of them are counted twice.
                recomputed.gradients += plan.gradients;
            }
            if recomputed.total() < peak.total() {
                peak = recomputed;
            }
        }
        let host = plan.host;
        Ok(Self {
            peak,
            host,
            on_host: is_host(device),
        })
    }

    /// Bytes that the device must have: on a CPU, also those in host memory.
    pub(crate) fn needed(&self) -> u64 {
        self.peak.total() + if self.on_host { self.host } else { 0 }
    }

    /// The parts of the peak with their names, which add up to it.
    pub(crate) fn parts(&self) -> [(&'static str, u64); 6] {
        let peak = &self.peak;
        [
            ("weights", peak.weights),
            ("optimizer state", peak.optimizer_state),
            ("master weights", peak.master_weights),
            ("gradients", peak.gradients),
            ("activations", peak.activations),
            ("temporary", peak.temporary),
        ]
    }
}

/// The estimated memory of a run, as text. `longest` is the number of tokens in its longest row.
pub fn planned(
    settings: &Settings,
    model: &CausalLm,
    device: &Device,
    longest: usize,
) -> Result<String> {
    let rows = settings.training.batch_size;
    let plan = Planned::of(settings, model, device, rows, longest)?;
    let (rows, longest) = (counted(rows, "row"), counted(longest, "token"));
    let mut text = format!("planned memory at the peak of a step, {rows} of {longest}:\n");
    let host = (plan.host > 0).then_some(("host memory", plan.host));
    let peak = ("peak", plan.peak.total());
    for (name, bytes) in plan.parts().into_iter().chain([peak]).chain(host) {
        text.push_str(&format!("  {name:<16}{:>10}\n", size(bytes)));
    }
    Ok(text)
}

/// The planned peak of memory in bytes.
pub(crate) fn peak(
    settings: &Settings,
    model: &CausalLm,
    device: &Device,
    longest: usize,
) -> Result<u64> {
    let rows = settings.training.batch_size;
    let plan = Planned::of(settings, model, device, rows, longest)?;
    Ok(plan.peak.total())
}

/// The most bytes that a run of `steps` steps has on disk: checkpoints, one of them being written,
/// and the finished models.
pub(crate) fn disk(
    settings: &Settings,
    model: &CausalLm,
    device: &Device,
    steps: u64,
) -> Result<u64> {
    let plan = plan(settings, model, device, 1, 1)?;
    let checkpoint = plan.weights + plan.optimizer_state + plan.master_weights + plan.host;
    let saved = match settings.output.save_every {
        0 => 1,
        every => steps.div_ceil(every as u64),
    };
    // The newest ones, the best one, and the one that is being written.
    let kept = saved.min(settings.output.keep as u64 + 2);
    Ok(kept * checkpoint + 2 * plan.weights)
}

/// The most bytes of optimizer state in a checkpoint.
pub(crate) fn state(settings: &Settings, model: &CausalLm, device: &Device) -> Result<u64> {
    let plan = plan(settings, model, device, 1, 1)?;
    Ok(plan.optimizer_state + plan.master_weights + plan.host)
}

fn plan(
    settings: &Settings,
    model: &CausalLm,
    device: &Device,
    rows: usize,
    tokens: usize,
) -> Result<MemoryPlan> {
    let run = Workload {
        batch: rows,
        sequence: tokens,
        dtype: settings.memory.dtype.into(),
        flex: is_host(device),
        lowest_active: 0,
        recompute: settings.memory.recomputation(),
    };
    Ok(if settings.method.method == Method::Lora {
        MemoryPlan::lora(model, settings.method.lora_rank, false, &run)?
    } else {
        MemoryPlan::lisa(model, &lisa_config(settings, model)?, &run)?
    })
}

/// The memory that a run may use: that of `--memory`, or what a CPU has available. `None` if it is not
/// known.
pub(crate) fn room(settings: &Settings, device: &Device) -> Option<u64> {
    let gib = settings.memory.memory;
    if gib > 0.0 {
        return Some((gib * f64::from(1 << 30)) as u64);
    }
    is_host(device).then(available_bytes)?
}

/// Whether the memory of the device is that of the machine: the backends of GPUs report theirs.
fn is_host(device: &Device) -> bool {
    device.memory_pool_usage().is_none()
}
