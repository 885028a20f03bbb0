//! Takes gradients off an autodiff graph, hands them over, and adds them up.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Gradients, Tensor};

/// Takes the gradients of the model's parameters from a graph, frees all other gradients, and hands
/// those of the parameters over, if there are any.
pub(super) fn hand_over<M: Module>(
    model: M,
    mut grads: Gradients,
    take: &mut impl FnMut(M, GradientsParams) -> M,
) -> M {
    let found = GradientsParams::from_module(&mut grads, &model);
    drop(grads);
    if found.is_empty() {
        model
    } else {
        take(model, found)
    }
}

/// Adds the gradients of a backward pass to `sum`.
pub(super) fn add_graph<M: Module>(model: &M, sum: &mut GradientsParams, grads: &mut Gradients) {
    let mut found = GradientsParams::from_module(grads, model);
    if sum.is_empty() {
        *sum = found;
    } else {
        add(model, sum, &mut found);
    }
}

/// Moves all gradients out of `grads` and adds them to `sum`.
pub(super) fn add<M: Module>(model: &M, sum: &mut GradientsParams, grads: &mut GradientsParams) {
    struct Add<'a>(&'a mut GradientsParams, &'a mut GradientsParams);
    impl ModuleVisitor for Add<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.1.remove::<D>(param.id) {
                add_one(self.0, param.id, grad);
            }
        }
    }
    model.visit(&mut Add(sum, grads));
}

/// Adds the gradient of one parameter to `sum`.
pub(super) fn add_one<const D: usize>(sum: &mut GradientsParams, id: ParamId, grad: Tensor<D>) {
    let grad = match sum.remove::<D>(id) {
        Some(before) => before + grad,
        None => grad,
    };
    sum.register(id, grad);
}
