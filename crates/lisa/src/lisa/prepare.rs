//! What happens to gradients before the optimizer's step: those of frozen parameters are dropped,
//! the rest is measured for the policy, scaled and clipped. Nothing waits for the device. Tests:
//! `lisa/tests.rs`, `lisa/tests/policies.rs`, `lisa/tests/unbiased.rs`.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{FloatDType, Tensor};

use super::Lisa;
use crate::LayerMap;
use crate::clip::{self, Gradients, wide};

/// By layer: the sum of squares of its gradient.
pub(super) type Squares = BTreeMap<usize, Tensor<1>>;

/// What a step begins with.
#[derive(Default)]
pub(super) struct Ready {
    /// Indices of the parameters that will be stepped.
    pub(super) trained: Vec<usize>,
    /// Of the layers that train, where the policy observes gradients.
    pub(super) squares: Squares,
}

impl Ready {
    /// Takes in another part of the same step.
    pub(super) fn extend(&mut self, part: Self) {
        self.trained.extend(part.trained);
        for (layer, square) in part.squares {
            add(&mut self.squares, layer, square);
        }
    }
}

impl Lisa {
    /// Drops gradients of frozen parameters, measures, scales and clips the rest, and lists what
    /// will be stepped.
    pub(super) fn prepare<M: Module, G: Gradients>(&self, model: &M, grads: &mut G) -> Ready {
        let mut filter = Filter {
            lisa: self,
            grads,
            trained: Vec::new(),
        };
        model.visit(&mut filter);
        let trained = filter.trained;
        let mut squares = Squares::new();
        if self.observed.wants() {
            model.visit(&mut Measure {
                map: &self.map,
                grads,
                squares: &mut squares,
            });
        }
        if !self.inclusion.is_empty() {
            model.visit(&mut Unbias {
                map: &self.map,
                grads,
                inclusion: &self.inclusion,
            });
        }
        if let Some(max_norm) = self.config.max_grad_norm {
            clip::clip(model, grads, max_norm);
        }
        Ready { trained, squares }
    }
}

struct Filter<'a, G> {
    lisa: &'a Lisa,
    grads: &'a mut G,
    trained: Vec<usize>,
}

impl<G: Gradients> ModuleVisitor for Filter<'_, G> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let index = self.lisa.map.index_of(param.id);
        match index.filter(|&i| self.lisa.trains(i)) {
            None => drop(self.grads.take::<D>(param.id)),
            Some(i) if self.grads.has::<D>(param.id) => self.trained.push(i),
            Some(_) => {}
        }
    }
}

/// Sums the squares of what is left of the gradients, layer by layer.
struct Measure<'a, G> {
    map: &'a LayerMap,
    grads: &'a mut G,
    squares: &'a mut Squares,
}

impl<G: Gradients> ModuleVisitor for Measure<'_, G> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(layer) = layer_of(self.map, param) else {
            return;
        };
        if let Some((grad, device)) = self.grads.take::<D>(param.id) {
            self.grads.put(param.id, grad.clone(), &device);
            let square = wide(grad).square().sum().cast(FloatDType::F32);
            add(self.squares, layer, square);
        }
    }
}

/// Divides the gradients of each layer by its probability.
struct Unbias<'a, G> {
    map: &'a LayerMap,
    grads: &'a mut G,
    inclusion: &'a [f64],
}

impl<G: Gradients> ModuleVisitor for Unbias<'_, G> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let p = layer_of(self.map, param).map_or(1.0, |layer| self.inclusion[layer]);
        // Without a change where the layer is drawn always.
        if p >= 1.0 {
            return;
        }
        if let Some((grad, device)) = self.grads.take::<D>(param.id) {
            self.grads.put(param.id, grad.mul_scalar(1.0 / p), &device);
        }
    }
}

fn layer_of<const D: usize>(map: &LayerMap, param: &Param<Tensor<D>>) -> Option<usize> {
    map.index_of(param.id).and_then(|i| map.layer_of(i))
}

fn add(squares: &mut Squares, layer: usize, square: Tensor<1>) {
    let sum = match squares.remove(&layer) {
        Some(sum) => {
            let square = square.to_device(&sum.device());
            sum + square
        }
        None => square,
    };
    squares.insert(layer, sum);
}
