//! [`Planner`]: estimates the memory of a run before it starts.

use anyhow::Result;
use lisa::memory::{Breakdown, MemoryPlan, Workload};
use lisa_lm::CausalLm;

use super::hardware::Hardware;
use crate::machine::available_bytes;
use crate::settings::{Method, Settings};
use crate::terminal::text::{counted, size};
use crate::train::method::trainer::lisa_config;

/// What the memory pool of a GPU may reserve in addition to its tensors, in per cent of them.
pub(crate) const MARGIN: u64 = 10;

/// Plans runs of a model.
#[derive(Clone, Copy)]
pub(crate) struct Planner<'a> {
    /// Its parameters may be lazy.
    pub(super) model: &'a CausalLm,
    pub(super) hardware: Hardware,
}

impl<'a> Planner<'a> {
    /// A planner for a device, or for a kind of device.
    pub(crate) fn new(model: &'a CausalLm, hardware: impl Into<Hardware>) -> Self {
        let hardware = hardware.into();
        Self { model, hardware }
    }

    /// Plans steps with batches of `rows` rows of `tokens` tokens.
    pub(crate) fn plan(self, settings: &Settings, rows: usize, tokens: usize) -> Result<Planned> {
        let plan = self.parts(settings, rows, tokens)?;
        let peak = if settings.memory.recompute > 0 {
            plan.at_peak_recomputed
        } else {
            plan.at_peak
        };
        Ok(Planned {
            peak,
            host: plan.host,
            hardware: self.hardware,
        })
    }

    /// Plans the batches of a run; its longest row has `longest` tokens.
    pub(crate) fn plan_run(self, settings: &Settings, longest: usize) -> Result<Planned> {
        self.plan(settings, settings.training.batch_size, longest)
    }

    /// Bytes that the device must have for such batches.
    pub(crate) fn needed(self, settings: &Settings, rows: usize, tokens: usize) -> Result<u64> {
        Ok(self.plan(settings, rows, tokens)?.needed())
    }

    /// The memory that a run may use: `--memory`, or what a CPU has available. `None` if it is
    /// not known.
    pub(crate) fn room(self, settings: &Settings) -> Option<u64> {
        let gib = settings.memory.memory;
        if gib > 0.0 {
            return Some((gib * f64::from(1 << 30)) as u64);
        }
        self.hardware.is_host().then(available_bytes)?
    }

    /// Which peaks fit into `bytes`, as text: on a GPU, the memory pool needs a part.
    pub(crate) fn peaks_in(self, bytes: u64) -> String {
        if self.hardware.is_host() {
            return String::new();
        }
        let peak = bytes / (100 + MARGIN) * 100;
        format!(" (peaks of up to {}, without the memory pool)", size(peak))
    }

    /// The memory of each part of a run.
    pub(super) fn parts(
        self,
        settings: &Settings,
        rows: usize,
        tokens: usize,
    ) -> Result<MemoryPlan> {
        let run = Workload {
            batch: rows,
            sequence: tokens,
            dtype: settings.memory.dtype.into(),
            flex: self.hardware == Hardware::Flex,
            lowest_active: 0,
            recompute: settings.memory.recomputation(),
            in_backward: settings.memory.update_in_backward,
            accumulated: settings.training.gradient_accumulation_steps,
        };
        let model = self.model;
        Ok(if settings.method.method == Method::Lora {
            let lora = settings.method.lora(settings.training.seed);
            let adapters = model.planned_lora(&lora, &run);
            MemoryPlan::lora(model, &adapters, &run)?
        } else {
            MemoryPlan::lisa(model, &lisa_config(settings, model)?, &run)?
        })
    }
}

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
pub(crate) fn planned(planner: Planner<'_>, settings: &Settings, longest: usize) -> Result<String> {
    let plan = planner.plan_run(settings, longest)?;
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

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::settings::Flags;

    #[test]
    fn the_plan_of_lora_is_that_of_its_modules_and_of_recomputation() {
        let config = lisa_lm::ModelConfig::from_json(crate::bundled::CONFIG).unwrap();
        let device = Device::default().autodiff();
        let model = config.init(&device).unwrap();
        let mut settings = Flags::default().resolve(None).unwrap();
        settings.method.method = Method::Lora;
        let planner = Planner::new(&model, &device);
        let needed = |settings: &Settings| planner.needed(settings, 8, 256).unwrap();
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
                    let planner = Planner::new(&model, hardware);
                    let run = planner.parts(&settings, 4, 64).unwrap();
                    (planner.plan(&settings, 4, 64).unwrap(), run.gradients)
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
            let planner = Planner::new(&model, &device);
            planner.plan(&settings, 1, 16).unwrap();
            let weight = &model.model.layers[0].mlp.down_proj.weight;
            assert!(!weight.is_initialized(), "{method}");
        }
    }
}
