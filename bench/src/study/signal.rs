//! Signals of the first batches, by which a policy samples.

use anyhow::Result;
use lisa::LisaError;
use lisa::importance::GradientTracker;
use lisa::recompute::Recompute;
use lisa_lm::CausalLm;
use lisa_lm::text::Batches;

use super::arm::Policy;

/// Batches from which a signal is measured before training.
const PROBED: usize = 8;

/// The weights of a policy that samples by the gradients of the first batches; empty for other policies.
/// The gradients of one layer exist at a time.
pub(super) fn weights(
    policy: Policy,
    mut model: CausalLm,
    mut batches: Batches,
) -> Result<(Vec<f64>, CausalLm)> {
    if !policy.is_measured_before() {
        return Ok((Vec::new(), model));
    }
    let device = model.device();
    let mut tracker = GradientTracker::new(&model)?;
    if policy == Policy::LossDecrease {
        tracker = tracker.with_loss_decreases();
    }
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
    let scores = match tracker.loss_decreases() {
        Some(decreases) => decreases,
        None if policy == Policy::MeanSquare => tracker.squares(),
        None => tracker.root_mean_squares(),
    };
    Ok((scores.weights()?, model))
}
