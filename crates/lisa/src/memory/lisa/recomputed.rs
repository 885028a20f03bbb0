//! A step of a planned run with recomputation.

use super::super::breakdown::Breakdown;
use super::super::elements::Unit;
use super::Run;

/// A step with recomputation.
impl Run<'_> {
    /// The peak within a step: at the head, at a layer, in an update, or at the embedding.
    pub(super) fn recomputed_step(&self) -> Breakdown {
        if !self.workload.in_backward {
            return self.recomputed_step_at_once();
        }
        let layers = self.layers_backward();
        let states = |count| self.activations.hidden * count as u64;
        let update = Breakdown {
            gradients: self.largest_outside(),
            temporary: self.update(),
            ..Breakdown::default()
        };
        let mut layer = self.recomputed_layer().max(self.dense_layer());
        layer.activations += states(self.workload.recompute.states_kept(layers));
        if self.activations.tied && self.elements.trainable_below {
            layer.gradients += self.largest_outside();
        }
        let mut above = self.head().max(update);
        above.activations += states(self.workload.recompute.segments(layers) + 1);
        above.max(layer).max(self.embedding())
    }

    /// The same if all gradients exist until the update.
    fn recomputed_step_at_once(&self) -> Breakdown {
        let layers = self.layers_backward();
        let states = |left| self.workload.recompute.states_kept(left) as u64;
        let layer = |done: usize| {
            let mut layer = if done < self.draw.active_layers {
                self.recomputed_layer().max(self.dense_layer())
            } else {
                self.dense_layer()
            };
            // Those of the head and of the layers above this one; a sublayer has those of its layer.
            let own = usize::from(self.workload.recompute.by_sublayer());
            layer.gradients += self.largest_outside() + self.gradients_of(done + own);
            layer.activations += states(layers - done) * self.activations.hidden;
            layer
        };
        let mut head = self.head();
        let segments = self.workload.recompute.segments(layers) as u64;
        head.activations += (segments + 1) * self.activations.hidden;
        let mut end = self.embedding();
        end.gradients += self.gradients();
        if self.elements.trainable_below {
            // It is counted already.
            end.gradients -= self.largest_outside();
        }
        end.temporary = end.temporary.max(self.update());
        let mut step = (0..layers).map(layer).fold(head.max(end), Breakdown::max);
        step.gradients += self.accumulated();
        step
    }

    /// Memory of the layers whose autodiff graph exists at the same time: at the beginning of the backward
    /// pass of an active one, or at its end, when it has all gradients.
    fn recomputed_layer(&self) -> Breakdown {
        let layers = self.elements.layers();
        let gradients = (0..layers).map(|layer| self.layer_gradients(layer)).max();
        let largest = self.elements.units.iter().map(|unit| unit.largest).max();
        let activations = self
            .activations
            .active_layer
            .saturating_sub(self.activations.input);
        let end = Breakdown {
            gradients: gradients.unwrap_or(0),
            activations,
            ..Breakdown::default()
        };
        let begin = Breakdown {
            gradients: largest.unwrap_or(0) * self.workload.element(),
            activations: activations.saturating_sub(self.activations.freed),
            temporary: self.activations.layer_backward,
            ..Breakdown::default()
        };
        let mut layer = end.max(begin);
        let recompute = self.workload.recompute;
        if recompute.by_sublayer() && self.activations.sublayer > 0 {
            // The gradients of the sublayer are among its activations. The input of the layer is kept for
            // its other sublayers.
            let sublayer = Breakdown {
                activations: self.activations.sublayer + self.activations.hidden,
                ..Breakdown::default()
            };
            if sublayer.total() < layer.total() {
                layer = sublayer;
            }
            return layer;
        }
        let others = recompute.layers_recorded().min(layers).saturating_sub(1);
        layer.activations += others as u64 * self.activations.frozen_layer;
        layer
    }

    /// Gradients of a layer, if as many of its parts as possible are active.
    fn layer_gradients(&self, layer: usize) -> u64 {
        let parts = || {
            let units = self.elements.units.iter();
            units
                .filter(|unit| unit.layer == layer)
                .take(self.draw.active.len())
        };
        let trainable: u64 = parts().map(|unit| unit.trainable).sum();
        let largest = parts().map(|unit| unit.largest).max().unwrap_or(0);
        let extra_copies = self.workload.copies() - 1;
        (trainable + largest * extra_copies) * self.workload.element()
    }

    /// A frozen layer with its activations. A quantized layer is dequantized while it runs.
    fn dense_layer(&self) -> Breakdown {
        let matrices = |layer: usize| -> u64 {
            let frozen = self.draw.frozen.iter();
            let of_layer = frozen.filter(|unit: &&Unit| unit.layer == layer);
            of_layer.map(|unit| unit.matrices).sum()
        };
        let layers = 0..self.elements.layers();
        let dense = layers.map(matrices).max().unwrap_or(0);
        Breakdown {
            activations: self
                .activations
                .frozen_layer
                .saturating_sub(self.activations.input),
            temporary: dense * self.workload.element() + self.activations.layer_backward,
            ..Breakdown::default()
        }
    }

    /// The gradient of the embedding and its update.
    fn embedding(&self) -> Breakdown {
        if !self.elements.trainable_below {
            return Breakdown::default();
        }
        let tied = if self.activations.head > 0 {
            0
        } else {
            self.tied_gradient()
        };
        Breakdown {
            gradients: self.largest_outside() * self.outside_copies() + tied,
            temporary: self.update().max(self.embedding_rows()),
            ..Breakdown::default()
        }
    }
}
