//! A step of a planned run with recomputation.

use super::super::breakdown::Breakdown;
use super::super::segments::{Segment, Segments};
use super::Run;

/// How many active layers are in a segment, and how many in the segments that run backward before it.
struct Placement {
    active: usize,
    before: usize,
}

/// A step with recomputation.
impl Run<'_> {
    /// The peak within a step: at the head, in the backward pass of a segment, in an update, or at the
    /// embedding.
    pub(super) fn recomputed_step(&self) -> Breakdown {
        let segments = self.segments();
        let hidden = self.activations.hidden;
        let at_once = !self.workload.in_backward;
        let mut above = self.head();
        let mut end = self.embedding();
        if at_once {
            end.gradients += self.gradients();
            if self.elements.trainable_below {
                // It is counted already.
                end.gradients -= self.largest_outside();
            }
            end.temporary = end.temporary.max(self.update());
        } else {
            above = above.max(Breakdown {
                gradients: self.largest_outside(),
                temporary: self.update(),
                ..Breakdown::default()
            });
        }
        if let Some(last) = segments.at_head() {
            let kept = self.placements(last).map(|placement| {
                let graph = self.recorded(last.layers.len(), placement.active);
                Breakdown {
                    activations: above.activations + graph.activations,
                    temporary: above.temporary + graph.temporary,
                    ..above
                }
            });
            above = kept.into_iter().fold(above, Breakdown::max);
        }
        above.activations += segments.states_at_head as u64 * hidden;
        // The gradient of the head, if it exists until the end.
        let of_head = if at_once || (self.activations.tied && self.elements.trainable_below) {
            self.largest_outside()
        } else {
            0
        };
        let own = usize::from(self.workload.recompute.by_sublayer());
        let steps = segments.all.iter().flat_map(|segment| {
            self.placements(segment).map(|placement| {
                let mut step = self.segment(segment.layers.len(), placement.active);
                step.activations += segment.states as u64 * hidden;
                step.gradients += of_head;
                if at_once {
                    // A sublayer has the gradients of its layer, too.
                    step.gradients += self.gradients_of(placement.before + own);
                }
                step
            })
        });
        let mut step = steps.fold(above.max(end), Breakdown::max);
        if at_once {
            step.gradients += self.accumulated();
        }
        step
    }

    fn segments(&self) -> Segments {
        let layers = self.elements.layers();
        let lowest = layers - self.layers_backward();
        Segments::of(self.workload.recompute, lowest, layers)
    }

    /// The samples that may need the most memory in a segment: those with the most and the fewest active
    /// layers in it. With the fewest, as many frozen layers as possible are dequantized.
    fn placements(&self, segment: &Segment) -> [Placement; 2] {
        let (layers, active) = (self.elements.layers(), self.draw.active_layers);
        let (here, above) = (segment.layers.len(), layers - segment.layers.end);
        let below = self.layers_backward() - here - above;
        let most = here.min(active);
        let before = above.min(active);
        [
            Placement {
                active: most,
                before: above.min(active - most),
            },
            Placement {
                active: (active - before).saturating_sub(below).min(here),
                before,
            },
        ]
    }

    /// The most memory of a segment in its backward pass, with these counts of all and of active layers: at
    /// the beginning of the backward pass of an active layer, at its end, when it has all gradients, or at a
    /// frozen layer. The active layers are the last ones, which run backward first.
    fn segment(&self, layers: usize, active: usize) -> Breakdown {
        let largest = self.elements.units.iter().map(|unit| unit.largest).max();
        let largest = largest.unwrap_or(0) * self.workload.element();
        let begin = |graph: Breakdown, done: usize| Breakdown {
            temporary: graph.temporary + self.activations.layer_backward,
            gradients: self.layer_gradients(done),
            ..graph
        };
        let steps = (0..layers).map(|done| {
            let graph = self.recorded(layers - done, active.saturating_sub(done));
            if done >= active {
                return begin(graph, active);
            }
            let mut begin = begin(graph, done);
            begin.gradients += largest;
            begin.activations = begin.activations.saturating_sub(self.activations.freed);
            begin.max(Breakdown {
                gradients: self.layer_gradients(done + 1) + largest * (self.workload.copies() - 1),
                ..graph
            })
        });
        let segment = steps.fold(Breakdown::default(), Breakdown::max);
        if active > 0 && self.workload.recompute.by_sublayer() && self.activations.sublayer > 0 {
            // The gradients of the sublayer are among its activations. The input of the layer is kept for
            // its other sublayers.
            let sublayer = Breakdown {
                activations: self.activations.sublayer + self.activations.hidden,
                ..Breakdown::default()
            };
            if sublayer.total() < segment.total() {
                return sublayer;
            }
        }
        segment
    }

    /// What the autodiff graph of a segment keeps, without the input of the first layer: activations, and
    /// the dequantized weights of frozen layers. The counts are those of all and of active layers.
    fn recorded(&self, layers: usize, active: usize) -> Breakdown {
        let frozen = layers - active;
        let activations = &self.activations;
        let kept =
            activations.active_layer * active as u64 + activations.frozen_layer * frozen as u64;
        Breakdown {
            activations: kept.saturating_sub(activations.input),
            temporary: self.dense(frozen, active),
            ..Breakdown::default()
        }
    }

    /// The gradients of the `layers` largest layers, if as many of their parts as possible are active.
    fn layer_gradients(&self, layers: usize) -> u64 {
        let largest = self.largest.trainable.largest(layers);
        largest.min(self.draw.trainable()) * self.workload.element()
    }

    /// The dequantized weights of the `frozen` largest layers, and of the frozen parts of `active` layers.
    fn dense(&self, frozen: usize, active: usize) -> u64 {
        let of_active = self.largest.quantized_in_active.largest(active);
        let elements = self.largest.quantized.largest(frozen) + of_active;
        elements * self.workload.element()
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
