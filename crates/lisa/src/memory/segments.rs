//! The segments of a recomputed stack, as a plan counts them.

use std::ops::Range;

use crate::recompute::Recompute;

/// Layers whose autodiff graph exists at the same time, and what is in memory then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// The layers that the backward pass goes through.
    pub(super) layers: Range<usize>,
    /// Hidden states in memory during the backward pass of the segment, with the gradient of its output.
    pub(super) states: usize,
}

/// The segments of a stack.
pub(super) struct Segments {
    /// From the last one, which runs backward first, to the lowest one that the backward pass reaches.
    pub(super) all: Vec<Segment>,
    /// Hidden states in memory at the head.
    pub(super) states_at_head: usize,
    /// Whether the graph of the last segment is kept from the forward pass, so that it exists at the head.
    keeps_last: bool,
}

impl Segments {
    /// The segments of `layers` layers, of which the backward pass reaches those from `lowest` on.
    pub(super) fn of(plan: Recompute, lowest: usize, layers: usize) -> Self {
        let recorded = plan.layers_recorded().max(1);
        let starts = (0..layers).step_by(recorded);
        let ranges = starts.map(|first| first.max(lowest)..(first + recorded).min(layers));
        let mut all: Vec<Segment> = ranges
            .filter(|layers| !layers.is_empty())
            .enumerate()
            .map(|(below, layers)| Segment {
                states: if plan.by_sublayer() {
                    plan.states_kept(layers.end - lowest)
                } else {
                    // The inputs of this segment and of those below it, and a gradient.
                    below + 2
                },
                layers,
            })
            .collect();
        all.reverse();
        let inputs = if plan.by_sublayer() {
            plan.segments(layers.saturating_sub(lowest))
        } else {
            all.len()
        };
        Self {
            all,
            states_at_head: inputs + 1,
            keeps_last: recorded > 1,
        }
    }

    /// The last segment, if its graph exists at the head.
    pub(super) fn at_head(&self) -> Option<&Segment> {
        self.all.first().filter(|_| self.keeps_last)
    }

    /// The most hidden states in memory during the backward pass of a segment.
    pub(super) fn most_states(&self) -> usize {
        self.all.first().map_or(0, |segment| segment.states)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layers and the hidden states of each segment, and the hidden states at the head.
    fn found(plan: Recompute, lowest: usize, layers: usize) -> (Vec<(Range<usize>, usize)>, usize) {
        let found = Segments::of(plan, lowest, layers);
        let all = found.all.iter();
        let all = all.map(|segment| (segment.layers.clone(), segment.states));
        (all.collect(), found.states_at_head)
    }

    #[test]
    fn segments_are_counted_from_the_first_layer_and_run_backward_from_the_last() {
        let every = |n| Recompute::new().with_every(n);
        assert_eq!(
            found(every(1), 0, 3),
            (vec![(2..3, 4), (1..2, 3), (0..1, 2)], 4)
        );
        assert_eq!(
            found(every(3), 0, 8),
            (vec![(6..8, 4), (3..6, 3), (0..3, 2)], 4)
        );
        // The backward pass ends within a segment.
        assert_eq!(found(every(3), 5, 8), (vec![(6..8, 3), (5..6, 2)], 3));
        assert_eq!(found(every(8), 0, 8), (vec![(0..8, 2)], 2));
        assert_eq!(found(every(100), 2, 8), (vec![(2..8, 2)], 2));
        assert_eq!(found(every(1), 8, 8), (vec![], 1));
        // By sublayer, the inputs of the segments and of the layers of one segment.
        let (of_layers, at_head) = found(every(3).with_sublayers(), 0, 8);
        assert_eq!(
            (of_layers.len(), &of_layers[0], at_head),
            (8, &(7..8, 6), 4)
        );
    }

    #[test]
    fn only_segments_of_several_layers_exist_at_the_head() {
        let at_head = |plan| Segments::of(plan, 0, 8).at_head().map(|s| s.layers.clone());
        assert_eq!(at_head(Recompute::new()), None);
        assert_eq!(at_head(Recompute::new().with_every(3)), Some(6..8));
        assert_eq!(
            at_head(Recompute::new().with_every(3).with_sublayers()),
            None
        );
    }
}
