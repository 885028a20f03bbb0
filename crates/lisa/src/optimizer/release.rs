//! [`Release`]: drops or offloads the state of a parameter that is frozen.
//!
//! Burn keeps the state of every parameter that was ever stepped, and removes the state only if a
//! step returns none. So frozen parameters are stepped once more with the learning rate
//! [`RELEASE`]. In that step, this wrapper leaves the parameter unchanged and returns the state
//! that [`OnFreeze`] asks for. It is the outermost wrapper: an inner wrapper could not distinguish
//! a release from an optimizer without state.

use burn::optim::{LearningRate, Optimizer};
use burn::tensor::{Device, Tensor};

use super::offload::Placed;

/// The learning rate of a release pass: a NaN with a payload that no arithmetic operation returns.
pub(crate) const RELEASE: u64 = 0x7ff8_6c69_7361_0001;

/// What happens to the optimizer state of a layer that freezes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum OnFreeze {
    /// It is dropped, so memory does not grow. A layer that becomes active again starts with new
    /// state. The paper's author does this for the layers, too (LMFlow, issue 729).
    #[default]
    Drop,
    /// It stays on the device, as in LMFlow. Memory grows to that of the plain optimizer.
    Keep,
    /// It is offloaded to host memory, and copied back when the layer becomes active again.
    Offload,
}

/// Releases state in a step with the learning rate [`RELEASE`]. State kept: that of the inner
/// optimizer, on the device or offloaded.
#[derive(Clone)]
pub(crate) struct Release<O> {
    inner: O,
    on_freeze: OnFreeze,
}

/// Wraps an optimizer.
pub(crate) fn release<O: Optimizer>(inner: O, on_freeze: OnFreeze) -> Release<O> {
    Release { inner, on_freeze }
}

impl<O: Optimizer> Optimizer for Release<O> {
    type State<const D: usize> = Placed<O, D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Placed<O, D>>,
    ) -> (Tensor<D>, Option<Placed<O, D>>) {
        if lr.to_bits() == RELEASE {
            let state = state.and_then(|state| match self.on_freeze {
                OnFreeze::Drop => None,
                // A run makes no release pass then.
                OnFreeze::Keep => Some(state),
                OnFreeze::Offload => Some(state.offload()),
            });
            return (tensor, state);
        }
        let state = state.and_then(|state| state.load(&tensor.device()));
        let (tensor, state) = self.inner.step(lr, tensor, grad, state);
        (tensor, state.map(Placed::Device))
    }

    fn to_device<const D: usize>(state: Placed<O, D>, device: &Device) -> Placed<O, D> {
        state.moved(device)
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer, RecordState, StateSink};
    use burn_pack::{Reader, Tensor as PackTensor};

    use super::super::deferred::deferred;
    use super::*;

    #[test]
    fn a_release_drops_keeps_or_offloads_and_changes_no_weight() {
        let device = Device::flex();
        let ones = || Tensor::<1>::ones([3], &device);
        let release_rate = f64::from_bits(RELEASE);
        for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
            let optimizer = release(AdamWConfig::new().build(), on_freeze);
            let (weight, state) = optimizer.step(0.1, ones(), ones(), None);
            let (frozen, released) =
                optimizer.step(release_rate, weight.clone(), ones(), state.clone());
            assert_eq!(frozen.to_data(), weight.to_data());
            let leaves = |state: &Placed<_, 1>| {
                let mut sink = StateSink::default();
                state.state_flatten("id", &mut sink);
                sink.tensors
            };
            match (on_freeze, &released) {
                (OnFreeze::Drop, None) => continue,
                (OnFreeze::Keep, Some(Placed::Device(_)))
                | (OnFreeze::Offload, Some(Placed::Host(_))) => {}
                _ => panic!("{on_freeze:?}"),
            }
            let (state, released) = (state.unwrap(), released.unwrap());
            assert_eq!(leaves(&state), leaves(&released));
            // The next step is the same as if nothing had been released.
            let (straight, _) = optimizer.step(0.1, weight.clone(), ones(), Some(state));
            let (again, _) = optimizer.step(0.1, weight, ones(), Some(released));
            assert_eq!(straight.into_data(), again.into_data());
        }
    }

    #[test]
    fn the_state_of_a_run_is_deferred_wherever_it_is() {
        let device = Device::flex().autodiff();
        let layer = || LinearConfig::new(3, 2).init(&device);
        let model: Vec<Linear> = vec![layer(), layer()];
        for on_freeze in [OnFreeze::Keep, OnFreeze::Offload] {
            let mut optimizer =
                ModuleOptimizer::from(release(AdamWConfig::new().build(), on_freeze));
            for lr in [0.1, f64::from_bits(RELEASE)] {
                let mut model = model.clone();
                let input = Tensor::<2>::ones([1, 3], &device);
                let loss = model[0].forward(input.clone()) + model[1].forward(input);
                let grads = GradientsParams::from_grads(loss.sum().backward(), &model);
                model = optimizer.step(lr, model, grads);
                drop(model);
            }
            let (reader, tensors) = deferred(&optimizer).unwrap();
            assert!(reader.tensor_names().is_empty());
            let whole = optimizer.to_record().into_bytes().unwrap();
            let whole = Reader::from_bytes(whole).unwrap();
            assert_eq!(reader.scalars(), whole.scalars());
            assert_eq!(reader.metadata(), whole.metadata());
            let parts = |tensor: PackTensor| tensor.into_parts().unwrap();
            let found: Vec<_> = tensors.into_iter().map(parts).collect();
            let expected = whole.into_tensors().unwrap().into_iter().map(parts);
            assert_eq!(found, expected.collect::<Vec<_>>());
            assert_eq!(found.len(), 8);
        }
    }
}
