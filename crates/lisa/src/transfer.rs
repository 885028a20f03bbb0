//! Moving a model to another device: float parameters one at a time ([`moved`]), then everything else
//! ([`others_moved`]).

use std::any::Any;
use std::collections::VecDeque;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor};

/// Moves the value of a float parameter to another device. Whether it requires gradients does not change.
pub(crate) fn moved<const D: usize>(tensor: Tensor<D>, device: &Device) -> Tensor<D> {
    if tensor.device() == *device {
        return tensor;
    }
    if !tensor.dtype().is_float() {
        return tensor.to_device(device);
    }
    let trains = tensor.is_require_grad() && device.is_autodiff();
    let dtype: DType = tensor.dtype();
    let tensor = Tensor::from_data(tensor.into_data(), (device, dtype));
    if trains {
        tensor.require_grad()
    } else {
        tensor
    }
}

/// Whether all of a module is on this device.
pub(crate) fn is_on<M: Module>(module: &M, device: &Device) -> bool {
    module.devices().iter().all(|there| there == device)
}

/// Moves all of a module that is no float parameter to another device: integers, booleans, and tensors
/// that are no parameters.
pub(crate) fn others_moved<M: Module>(module: M, device: &Device) -> M {
    if is_on(&module, device) {
        return module;
    }
    // Burn's `fork` would dequantize parameters, and its `to_device` would make them non-leaves of a
    // graph.
    with_floats_aside(module, device, |module| module.fork(device))
}

/// Changes a module while small tensors on `device` take the place of its float parameters.
fn with_floats_aside<M: Module>(module: M, device: &Device, change: impl FnOnce(M) -> M) -> M {
    let mut aside = Aside {
        device: device.clone().inner(),
        floats: VecDeque::new(),
    };
    let module = module.map(&mut aside);
    change(module).map(&mut Back(aside.floats))
}

/// Takes float parameters out of a module, in the order of the module tree.
struct Aside {
    device: Device,
    floats: VecDeque<Box<dyn Any>>,
}

impl ModuleMapper for Aside {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            self.floats.push_back(Box::new(tensor));
            Tensor::zeros([1; D], &self.device)
        })
    }
}

/// Puts them back.
struct Back(VecDeque<Box<dyn Any>>);

impl ModuleMapper for Back {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let next = self.0.pop_front();
        let Some(tensor) = next.and_then(|tensor| tensor.downcast::<Tensor<D>>().ok()) else {
            unreachable!("a module has the same float parameters on every visit");
        };
        param.map(|_| *tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FrozenWeights;
    use burn::module::ParamId;
    use burn::nn::{
        BatchNorm, BatchNormConfig, Linear, LinearConfig, RotaryEncoding, RotaryEncodingConfig,
    };
    use burn::tensor::{Int, TensorData};

    #[derive(Module, Debug)]
    struct Model {
        norm: BatchNorm,
        rotary: RotaryEncoding,
        positions: Param<Tensor<1, Int>>,
        layers: Vec<Linear>,
    }

    /// One layer trains, one is frozen, one is quantized.
    fn model(device: &Device) -> Model {
        let linear = || LinearConfig::new(32, 32).with_bias(false).init(device);
        let mut layers = vec![linear(), linear(), linear()];
        layers[1].weight = layers[1].weight.clone().set_require_grad(false);
        let scheme = FrozenWeights::Int8.scheme(&[32, 32]).unwrap();
        let quantized = layers[2].weight.val().detach().quantize_dynamic(&scheme);
        layers[2].weight = Param::initialized(layers[2].weight.id, quantized);
        Model {
            norm: BatchNormConfig::new(4).init(device),
            rotary: RotaryEncodingConfig::new(8, 4).init(device),
            positions: Param::initialized(ParamId::new(), Tensor::arange(0..8, device)),
            layers,
        }
    }

    fn floats(model: &Model) -> Vec<(bool, TensorData)> {
        let of = |linear: &Linear| {
            let tensor = linear.weight.val();
            (tensor.is_require_grad(), tensor.into_data())
        };
        let running = [&model.norm.running_mean, &model.norm.running_var];
        let running = running.map(|state| (false, state.value().into_data()));
        model.layers.iter().map(of).chain(running).collect()
    }

    #[test]
    fn float_parameters_are_back_as_they_were_after_a_change_of_everything_else() {
        let device = Device::flex().autodiff();
        let model = model(&device);
        let before = floats(&model);
        let loss = |model: &Model| model.layers[0].weight.val().square().sum();
        let mut calls = 0;
        let changed = with_floats_aside(model.clone(), &device, |module| {
            calls += 1;
            assert!(
                module
                    .layers
                    .iter()
                    .all(|l| l.weight.val().dims() == [1, 1])
            );
            module.fork(&device)
        });
        assert_eq!((calls, floats(&changed)), (1, before));
        // The same leaves: gradients of the model before are gradients of this one.
        let grads = loss(&model).backward();
        assert!(changed.layers[0].weight.val().grad(&grads).is_some());
        assert_eq!(
            changed.positions.val().into_data(),
            model.positions.val().into_data()
        );
        assert_eq!(changed.devices(), [device]);
    }
}
