//! [`on_disk`]: the bytes that a run has on disk, and the optimizer state in a checkpoint.

use anyhow::Result;
use burn::tensor::{DType, FloatDType};
use lisa::memory::{MemoryPlan, Workload};

use super::planned::Planner;
use crate::settings::{Method, Moments, OutputSettings, Quantize, Settings};

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
pub(crate) fn on_disk(
    planner: Planner<'_>,
    settings: &Settings,
    steps: u64,
    evaluates: bool,
) -> Result<Disk> {
    let (plan, model) = (saved(planner, settings)?, planner.model);
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
    let checkpoint = weights + state_of(&plan);
    let output = &settings.output;
    Ok(Disk::of(output, steps, evaluates, checkpoint, finished))
}

/// The most bytes of optimizer state in a checkpoint.
pub(crate) fn state_bytes(planner: Planner<'_>, settings: &Settings) -> Result<u64> {
    Ok(state_of(&saved(planner, settings)?))
}

/// The most tensors of optimizer state in a checkpoint.
pub(crate) fn state_tensors(planner: Planner<'_>, settings: &Settings) -> Result<u64> {
    Ok(saved(planner, settings)?.state_tensors)
}

/// Plans the run as if the device had everything that its files have: weights in full precision, and the
/// optimizer state that is in host memory.
fn saved(planner: Planner<'_>, settings: &Settings) -> Result<MemoryPlan> {
    let mut settings = settings.clone();
    settings.memory.quantize = Quantize::None;
    if settings.method.moments == Moments::Offload {
        settings.method.moments = Moments::Keep;
    }
    planner.parts(&settings, 1, 1)
}

/// The optimizer state of such a run, also that of layers that were active before.
fn state_of(plan: &MemoryPlan) -> u64 {
    plan.at_peak.optimizer_state + plan.at_peak.master_weights
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use lisa_lm::ModelConfig;
    use lisa_lm::model::config::LlamaConfig;

    use super::*;
    use crate::settings::Flags;

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
            let planner = Planner::new(&model, &device);
            on_disk(planner, &settings, 1, false).unwrap().model
        };
        assert_eq!(of(true, false), of(false, false));
        assert_eq!(of(true, true), of(false, true));
        assert!(of(true, true) < of(true, false));
    }

    #[test]
    fn files_have_full_precision_weights_and_all_state_wherever_a_run_has_it() {
        let device = Device::default();
        let model = ModelConfig::Llama(LlamaConfig::new(64, 32, 4, 2));
        let model = model.init(&device).unwrap();
        let of = |method, moments, quantize| {
            let mut settings = Flags::default().resolve(None).unwrap();
            (settings.method.method, settings.method.moments) = (method, moments);
            settings.method.active_layers = 1;
            settings.memory.quantize = quantize;
            let planner = Planner::new(&model, &device);
            let disk = on_disk(planner, &settings, 1, false).unwrap();
            (disk, state_bytes(planner, &settings).unwrap())
        };
        let lisa = |moments, quantize| of(Method::Lisa, moments, quantize);
        let kept = lisa(Moments::Keep, Quantize::None);
        assert_eq!(lisa(Moments::Offload, Quantize::None), kept);
        assert_eq!(lisa(Moments::Keep, Quantize::Int8), kept);
        assert_eq!(lisa(Moments::Offload, Quantize::Int4), kept);
        let dropped = lisa(Moments::Drop, Quantize::None);
        assert_eq!(lisa(Moments::Drop, Quantize::Int8), dropped);
        assert!(dropped.1 < kept.1 && dropped.0.model == kept.0.model);
        // Every layer has state, as in full training.
        assert_eq!(of(Method::Full, Moments::Drop, Quantize::None), kept);
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
