//! Moving a model to another device: float parameters one at a time ([`moved`]), then everything else
//! ([`others_moved`]).
//!
//! `==` of two devices ignores autodiff and gradient checkpointing. A parameter also takes these
//! settings from the device that it moves to.

use std::any::Any;
use std::collections::VecDeque;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::kind::Autodiff;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// Moves the value of a float parameter to another device. Whether it requires gradients does not
/// change, except on a device without autodiff. If only the autodiff setting differs, nothing is
/// copied.
pub(crate) fn moved<const D: usize>(tensor: Tensor<D>, device: &Device) -> Tensor<D> {
    let here = tensor.device();
    if is_same(&here, device) {
        return tensor;
    }
    let trains = tensor.is_require_grad();
    if here != *device && tensor.dtype().is_float() {
        return placed(tensor.into_data(), trains, device);
    }
    let tensor = with_autodiff_of(device, tensor);
    if here == *device {
        training(tensor, trains)
    } else {
        tensor.to_device(device)
    }
}

/// A float parameter with these values on a device. `trains`: whether it requires gradients if the
/// device has autodiff.
pub(crate) fn placed<const D: usize>(
    values: TensorData,
    trains: bool,
    device: &Device,
) -> Tensor<D> {
    let dtype = values.dtype();
    training(Tensor::from_data(values, (device, dtype)), trains)
}

/// The tensor, which requires gradients if it `trains` and has autodiff.
fn training<const D: usize>(tensor: Tensor<D>, trains: bool) -> Tensor<D> {
    if trains && tensor.is_autodiff() {
        tensor.require_grad()
    } else {
        tensor
    }
}

/// Whether a tensor on `there` need not move: a tensor without autodiff is a constant on any device.
fn is_same(there: &Device, device: &Device) -> bool {
    let setting = there.gradient_checkpointing_strategy();
    there == device && (setting.is_none() || setting == device.gradient_checkpointing_strategy())
}

/// A tensor with the autodiff setting of a device, in no graph. It shares the values.
fn with_autodiff_of<const D: usize, K: Autodiff>(
    device: &Device,
    tensor: Tensor<D, K>,
) -> Tensor<D, K> {
    let plain = tensor.without_autodiff();
    match device.gradient_checkpointing_strategy() {
        Some(strategy) => plain
            .autodiff()
            .with_gradient_checkpointing_strategy(strategy),
        None => plain,
    }
}

/// Whether all of a module is on this device, and its parameters have the autodiff setting of the
/// device.
pub(crate) fn is_on<M: Module>(module: &M, device: &Device) -> bool {
    let is_on = module.devices().iter().all(|there| there == device);
    let mut found = IsOn { device, is_on };
    module.visit(&mut found);
    found.is_on
}

struct IsOn<'a> {
    device: &'a Device,
    is_on: bool,
}

impl ModuleVisitor for IsOn<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.is_on &= is_same(&param.val().device(), self.device);
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.is_on &= is_same(&param.val().device(), self.device);
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.is_on &= is_same(&param.val().device(), self.device);
    }
}

/// Moves all of a module that is no float parameter to another device: integers, booleans, and tensors
/// that are no parameters. Burn cannot change the autodiff setting of the latter.
pub(crate) fn others_moved<M: Module>(module: M, device: &Device) -> M {
    if is_on(&module, device) {
        return module;
    }
    let is_there = module.devices().iter().all(|there| there == device);
    let module = if is_there {
        module
    } else {
        // Burn's `fork` would dequantize parameters, and its `to_device` would make them non-leaves
        // of a graph.
        with_floats_aside(module, device, |module| module.fork(device))
    };
    module.map(&mut AutodiffOf(device))
}

/// Gives the parameters that are no floats the autodiff setting of a device.
struct AutodiffOf<'a>(&'a Device);

impl ModuleMapper for AutodiffOf<'_> {
    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        param.map(|tensor| with_autodiff_of(self.0, tensor))
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        param.map(|tensor| with_autodiff_of(self.0, tensor))
    }
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
    #[test]
    fn parameters_take_the_autodiff_setting_of_the_device_that_they_move_to() {
        struct Floats<'a>(&'a Device);
        impl ModuleMapper for Floats<'_> {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|tensor| moved(tensor, self.0))
            }
        }
        let (plain, autodiff) = (Device::flex(), Device::flex().autodiff());
        let checkpointing = autodiff.clone().gradient_checkpointing();
        for (from, to) in [
            (&autodiff, &checkpointing),
            (&checkpointing, &autodiff),
            (&autodiff, &plain),
        ] {
            let model = model(from);
            let before = floats(&model);
            assert!(is_on(&model, from) && !is_on(&model, to));
            let model = others_moved(model.map(&mut Floats(to)), to);
            assert!(is_on(&model, to) && is_on(&model, from) != to.is_autodiff());
            let expected = before.into_iter();
            let expected = expected.map(|(trains, data)| (trains && to.is_autodiff(), data));
            assert_eq!(floats(&model), expected.collect::<Vec<_>>());
            if !to.is_autodiff() {
                continue;
            }
            let mut x = Tensor::<2>::ones([1, 32], to);
            for layer in &model.layers {
                x = layer.forward(x);
            }
            let grads = x.sum().backward();
            let weights = model.layers.iter().map(|layer| layer.weight.val());
            // A quantized weight has no gradient to ask for.
            let weights = weights.filter(|weight| weight.dtype().is_float());
            let have: Vec<bool> = weights.map(|w| w.grad(&grads).is_some()).collect();
            assert_eq!(have, [true, false]);
        }
    }
}
