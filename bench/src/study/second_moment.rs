//! [`SecondMoment`]: AdamW whose first moment starts again in each period.

use burn::optim::{AdamWState, AdaptiveMomentumState, LearningRate, Optimizer};
use burn::tensor::{Device, Tensor};

// As `method::adamw` has them.
const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
const EPSILON: f32 = 1e-8;
const WEIGHT_DECAY: f64 = 0.01;

/// AdamW that keeps the second moment of a parameter, and starts the first moment again with each period
/// in which the parameter is active. State kept: two tensors of the parameter's shape, as AdamW does.
#[derive(Clone, Copy)]
pub(super) struct SecondMoment {
    period: usize,
}

impl SecondMoment {
    pub(super) fn new(period: usize) -> Self {
        Self { period }
    }
}

impl Optimizer for SecondMoment {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let time = state.as_ref().map_or(0, |state| state.momentum.time);
        let moments = state.map(|state| (state.momentum.moment_1, state.momentum.moment_2));
        let (first, second) = match moments {
            Some((first, second)) if !time.is_multiple_of(self.period) => {
                (Some(first), Some(second))
            }
            Some((_, second)) => (None, Some(second)),
            None => (None, None),
        };
        let mean = |old: Option<Tensor<D>>, new: Tensor<D>, beta: f32| {
            let new = new.mul_scalar(1.0 - beta);
            match old {
                Some(old) => old.mul_scalar(beta).add(new),
                None => new,
            }
        };
        let moment_1 = mean(first, grad.clone(), BETA_1);
        let moment_2 = mean(second, grad.square(), BETA_2);
        // Each moment counts its own steps.
        let corrected = |moment: &Tensor<D>, beta: f32, steps: usize| {
            moment.clone().div_scalar(1.0 - beta.powi(steps as i32))
        };
        let first = corrected(&moment_1, BETA_1, time % self.period + 1);
        let second = corrected(&moment_2, BETA_2, time + 1);
        let delta = first.div(second.sqrt().add_scalar(EPSILON));
        let decayed = tensor.mul_scalar(1.0 - lr * WEIGHT_DECAY);
        let momentum = AdaptiveMomentumState {
            time: time + 1,
            moment_1,
            moment_2,
            max_moment_2: None,
        };
        (
            decayed - delta.mul_scalar(lr),
            Some(AdamWState::new(momentum)),
        )
    }

    fn to_device<const D: usize>(state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        AdamWState::new(state.momentum.to_device(device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::adamw;

    /// The weights after each of six steps.
    fn steps<O: Optimizer>(optimizer: O) -> Vec<Vec<f32>> {
        let device = Device::flex();
        let mut weight = Tensor::<1>::from_data([0.5, -1.0, 2.0], &device);
        let mut state = None;
        let mut weights = Vec::new();
        for step in 1..=6 {
            let grad = Tensor::from_data([0.1 * step as f32, -0.3, 1.0 / step as f32], &device);
            (weight, state) = optimizer.step(1e-2, weight, grad, state);
            weights.push(weight.to_data().iter::<f32>().collect());
        }
        weights
    }

    #[test]
    fn the_first_period_is_adamw() {
        let adamw = steps(adamw().build());
        assert_eq!(steps(SecondMoment::new(6)), adamw);
        let two = steps(SecondMoment::new(2));
        assert_eq!(two[..2], adamw[..2]);
        assert_ne!(two[2], adamw[2]);
    }

    #[test]
    fn a_later_period_keeps_the_second_moment_only() {
        let (weights, adamw) = (steps(SecondMoment::new(2)), steps(adamw().build()));
        // By hand, for the first weight: its gradients are 0.1, 0.2 and 0.3.
        let second = 0.001 * (0.998001 * 0.01 + 0.999 * 0.04 + 0.09) / (1.0 - 0.999_f64.powi(3));
        let expected = f64::from(adamw[1][0]) * (1.0 - 1e-4) - 1e-2 * 0.3 / second.sqrt();
        assert!((f64::from(weights[2][0]) - expected).abs() < 1e-6);
    }
}
