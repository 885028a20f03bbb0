//! Clipping by the global norm of all gradients, which Burn does not have, and the search for
//! gradients that are NaN or infinite.
//!
//! Burn clips each tensor separately. Here, as in PyTorch's `clip_grad_norm_`, there is one norm
//! over all tensors and one factor `max_norm / (norm + 1e-6)`, at most 1. Clipping does not wait
//! for the device. Tests: `lisa/tests.rs`, and against PyTorch in the workspace's `tests`.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, FloatDType, Tensor};

use crate::gradients::Gradients;
use crate::slicing::slices_of;
use crate::squares::{Sum, sum_of, sum_of_squares, wide};
use crate::visit::{FloatVisitor, ModulePath, visit_floats};

/// Scales all gradients of `module` so that their common L2 norm is at most `max_norm`.
pub(crate) fn clip<M: Module, G: Gradients>(module: &M, grads: &mut G, max_norm: f64) {
    let mut squares = Squares {
        grads,
        sum: Sum::default(),
    };
    module.visit(&mut squares);
    if let Some(sum) = squares.sum.total() {
        let factor = sum.sqrt().add_scalar(1e-6).recip().mul_scalar(max_norm);
        let factor = factor.clamp_max(1.0);
        module.visit(&mut Scale { grads, factor });
    }
}

struct Squares<'a, G> {
    grads: &'a mut G,
    sum: Sum,
}

impl<G: Gradients> ModuleVisitor for Squares<'_, G> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.sum.add(sum_of_squares(grad));
        }
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
        let factor = self.factor.clone().to_device(&device).unsqueeze();
        self.grads.put(param.id, scaled(grad, factor), &device);
    }
}

/// The product of a gradient with a factor in f32, in the dtype of the gradient. Half precision is
/// multiplied in slices, because its f32 copy is larger than the gradient.
fn scaled<const D: usize>(mut grad: Tensor<D>, factor: Tensor<D>) -> Tensor<D> {
    let dtype = grad.dtype();
    if !matches!(dtype, DType::F16 | DType::BF16) {
        return grad.mul(factor);
    }
    for rows in slices_of(&grad) {
        let part = grad.clone().slice_dim(0, rows.clone());
        let part = wide(part).mul(factor.clone()).cast(dtype);
        let mut ranges = grad.dims().map(|size| 0..size);
        ranges[0] = rows;
        grad = grad.slice_assign(ranges, part);
    }
    grad
}

/// The paths of the trainable parameters whose gradient has a NaN or an infinite element. Waits for
/// the device, only once if all gradients are finite.
pub(crate) fn not_finite<M: Module>(
    module: &M,
    grads: &GradientsParams,
    trains: impl Fn(ParamId) -> bool,
) -> Vec<String> {
    struct Found<'a, F>(&'a GradientsParams, F);
    impl<F: Fn(ParamId) -> bool> Found<'_, F> {
        fn of<const D: usize>(&self, param: &Param<Tensor<D>>) -> Option<Tensor<D>> {
            self.0.get(param.id).filter(|_| self.1(param.id))
        }
    }
    struct All<'a, F>(Found<'a, F>, Sum);
    impl<F: Fn(ParamId) -> bool> ModuleVisitor for All<'_, F> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.0.of(param) {
                self.1.add(zero(&grad));
            }
        }
    }
    struct Each<'a, F>(Found<'a, F>, Vec<String>);
    impl<F: Fn(ParamId) -> bool> FloatVisitor for Each<'_, F> {
        fn visit_float<const D: usize>(&mut self, path: &ModulePath, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.0.of(param)
                && zero(&grad).into_scalar::<f32>().is_nan()
            {
                self.1.push(path.to_string());
            }
        }
    }
    let mut all = All(Found(grads, &trains), Sum::default());
    module.visit(&mut all);
    let sum = all.1.total();
    if sum.is_none_or(|sum| !sum.into_scalar::<f32>().is_nan()) {
        return Vec::new();
    }
    let mut each = Each(Found(grads, &trains), Vec::new());
    visit_floats(module, &mut each);
    each.1
}

/// 0 if all elements are finite, else NaN: zero times NaN or infinity is NaN.
fn zero<const D: usize>(grad: &Tensor<D>) -> Tensor<1> {
    sum_of(grad, |slice| {
        slice.cast(FloatDType::F32).mul_scalar(0.0).sum()
    })
}
