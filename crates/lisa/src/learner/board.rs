//! [`Board`]: values of the last step, for the metrics. burn-train computes metrics in a thread of
//! its own, so the steps write values here and the metrics read them.

use std::sync::{Arc, Mutex, PoisonError};

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use crate::Lisa;
use crate::gradients::{LayerSquares, measure};

/// Values of the last step. They are for display only: the sampling does not depend on them.
#[derive(Clone, Debug, Default)]
pub(super) struct Board(Arc<Mutex<Values>>);

#[derive(Debug, Default)]
struct Values {
    active: Vec<usize>,
    trainable: usize,
    optimizer_state: u64,
    /// Whether a metric shows gradient norms.
    wants_norms: bool,
    /// The squares of the gradients of one step, over all devices.
    squares: LayerSquares,
}

impl Board {
    fn with<T>(&self, f: impl FnOnce(&mut Values) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Copies the current values of a run.
    pub(super) fn show(&self, lisa: &Lisa) {
        let (outside, active) = lisa.trainable_elements();
        let optimizer_state = lisa.memory().optimizer_state;
        self.with(|values| {
            values.active = lisa.active_layers().to_vec();
            values.trainable = outside + active;
            values.optimizer_state = optimizer_state;
        });
    }

    /// From now on, steps measure gradient norms.
    pub(super) fn want_norms(&self) {
        self.with(|values| values.wants_norms = true);
    }

    /// Measures the gradients of a step, of one or several devices, if a metric wants it. Does not
    /// wait for the device. Workers that step with the same summed gradients measure the same.
    pub(super) fn measure<'a, M: Module>(
        &self,
        lisa: &Lisa,
        model: &M,
        grads: impl Iterator<Item = &'a mut GradientsParams>,
    ) {
        if !self.with(|values| values.wants_norms) {
            return;
        }
        let mut squares = LayerSquares::default();
        for grads in grads {
            squares.merge(measure(model, grads, lisa.layers()));
        }
        self.with(|values| values.squares = squares);
    }

    pub(super) fn active(&self) -> Vec<usize> {
        self.with(|values| values.active.clone())
    }

    pub(super) fn trainable(&self) -> usize {
        self.with(|values| values.trainable)
    }

    pub(super) fn optimizer_state(&self) -> u64 {
        self.with(|values| values.optimizer_state)
    }

    /// The sum of squares of a layer's gradient; `None` if the layer had no gradient.
    pub(super) fn squares(&self, layer: usize) -> Option<Tensor<1>> {
        let mut sums = self.with(|values| values.squares.clone()).into_sums();
        sums.find_map(|(of, sum)| (of == layer).then_some(sum))
    }
}
