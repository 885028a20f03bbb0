//! [`Stack`]: runs the layers of a model, with the context of one batch.

use std::ops::Range;

use burn::module::{ModuleVisitor, Param};
use burn::tensor::Tensor;

use super::cuts::Cuts;
use super::model::LayeredModel;
use super::plan::Recompute;
use crate::visit::requires_gradients;

/// The layers of a model in one forward and backward pass.
pub(super) struct Stack<M: LayeredModel> {
    plan: Recompute,
    layers: usize,
    context: M::Context,
}

impl<M: LayeredModel> Stack<M> {
    pub(super) fn new(plan: Recompute, model: &M, batch: &M::Batch) -> Self {
        Self {
            plan,
            layers: model.num_layers(),
            context: model.context(batch),
        }
    }

    pub(super) fn plan(&self) -> Recompute {
        self.plan
    }

    pub(super) fn context(&self) -> &M::Context {
        &self.context
    }

    pub(super) fn segments(&self) -> usize {
        self.plan.segments(self.layers)
    }

    pub(super) fn recomputed_segments(&self) -> usize {
        self.plan.recomputed_segments(self.layers)
    }

    pub(super) fn layers_of(&self, segment: usize) -> Range<usize> {
        self.plan.layers_of(segment, self.layers)
    }

    /// For each segment, and for the head: whether something before it is trainable.
    pub(super) fn trainable_before(&self, model: &M, embedding: bool) -> Vec<bool> {
        let mut before = vec![embedding];
        for segment in 0..self.segments() {
            let trainable = |layer| is_trainable(model, layer);
            before.push(before[segment] || self.layers_of(segment).any(trainable));
        }
        before
    }

    /// The output of a segment, given its input.
    pub(super) fn run_segment(&self, model: &M, segment: usize, h: Tensor<3>) -> Tensor<3> {
        let layers = self.layers_of(segment);
        if self.plan.by_sublayer() {
            return layers.fold(h, |h, layer| self.run_layer(model, layer, h));
        }
        self.plan.seed(&h.device(), segment);
        layers.fold(h, |h, layer| model.layer(layer, h, &self.context))
    }

    /// The output of a layer, sublayer by sublayer on one graph.
    pub(super) fn run_layer(&self, model: &M, layer: usize, h: Tensor<3>) -> Tensor<3> {
        (0..model.sublayers()).fold(h, |h, sublayer| {
            self.run_sublayer(model, (layer, sublayer), h, &mut Cuts::none())
        })
    }

    /// The output of a sublayer, which is given by its layer and its index.
    pub(super) fn run_sublayer(
        &self,
        model: &M,
        (layer, sublayer): (usize, usize),
        h: Tensor<3>,
        cuts: &mut Cuts,
    ) -> Tensor<3> {
        let index = layer * model.sublayers() + sublayer;
        self.plan.seed(&h.device(), index);
        model.sublayer(layer, sublayer, h, &self.context, cuts)
    }
}

/// Whether a layer has a trainable parameter.
pub(super) fn is_trainable<M: LayeredModel>(model: &M, layer: usize) -> bool {
    struct Trainable(bool);
    impl ModuleVisitor for Trainable {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= requires_gradients(param);
        }
    }
    let mut trainable = Trainable(false);
    model.visit_layer(layer, &mut trainable);
    trainable.0
}
