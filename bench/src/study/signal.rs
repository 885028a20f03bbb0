//! Signals of the first batches, by which a policy samples.

use anyhow::Result;
use burn::optim::GradientsParams;
use lisa::importance::{GradientTracker, NormTracker, Scores};
use lisa::recompute::Recompute;
use lisa::{LisaConfig, LisaError};
use lisa_lm::CausalLm;
use lisa_lm::model::LoraConfig;
use lisa_lm::text::Batches;

use super::arm::Policy;
use super::job::scheduled;
use crate::method::adamw;

/// Batches from which a signal for the sampling is measured before training.
const PROBED: usize = 8;
/// Steps, rank and learning rate of the run with LoRA that measures another signal.
const PROBE_STEPS: usize = 20;
const PROBE_RANK: usize = 16;
const PROBE_RATE: f64 = 1e-3;

/// The weights of a policy that samples by a signal of the first batches; empty for other policies.
pub(super) fn weights(
    policy: Policy,
    model: CausalLm,
    batches: Batches,
    seed: u64,
) -> Result<(Vec<f64>, CausalLm)> {
    match policy {
        Policy::MeanNorm | Policy::MeanSquare => gradients(policy, model, batches),
        Policy::LoraUpdate => Ok((lora_update(&model, batches, seed)?, model)),
        _ => Ok((Vec::new(), model)),
    }
}

/// By gradients; those of one layer exist at a time.
fn gradients(
    policy: Policy,
    mut model: CausalLm,
    mut batches: Batches,
) -> Result<(Vec<f64>, CausalLm)> {
    let device = model.device();
    let mut tracker = GradientTracker::new(&model)?;
    for _ in 0..PROBED {
        let batch = batches.next_batch().to_tensors(&device);
        let pass = Recompute::new().forward(&model, &batch);
        let passed = pass.backward_with(model, |model, grads| {
            tracker.observe(&model, grads);
            model
        });
        model = passed.map_err(LisaError::from)?;
        tracker.end_batch();
    }
    let scores = match policy {
        Policy::MeanSquare => tracker.squares(),
        _ => tracker.root_mean_squares(),
    };
    Ok((scores.weights()?, model))
}

/// By the norm of each layer's change in a short run with LoRA, relative to that of its weights.
fn lora_update(model: &CausalLm, mut batches: Batches, seed: u64) -> Result<Vec<f64>> {
    let device = model.device();
    let mut norms = NormTracker::new(model, &[])?;
    let mut update = norms.clone();
    norms.observe(model)?;
    let lora = LoraConfig::new(PROBE_RANK).with_seed(seed);
    let all = LisaConfig::new().with_active_layers(model.num_layers());
    let (mut lisa, mut adapted) = all.init(adamw(), model.clone().with_lora(&lora)?)?;
    for step in 1..=PROBE_STEPS {
        let loss = adapted.batch_loss(batches.next_batch().to_tensors(&device));
        let grads = GradientsParams::from_grads(loss.backward(), &adapted);
        let rate = scheduled(PROBE_RATE, step, PROBE_STEPS);
        adapted = lisa.try_step(rate, adapted, grads)?;
    }
    update.observe_update(&adapted.merge_lora(), model)?;
    let (norms, update) = (norms.norms()?, update.norms()?);
    let ratios = update.layers.iter().zip(&norms.layers);
    let scores = Scores {
        by: "LoRA update".to_owned(),
        observations: PROBE_STEPS as u64,
        layers: ratios
            .map(|((path, update), (_, norm))| (path.clone(), update / norm))
            .collect(),
    };
    Ok(scores.weights()?)
}
