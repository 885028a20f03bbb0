//! `Planned`: estimates the memory of a run before it starts.

use anyhow::Result;
use burn::tensor::{DType, Device, FloatDType};
use lisa::memory::{Breakdown, MemoryPlan, Workload};
use lisa_lm::CausalLm;

use super::hardware::Hardware;
use crate::machine::available_bytes;
use crate::settings::{Method, OutputSettings, Settings};
use crate::terminal::text::{counted, size};
use crate::train::method::trainer::lisa_config;

/// What the memory pool of a GPU may reserve in addition to its tensors, in per cent of them.
pub(crate) const MARGIN: u64 = 10;

/// The memory that a run needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    /// What the device holds at the peak of a step.
    pub(crate) peak: Breakdown,
    /// Bytes in host memory.
    pub(crate) host: u64,
    hardware: Hardware,
}

impl Planned {
    /// Plans steps with batches of `rows` rows of `tokens` tokens. The parameters of the model may be
    /// lazy.
    pub(crate) fn of(
        settings: &Settings,
        model: &CausalLm,
        hardware: impl Into<Hardware>,
        rows: usize,
        tokens: usize,
    ) -> Result<Self> {
        let hardware = hardware.into();
        let plan = plan(settings, model, hardware, rows, tokens)?;
        let peak = if settings.memory.recompute > 0 {
            plan.at_peak_recomputed
        } else {
            plan.at_peak
        };
        Ok(Self {
            peak,
            host: plan.host,
            hardware,
        })
    }

    /// Plans the batches of a run, of which the longest row has so many tokens.
    pub(crate) fn of_run(
        settings: &Settings,
        model: &CausalLm,
        device: &Device,
        longest: usize,
    ) -> Result<Self> {
        Self::of(
            settings,
            model,
            device,
            settings.training.batch_size,
            longest,
        )
    }

    /// Bytes that the device must have: on a CPU, also those in host memory; otherwise, with a margin
    /// for the memory pool.
    pub(crate) fn needed(&self) -> u64 {
        let peak = self.peak.total();
        if self.hardware.is_host() {
            peak + self.host
        } else {
            peak + peak * MARGIN / 100
        }
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
    let plan = Planned::of_run(settings, model, device, longest)?;
    let rows = settings.training.batch_size;
    let (rows, longest) = (counted(rows, "row"), counted(longest, "token"));
    let mut text = format!("planned memory at the peak of a step, {rows} of {longest}:\n");
    let host = (plan.host > 0).then_some(("host memory", plan.host));
    let mut lines = plan.parts().to_vec();
    if plan.hardware.is_host() {
        // Host memory is a part of the peak.
        lines.extend(host);
        lines.push(("peak", plan.needed()));
    } else {
        lines.push(("peak", plan.peak.total()));
        lines.push(("with the pool", plan.needed()));
        lines.extend(host);
    }
    for (name, bytes) in lines {
        text.push_str(&format!("  {name:<16}{:>10}\n", size(bytes)));
    }
    Ok(text)
}

/// The bytes that a run has on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    /// The most at any time: checkpoints, one of them being written, and the finished models.
    pub(crate) all: u64,
    /// A checkpoint.
    checkpoint: u64,
    /// A finished model.
    model: u64,
}

impl Disk {
    /// The bytes that must be free if the run has `own` ones already. A finished model is complete
    /// before it replaces an earlier one of the same run.
    pub(crate) fn needed(self, own: u64, replaces_model: bool) -> u64 {
        let all = self.all + if replaces_model { self.model } else { 0 };
        all.saturating_sub(own).max(self.checkpoint)
    }

    fn of(
        output: &OutputSettings,
        steps: u64,
        evaluates: bool,
        checkpoint: u64,
        model: u64,
    ) -> Self {
        let regular = match output.save_every {
            0 => 1,
            every => steps.div_ceil(every as u64),
        };
        // With regular checkpoints, an evaluation saves one if its loss is the lowest.
        let has_best = evaluates && output.save_every > 0;
        let best = steps.checked_div(output.eval_every as u64);
        let saved = regular + best.filter(|_| has_best).unwrap_or(0);
        // The newest ones, the best one, and the one that is being written.
        let kept = saved.min((output.keep as u64).saturating_add(1 + u64::from(has_best)));
        Self {
            all: kept * checkpoint + (1 + u64::from(has_best)) * model,
            checkpoint,
            model,
        }
    }
}

/// What a run of `steps` steps has on disk.
pub(crate) fn disk(
    settings: &Settings,
    model: &CausalLm,
    device: &Device,
    steps: u64,
    evaluates: bool,
) -> Result<Disk> {
    let plan = plan(settings, model, device.into(), 1, 1)?;
    let (weights, finished) = if settings.method.method == Method::Lora {
        // The gradients are of the adapters, and have their dtype.
        let adapters = plan.gradients;
        let lora = settings.method.lora(settings.training.seed);
        let head = model.planned_lora(&lora, &Workload::new(model, 1, 1)).head;
        // A tied head that is adapted gets a weight of its own.
        let untied = match head {
            Some([from, to]) if model.config().is_tied() => {
                (from * to * DType::from(FloatDType::from(settings.memory.dtype)).size()) as u64
            }
            _ => 0,
        };
        let merged = plan.weights - adapters + untied;
        let merged = if settings.method.no_merge { 0 } else { merged };
        (adapters, adapters + merged)
    } else {
        (plan.weights, plan.weights)
    };
    let checkpoint = weights + plan.optimizer_state + plan.master_weights + plan.host;
    let output = &settings.output;
    Ok(Disk::of(output, steps, evaluates, checkpoint, finished))
}

/// The most bytes of optimizer state in a checkpoint.
pub(crate) fn state(settings: &Settings, model: &CausalLm, device: &Device) -> Result<u64> {
    let plan = plan(settings, model, device.into(), 1, 1)?;
    Ok(plan.optimizer_state + plan.master_weights + plan.host)
}

fn plan(
    settings: &Settings,
    model: &CausalLm,
    hardware: Hardware,
    rows: usize,
    tokens: usize,
) -> Result<MemoryPlan> {
    let run = Workload {
        batch: rows,
        sequence: tokens,
        dtype: settings.memory.dtype.into(),
        flex: hardware == Hardware::Flex,
        lowest_active: 0,
        recompute: settings.memory.recomputation(),
        in_backward: settings.memory.update_in_backward,
        accumulated: settings.training.gradient_accumulation_steps,
    };
    Ok(if settings.method.method == Method::Lora {
        let lora = settings.method.lora(settings.training.seed);
        let adapters = model.planned_lora(&lora, &run);
        MemoryPlan::lora(model, &adapters, &run)?
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
    let is_host = Hardware::from(device).is_host();
    is_host.then(available_bytes)?
}

#[cfg(test)]
mod tests {
    use lisa_lm::ModelConfig;
    use lisa_lm::model::config::LlamaConfig;

    use super::*;
    use crate::settings::Flags;

    #[test]
    fn the_plan_of_lora_is_that_of_its_modules_and_of_recomputation() {
        let config = lisa_lm::ModelConfig::from_json(crate::bundled::CONFIG).unwrap();
        let device = Device::default().autodiff();
        let model = config.init(&device).unwrap();
        let mut settings = Flags::default().resolve(None).unwrap();
        settings.method.method = Method::Lora;
        let needed = |settings: &Settings| {
            let planned = Planned::of(settings, &model, &device, 8, 256);
            planned.unwrap().needed()
        };
        let all = needed(&settings);
        let mut less = settings.clone();
        less.memory.recompute = 1;
        // Seven of eight layers keep their input alone.
        assert!(needed(&less) < all / 2);
        let mut few = settings.clone();
        few.method.lora_target_modules = vec!["v_proj".into()];
        assert!(needed(&few) < all);
        let mut last = settings.clone();
        last.method.lora_target_modules = vec!["layers.7.self_attn.v_proj".into()];
        assert!(needed(&last) < all / 2);
    }

    #[test]
    fn accumulated_gradients_count_and_a_gpu_has_a_margin() {
        let config = lisa_lm::ModelConfig::from_json(crate::bundled::CONFIG).unwrap();
        let model = config.init(&Device::default().autodiff()).unwrap();
        let mut settings = Flags::default().resolve(None).unwrap();
        for method in [Method::Full, Method::Lora, Method::Lisa] {
            for recompute in [0, 1] {
                settings.method.method = method;
                settings.memory.recompute = recompute;
                let planned = |accumulated, hardware| {
                    let mut settings = settings.clone();
                    settings.training.gradient_accumulation_steps = accumulated;
                    let run = plan(&settings, &model, hardware, 4, 64).unwrap();
                    (
                        Planned::of(&settings, &model, hardware, 4, 64).unwrap(),
                        run.gradients,
                    )
                };
                for hardware in [Hardware::Flex, Hardware::Gpu] {
                    let ((one, gradients), (eight, _)) =
                        (planned(1, hardware), planned(8, hardware));
                    let more = eight.peak.total() - one.peak.total();
                    assert_eq!(more, gradients, "{method}, {recompute}, {hardware:?}");
                    let margin = if hardware == Hardware::Gpu {
                        one.peak.total() / 10
                    } else {
                        one.host
                    };
                    assert_eq!(one.needed(), one.peak.total() + margin);
                }
            }
        }
    }

    #[test]
    fn a_plan_initializes_no_parameter() {
        let config = lisa_lm::ModelConfig::from_json(crate::bundled::CONFIG).unwrap();
        let device = Device::default().autodiff();
        let model = config.init(&device).unwrap();
        for method in [Method::Full, Method::Lora, Method::Lisa] {
            let mut settings = Flags::default().resolve(None).unwrap();
            settings.method.method = method;
            Planned::of(&settings, &model, &device, 1, 16).unwrap();
            let weight = &model.model.layers[0].mlp.down_proj.weight;
            assert!(!weight.is_initialized(), "{method}");
        }
    }

    #[test]
    fn a_merged_head_needs_disk_for_a_weight_of_its_own() {
        let device = Device::default();
        let of = |tied: bool, no_merge| {
            let mut config = LlamaConfig::new(64, 16, 2, 2);
            config.tie_word_embeddings = tied;
            let model = ModelConfig::Llama(config).init(&device).unwrap();
            let mut settings = Flags::default().resolve(None).unwrap();
            settings.method.method = Method::Lora;
            settings.method.no_merge = no_merge;
            settings.method.lora_target_modules = vec!["lm_head".into()];
            disk(&settings, &model, &device, 1, false).unwrap().model
        };
        assert_eq!(of(true, false), of(false, false));
        assert_eq!(of(true, true), of(false, true));
        assert!(of(true, true) < of(true, false));
    }

    #[test]
    fn the_disk_has_the_best_checkpoints_and_what_a_run_has_already() {
        let disk = |save_every, eval_every, evaluates| {
            let mut output = Flags::default().resolve(None).unwrap().output;
            (output.save_every, output.eval_every, output.keep) = (save_every, eval_every, 2);
            Disk::of(&output, 300, evaluates, 100, 10)
        };
        // Two regular checkpoints; two and those of the evaluations.
        assert_eq!(disk(200, 200, false).all, 2 * 100 + 10);
        assert_eq!(disk(200, 10, false).all, 2 * 100 + 10);
        assert_eq!(disk(200, 200, true).all, 3 * 100 + 2 * 10);
        assert_eq!(disk(200, 10, true).all, 4 * 100 + 2 * 10);
        assert_eq!(disk(1, 0, true).all, 4 * 100 + 2 * 10);
        assert_eq!(disk(1, 0, false).all, 3 * 100 + 10);
        assert_eq!(disk(0, 10, true).all, 100 + 10);

        let disk = disk(200, 10, true);
        assert_eq!(disk.needed(0, false), 420);
        // Two checkpoints and the model, which is written again.
        assert_eq!(disk.needed(210, true), 220);
        // A checkpoint is complete before an older one is removed.
        assert_eq!(disk.needed(9999, false), 100);
    }
}
