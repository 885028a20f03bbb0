//! [`exact`]: the state of Burn's optimizers is read from a record in the dtype that it was saved
//! in. Burn reads it in the device's default dtype, and the next step of a half-precision parameter
//! then fails.

use std::any::{Any, TypeId};

use burn::optim::momentum::MomentumState;
use burn::optim::{
    AdaGradState, AdafactorState, AdamState, AdamWState, AdanState, AdaptiveMomentumState,
    AdaptiveNesterovMomentumState, CenteredState, LambState, LearningRate, LionState, LrDecayState,
    MuonState, Optimizer, RecordState, RmsPropMomentumState, RmsPropState, SgdState,
    SquareAvgState, StateSink, StateSource, join_path,
};
use burn::tensor::{Device, Tensor};

/// An optimizer whose state is loaded in the dtype that it was saved in.
///
/// With Burn's own optimizers, the record of a half-precision model is loaded in the default dtype
/// of the device, and the next step panics. LISA's own optimizer does not need this. The record is
/// that of the inner optimizer. The state of an optimizer that is not Burn's is loaded as that
/// optimizer loads it.
///
/// # Example
///
/// ```
/// use burn::optim::{AdamWConfig, ModuleOptimizer};
///
/// let optimizer = ModuleOptimizer::from(lisa::optimizer::exact(AdamWConfig::new().build()));
/// ```
pub fn exact<O: Optimizer>(inner: O) -> impl Optimizer + use<O> {
    Exact(inner)
}

#[derive(Clone)]
struct Exact<O>(O);

impl<O: Optimizer> Optimizer for Exact<O> {
    type State<const D: usize> = State<O, D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<State<O, D>>,
    ) -> (Tensor<D>, Option<State<O, D>>) {
        let (tensor, state) = self.0.step(lr, tensor, grad, state.map(|state| state.0));
        (tensor, state.map(State))
    }

    fn to_device<const D: usize>(state: State<O, D>, device: &Device) -> State<O, D> {
        State(O::to_device(state.0, device))
    }
}

struct State<O: Optimizer, const D: usize>(O::State<D>);

impl<O: Optimizer, const D: usize> Clone for State<O, D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<O: Optimizer, const D: usize> RecordState for State<O, D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        self.0.state_flatten(prefix, out);
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        read::<O::State<D>, D>(prefix, src, device).map(Self)
    }
}

/// The state of the leaves under this path, in their dtypes if the optimizer is one of Burn's.
pub(super) fn read<S: RecordState, const D: usize>(
    path: &str,
    src: &mut StateSource,
    device: &Device,
) -> Option<S> {
    macro_rules! of_burn {
        ($($state:ident)*) => {$(
            if TypeId::of::<S>() == TypeId::of::<$state<D>>() {
                let state: Box<dyn Any> = Box::new($state::<D>::read(path, src, device)?);
                return state.downcast().ok().map(|state| *state);
            }
        )*};
    }
    of_burn!(
        AdaGradState AdafactorState AdamState AdamWState AdanState LambState LionState MuonState
        RmsPropState SgdState
    );
    S::state_unflatten(path, src, device)
}

/// A part of a state that can be read from the leaves at its path.
trait Part: Sized {
    fn read(path: &str, src: &mut StateSource, device: &Device) -> Option<Self>;
}

impl<const D: usize> Part for Tensor<D> {
    fn read(path: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let data = src.take_tensor("", path)?;
        let dtype = data.dtype();
        Some(Self::from_data(data, (device, dtype)))
    }
}

impl Part for usize {
    fn read(path: &str, src: &mut StateSource, _: &Device) -> Option<Self> {
        src.take_scalar("", path)?.try_into().ok()
    }
}

impl<T: Part> Part for Option<T> {
    fn read(path: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        Some(T::read(path, src, device))
    }
}

macro_rules! parts {
    ($($state:ident($($field:ident),*) $made:expr;)*) => {$(
        impl<const D: usize> Part for $state<D> {
            fn read(path: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
                $(let $field = Part::read(&join_path(path, stringify!($field)), src, device)?;)*
                Some($made)
            }
        }
    )*};
}

parts! {
    AdaGradState(lr_decay) Self::new(lr_decay);
    LrDecayState(time, sum) Self::new(time, sum);
    AdafactorState(time, second_moment, column_second_moment)
        AdafactorState { time, second_moment, column_second_moment };
    AdamState(momentum) Self::new(momentum);
    AdamWState(momentum) Self::new(momentum);
    AdaptiveMomentumState(time, moment_1, moment_2, max_moment_2)
        AdaptiveMomentumState { time, moment_1, moment_2, max_moment_2 };
    AdanState(momentum) Self::new(momentum);
    AdaptiveNesterovMomentumState(time, exp_avg, exp_avg_sq, exp_avg_diff, neg_pre_grad)
        Self::new(time, exp_avg, exp_avg_sq, exp_avg_diff, neg_pre_grad);
    LambState(time, moment_1, moment_2) LambState { time, moment_1, moment_2 };
    LionState(momentum) Self::new(momentum);
    MuonState(momentum) Self::new(momentum);
    MomentumState(velocity) Self::new(velocity);
    RmsPropState(square_avg, centered, momentum) Self::new(square_avg, centered, momentum);
    SquareAvgState(square_avg) Self::new(square_avg);
    CenteredState(grad_avg, avg) Self::new(grad_avg, avg);
    RmsPropMomentumState(buf) Self::new(buf);
    SgdState(momentum) Self::new(momentum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::optim::momentum::MomentumConfig;
    use burn::optim::{
        AdaGradConfig, AdafactorConfig, AdamConfig, AdamWConfig, AdanConfig, LambConfig,
        LionConfig, MuonConfig, RmsPropConfig, SgdConfig,
    };
    use burn::tensor::DType;

    fn leaves(state: &impl RecordState) -> StateSink {
        let mut sink = StateSink::default();
        state.state_flatten("1", &mut sink);
        sink
    }

    fn check<O: Optimizer>(name: &str, optimizer: O, dtype: DType) {
        let device = Device::flex();
        let values = [[1.0, -2.0], [3.0, 0.5]];
        let tensor = |scale: f32| {
            let values = Tensor::<2>::from_floats(values, &device).mul_scalar(scale);
            Tensor::<2>::from_data(values.into_data(), (&device, dtype))
        };
        let optimizer = exact(optimizer);
        let (weight, state) = optimizer.step(0.1, tensor(1.0), tensor(0.3), None);
        let (weight, state) = optimizer.step(0.1, weight, tensor(-0.7), state);
        let saved = leaves(state.as_ref().unwrap());
        assert!(!saved.tensors.is_empty(), "{name}");
        let mut src = StateSource::new(saved.scalars.iter().cloned().collect());
        for (name, data) in &saved.tensors {
            src.insert_tensor(name.clone(), data.clone());
        }
        let loaded = RecordState::state_unflatten("1", &mut src, &device);
        let again = leaves(loaded.as_ref().unwrap());
        // Data of another dtype is not equal.
        assert_eq!(again.tensors, saved.tensors, "{name}");
        assert_eq!(again.scalars, saved.scalars, "{name}");
        // A state that is not of Burn's types would be read in f32.
        let (next, _) = optimizer.step(0.1, weight.clone(), tensor(0.2), loaded);
        let (wanted, _) = optimizer.step(0.1, weight, tensor(0.2), state);
        assert_eq!(next.into_data(), wanted.into_data(), "{name}");
    }

    #[test]
    fn the_state_of_every_optimizer_of_burn_keeps_its_dtype() {
        let momentum = MomentumConfig::new();
        for dtype in [DType::F32, DType::BF16] {
            check("AdaGrad", AdaGradConfig::new().build(), dtype);
            check("Adafactor", AdafactorConfig::new().build(), dtype);
            check("Adam", AdamConfig::new().build(), dtype);
            let amsgrad = AdamWConfig::new().with_amsgrad(true);
            check("AdamW with AMSGrad", amsgrad.build(), dtype);
            check("AdamW", AdamWConfig::new().build(), dtype);
            check("Adan", AdanConfig::new().build(), dtype);
            check("Lamb", LambConfig::new().build(), dtype);
            check("Lion", LionConfig::new().build(), dtype);
            check("Muon", MuonConfig::new().build(), dtype);
            let rms_prop = RmsPropConfig::new().with_centered(true).with_momentum(0.9);
            check("RmsProp", rms_prop.build(), dtype);
            let sgd = SgdConfig::new().with_momentum(Some(momentum.clone()));
            check("Sgd", sgd.build(), dtype);
        }
    }
}
