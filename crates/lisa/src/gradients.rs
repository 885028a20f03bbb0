//! Gradients before the optimizer's step, from one device or from several: gradients of frozen
//! parameters are dropped, the others are measured and scaled layer by layer. Nothing here waits
//! for the device.

use std::collections::BTreeMap;

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams};
use burn::tensor::{Device, FloatDType, Tensor};

use crate::LayerMap;
use crate::squares::{Sum, sum_of_squares};

/// Gradients by parameter.
pub(crate) trait Gradients: Sized {
    /// Removes a gradient, and returns it with the device that the parameter is updated on.
    fn take<const D: usize>(&mut self, id: ParamId) -> Option<(Tensor<D>, Device)>;

    /// Puts a gradient back.
    fn put<const D: usize>(&mut self, id: ParamId, grad: Tensor<D>, device: &Device);

    /// Whether this parameter has a gradient.
    fn has<const D: usize>(&self, id: ParamId) -> bool;

    /// Burn's step for gradients of this kind.
    fn step<M: Module>(
        self,
        optimizer: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        model: M,
    ) -> M;

    /// A copy of a gradient; its data is shared.
    fn get<const D: usize>(&mut self, id: ParamId) -> Option<Tensor<D>> {
        let (grad, device) = self.take::<D>(id)?;
        self.put(id, grad.clone(), &device);
        Some(grad)
    }
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
        GradientsParams::get::<D>(self, id).is_some()
    }

    fn step<M: Module>(
        self,
        optimizer: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        model: M,
    ) -> M {
        optimizer.step(lr, model, self)
    }
}

impl Gradients for MultiGradientsParams {
    /// The sum over all devices, on the device that Burn updates the parameter on.
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

    fn step<M: Module>(
        self,
        optimizer: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        model: M,
    ) -> M {
        optimizer.step_multi(lr, model, self)
    }
}

/// Drops the gradients of all parameters for which `index` returns `None`. Returns the indices of
/// the parameters that still have a gradient, in the order of the module.
pub(crate) fn retain<M: Module, G: Gradients>(
    model: &M,
    grads: &mut G,
    index: impl Fn(ParamId) -> Option<usize>,
) -> Vec<usize> {
    struct Retain<'a, G, F> {
        grads: &'a mut G,
        index: F,
        left: Vec<usize>,
    }
    impl<G: Gradients, F: Fn(ParamId) -> Option<usize>> ModuleVisitor for Retain<'_, G, F> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            match (self.index)(param.id) {
                None => drop(self.grads.take::<D>(param.id)),
                Some(i) if self.grads.has::<D>(param.id) => self.left.push(i),
                Some(_) => {}
            }
        }
    }
    let mut retain = Retain {
        grads,
        index,
        left: Vec::new(),
    };
    model.visit(&mut retain);
    retain.left
}

/// For each layer, the sum of the squares of its gradient, in f32.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerSquares(BTreeMap<usize, Sum>);

impl LayerSquares {
    /// Adds to the sum of a layer.
    pub(crate) fn add(&mut self, layer: usize, square: Tensor<1>) {
        self.0.entry(layer).or_default().add(square);
    }

    /// Adds the sums of another part of the same gradients.
    pub(crate) fn merge(&mut self, part: Self) {
        for (layer, square) in part.into_sums() {
            self.add(layer, square);
        }
    }

    /// The sums, by layer.
    pub(crate) fn into_sums(self) -> impl Iterator<Item = (usize, Tensor<1>)> {
        let sums = self.0.into_iter();
        sums.filter_map(|(layer, sum)| Some((layer, sum.total()?)))
    }
}

/// Measures the gradient of each layer.
pub(crate) fn measure<M: Module, G: Gradients>(
    model: &M,
    grads: &mut G,
    map: &LayerMap,
) -> LayerSquares {
    struct Measure<'a, G> {
        map: &'a LayerMap,
        grads: &'a mut G,
        squares: LayerSquares,
    }
    impl<G: Gradients> ModuleVisitor for Measure<'_, G> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let Some(layer) = self.map.layer_of_id(param.id) else {
                return;
            };
            if let Some(grad) = self.grads.get::<D>(param.id) {
                let square = sum_of_squares(grad).cast(FloatDType::F32);
                self.squares.add(layer, square);
            }
        }
    }
    let mut measure = Measure {
        map,
        grads,
        squares: LayerSquares::default(),
    };
    model.visit(&mut measure);
    measure.squares
}

/// Divides the gradient of each layer by the probability with which it was sampled.
pub(crate) fn divide<M: Module, G: Gradients>(
    model: &M,
    grads: &mut G,
    map: &LayerMap,
    inclusion: &[f64],
) {
    struct Divide<'a, G> {
        map: &'a LayerMap,
        grads: &'a mut G,
        inclusion: &'a [f64],
    }
    impl<G: Gradients> ModuleVisitor for Divide<'_, G> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let layer = self.map.layer_of_id(param.id);
            let p = layer.map_or(1.0, |layer| self.inclusion[layer]);
            // The gradient does not change if the layer is always sampled.
            if p >= 1.0 {
                return;
            }
            if let Some((grad, device)) = self.grads.take::<D>(param.id) {
                self.grads.put(param.id, grad.mul_scalar(1.0 / p), &device);
            }
        }
    }
    model.visit(&mut Divide {
        map,
        grads,
        inclusion,
    });
}
