//! [`MasterWeights`]: half-precision parameters are updated through an f32 copy, so that small
//! updates are not rounded away. Tests: here, and `lisa/tests.rs`.

use burn::optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource, join_path};
use burn::tensor::{DType, Device, FloatDType, Tensor};

use super::bytes::{StateBytes, Weighed};

/// The leaves of the inner optimizer's state in a record are under this name.
const MOMENTS: &str = "moments";
/// The leaf of the master weights in a record.
pub(super) const MASTER: &str = "master";

/// Keeps f32 master weights for bf16 and f16 parameters, if `enabled`. State kept: the f32 copy,
/// and the inner optimizer's state of that copy.
#[derive(Clone)]
pub(crate) struct MasterWeights<O> {
    inner: O,
    enabled: bool,
}

/// Wraps an optimizer. If it is not `enabled`, it only names the state in records.
pub(crate) fn master_weights<O: Optimizer>(inner: O, enabled: bool) -> MasterWeights<O> {
    MasterWeights { inner, enabled }
}

impl<O: Optimizer> Optimizer for MasterWeights<O> {
    type State<const D: usize> = Mastered<O, D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Mastered<O, D>>,
    ) -> (Tensor<D>, Option<Mastered<O, D>>) {
        let dtype = tensor.dtype();
        let (inner, master) = match state {
            Some(Mastered { inner, master }) => (inner, master),
            None => (None, None),
        };
        let half = matches!(dtype, DType::BF16 | DType::F16);
        let (tensor, inner, master) = if half && self.enabled {
            let master = master.unwrap_or_else(|| tensor.cast(FloatDType::F32));
            let (master, inner) = self.inner.step(lr, master, grad, inner);
            (master.clone().cast(dtype), inner, Some(master))
        } else {
            let (tensor, inner) = self.inner.step(lr, tensor, grad, inner);
            (tensor, inner, None)
        };
        let any = inner.is_some() || master.is_some();
        (tensor, any.then_some(Mastered { inner, master }))
    }

    fn to_device<const D: usize>(state: Mastered<O, D>, device: &Device) -> Mastered<O, D> {
        Mastered {
            inner: state.inner.map(|state| O::to_device(state, device)),
            master: state.master.map(|master| master.to_device(device)),
        }
    }
}

impl<O: Weighed> Weighed for MasterWeights<O> {
    fn weigh<const D: usize>(state: &Mastered<O, D>) -> StateBytes {
        let inner = state.inner.as_ref().map(O::weigh).unwrap_or_default();
        let elements = state
            .master
            .as_ref()
            .map(|master| master.shape().num_elements());
        StateBytes {
            master: inner.master + 4 * elements.unwrap_or(0) as u64,
            ..inner
        }
    }
}

/// The inner optimizer's state of a parameter, and its master weights.
pub(crate) struct Mastered<O: Optimizer, const D: usize> {
    inner: Option<O::State<D>>,
    master: Option<Tensor<D>>,
}

impl<O: Optimizer, const D: usize> Clone for Mastered<O, D> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            master: self.master.clone(),
        }
    }
}

impl<O: Optimizer, const D: usize> RecordState for Mastered<O, D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        if let Some(inner) = &self.inner {
            inner.state_flatten(&join_path(prefix, MOMENTS), out);
        }
        if let Some(master) = &self.master {
            out.push_tensor(prefix, MASTER, master.clone().into_data());
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let path = join_path(prefix, MOMENTS);
        let inner = if src.has_under(&path) {
            Some(<O::State<D> as RecordState>::state_unflatten(
                &path, src, device,
            )?)
        } else {
            None
        };
        let master = src.take_tensor(prefix, MASTER).map(|data| {
            let dtype = data.dtype();
            Tensor::from_data(data, (device, dtype))
        });
        (inner.is_some() || master.is_some()).then_some(Self { inner, master })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::slices::slices;
    use burn::optim::{SgdConfig, momentum::MomentumConfig};

    #[test]
    fn a_step_that_bf16_rounds_away_is_kept_in_the_master_weights() {
        let device = Device::flex();
        let sgd = SgdConfig::new().with_momentum(Some(MomentumConfig::new()));
        let ones = || Tensor::<1>::ones([3], (&device, DType::BF16));
        let optimizer = master_weights(slices(sgd.build()), true);
        let (weight, state) = optimizer.step(1e-3, ones(), ones(), None);
        let state = state.unwrap();
        let mut leaves = StateSink::default();
        state.state_flatten("id", &mut leaves);
        let names: Vec<&str> = leaves.tensors.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(names, ["id.moments.momentum.velocity", "id.master"]);
        assert_eq!(weight.into_data().iter::<f32>().next(), Some(1.0));
        assert_eq!(leaves.tensors[1].1.iter::<f32>().next(), Some(0.999));
        let bytes = MasterWeights::weigh(&state);
        assert_eq!((bytes.state, bytes.master), (12, 12));

        let (_, state) =
            master_weights(slices(sgd.build()), false).step(1e-3, ones(), ones(), None);
        assert!(state.unwrap().master.is_none());
        // f32 parameters need none.
        let ones = || Tensor::<1>::ones([3], &device);
        let (_, state) = master_weights(slices(sgd.build()), true).step(1e-3, ones(), ones(), None);
        assert!(state.unwrap().master.is_none());
    }
}
