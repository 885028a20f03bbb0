//! Clipping by the global norm of all gradients that train, which Burn does not have.
//!
//! Burn clips each tensor by itself. This is PyTorch's `clip_grad_norm_`: one norm over all of
//! them, and one factor `max_norm / (norm + 1e-6)`, at most 1. Nothing waits for the device.
//! Tests: `lisa.rs` (against PyTorch: the workspace's `tests`).

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsParams, MultiGradientsParams};
use burn::tensor::{DType, Device, FloatDType, Tensor};

/// Gradients by parameter, from one device or from several.
pub(crate) trait Gradients {
    fn take<const D: usize>(&mut self, id: ParamId) -> Option<(Tensor<D>, Device)>;
    fn put<const D: usize>(&mut self, id: ParamId, grad: Tensor<D>, device: &Device);
    fn has<const D: usize>(&self, id: ParamId) -> bool;
}

impl Gradients for GradientsParams {
    fn take<const D: usize>(&mut self, id: ParamId) -> Option<(Tensor<D>, Device)> {
        let grad = self.remove::<D>(id)?;
        let device = grad.device();
        Some((grad, device))
    }

    fn put<const D: usize>(&mut self, id: ParamId, grad: Tensor<D>, _device: &Device) {
        self.register(id, grad);
    }

    fn has<const D: usize>(&self, id: ParamId) -> bool {
        self.get::<D>(id).is_some()
    }
}

impl Gradients for MultiGradientsParams {
    /// The sum of what all devices have, on the device that Burn updates the parameter on.
    fn take<const D: usize>(&mut self, id: ParamId) -> Option<(Tensor<D>, Device)> {
        self.remove::<D>(id)
    }

    fn put<const D: usize>(&mut self, id: ParamId, grad: Tensor<D>, device: &Device) {
        if let Some((grads, _)) = self.grads.iter_mut().find(|(_, d)| d == device) {
            grads.register(id, grad);
        } else {
            let mut grads = GradientsParams::new();
            grads.register(id, grad);
            self.grads.push((grads, device.clone()));
        }
    }

    fn has<const D: usize>(&self, id: ParamId) -> bool {
        self.grads
            .iter()
            .any(|(grads, _)| grads.get::<D>(id).is_some())
    }
}

/// Scales all gradients of `module` so that their common L2 norm is at most `max_norm`.
pub(crate) fn clip<M: Module, G: Gradients>(module: &M, grads: &mut G, max_norm: f64) {
    let mut squares = Squares { grads, sum: None };
    module.visit(&mut squares);
    if let Some(sum) = squares.sum {
        let factor = sum.sqrt().add_scalar(1e-6).recip().mul_scalar(max_norm);
        let factor = factor.clamp_max(1.0);
        module.visit(&mut Scale { grads, factor });
    }
}

struct Squares<'a, G> {
    grads: &'a mut G,
    sum: Option<Tensor<1>>,
}

impl<G: Gradients> ModuleVisitor for Squares<'_, G> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some((grad, device)) = self.grads.take::<D>(param.id) else {
            return;
        };
        self.grads.put(param.id, grad.clone(), &device);
        let square = wide(grad).square().sum();
        self.sum = Some(match self.sum.take() {
            Some(sum) => {
                let square = square.to_device(&sum.device());
                sum + square
            }
            None => square,
        });
    }
}

struct Scale<'a, G> {
    grads: &'a mut G,
    factor: Tensor<1>,
}

impl<G: Gradients> ModuleVisitor for Scale<'_, G> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some((grad, device)) = self.grads.take::<D>(param.id) else {
            return;
        };
        let dtype = grad.dtype();
        let factor = self.factor.clone().to_device(&device).unsqueeze();
        let grad = wide(grad).mul(factor);
        let grad = if grad.dtype() == dtype {
            grad
        } else {
            grad.cast(dtype)
        };
        self.grads.put(param.id, grad, &device);
    }
}

/// Half precision as f32: a sum of squares overflows f16 and is too coarse in bf16.
pub(crate) fn wide<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 => tensor.cast(FloatDType::F32),
        _ => tensor,
    }
}

/// The paths of parameters whose gradient holds a NaN or an infinity.
pub(crate) fn not_finite<M: Module>(module: &M, grads: &GradientsParams) -> Vec<String> {
    struct Sum<'a>(&'a GradientsParams, Option<Tensor<1>>);
    impl ModuleVisitor for Sum<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.0.get::<D>(param.id) {
                // Finite times zero is zero; what is not finite stays NaN.
                let zero = grad.cast(FloatDType::F32).mul_scalar(0.0).sum();
                self.1 = Some(match self.1.take() {
                    Some(sum) => {
                        let device = sum.device();
                        sum + zero.to_device(&device)
                    }
                    None => zero,
                });
            }
        }
    }
    struct Find<'a>(&'a GradientsParams, Vec<String>, Vec<String>);
    impl ModuleVisitor for Find<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.1.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.1.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let Some(grad) = self.0.get::<D>(param.id) else {
                return;
            };
            let zero = grad.cast(FloatDType::F32).mul_scalar(0.0).sum();
            if zero.into_scalar::<f32>().is_nan() {
                self.2.push(self.1.join("."));
            }
        }
    }
    let mut sum = Sum(grads, None);
    module.visit(&mut sum);
    let finite = sum.1.is_none_or(|sum| !sum.into_scalar::<f32>().is_nan());
    if finite {
        return Vec::new();
    }
    let mut find = Find(grads, Vec::new(), Vec::new());
    module.visit(&mut find);
    find.2
}
