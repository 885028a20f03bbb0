//! [`MemoryPlan::lora`]: the arithmetic of a LoRA run.

use super::activations::{Activations, Footprint};
use super::adapters::{Adapters, LayerAdapters};
use super::breakdown::Breakdown;
use super::lisa::LOSS_STATES;
use super::plan::MemoryPlan;
use super::workload::Workload;
use crate::{LayerMap, LisaError};

impl MemoryPlan {
    /// Plans LoRA with these adapters on a model without adapters.
    ///
    /// Adapters, their gradients and their moments have the dtype of the weights if they are merged.
    /// Otherwise, they are at least f32, and are cast to the dtype of the weights for the matmul.
    /// Layers below the lowest adapter keep nothing for the backward pass.
    ///
    /// # Errors
    ///
    /// The stack of layers is not found or is ambiguous.
    pub fn lora<M: Footprint>(
        model: &M,
        adapters: &Adapters,
        workload: &Workload,
    ) -> Result<Self, LisaError> {
        let map = LayerMap::of_shapes(model, &[])?;
        let sizes = model.activations(workload);
        let all;
        let of_layers = if let Some(given) = &adapters.of_layers {
            given
        } else {
            all = on_all_matrices(&map, &sizes);
            &all
        };
        let element = workload.element();
        let run = Run {
            rank: adapters.rank as u64,
            tokens: (workload.batch * workload.sequence) as u64,
            element,
            wide: if adapters.merged {
                element
            } else {
                element.max(4)
            },
            merged: adapters.merged,
            sizes,
            of_layers,
        };
        let base: u64 = map.parameters().iter().map(|p| p.len() as u64).sum();
        let head = adapters.head.map_or(0, |shape| run.elements(&[shape]));
        let elements = head
            + of_layers
                .iter()
                .map(|l| run.elements(&l.weights))
                .sum::<u64>();
        let weights = base * element + elements * run.wide;
        let optimizer_state = 2 * elements * run.wide;
        let of_loss = sizes.head.max(adapters.head_loss);
        let loss = of_loss + LOSS_STATES * sizes.hidden;
        let at = |activations, temporary, gradients| Breakdown {
            weights,
            optimizer_state,
            gradients,
            activations: activations + sizes.logits,
            temporary: temporary + sizes.logits + sizes.workspace,
            ..Breakdown::default()
        };

        let (gradients, of_head) = (elements * run.wide, head * run.wide);
        let (backward, update) = (&of_layers[run.lowest()..], workload.update(run.largest()));
        let stored: u64 = backward.iter().map(|layer| run.kept(layer)).sum();
        let (mut left, mut done) = (stored, of_head);
        let layers = backward.iter().rev().map(|layer| {
            done += run.gradients(layer);
            let during = at(left, sizes.layer_backward + sizes.hidden, done);
            left -= run.kept(layer);
            during
        });
        let ends = at(stored, loss, of_head).max(at(0, update, gradients));
        let mut at_peak = layers.fold(ends, Breakdown::max);

        let states = |layers| workload.recompute.states_kept(layers) as u64 * sizes.hidden;
        let (mut left, mut done) = (backward.len(), of_head);
        let recorded = workload.recompute.layers_recorded();
        let segments = backward.chunks(recorded.max(1)).rev().map(|layers| {
            let kept: u64 = layers.iter().map(|layer| run.kept(layer)).sum();
            let own: u64 = layers.iter().map(|layer| run.gradients(layer)).sum();
            done += own;
            let (before, found) = if workload.in_backward {
                (backward.len(), own)
            } else {
                (left, done)
            };
            left -= layers.len();
            let kept = kept.saturating_sub(sizes.input);
            at(states(before) + kept, sizes.layer_backward, found)
        });
        let mut at_peak_recomputed =
            segments.fold(at(states(backward.len()), loss, of_head), Breakdown::max);
        if !workload.in_backward {
            at_peak_recomputed = at_peak_recomputed.max(at(0, update, gradients));
        }
        if workload.accumulates() {
            at_peak.gradients += gradients;
            if !workload.in_backward {
                at_peak_recomputed.gradients += gradients;
            }
        }
        Ok(Self {
            weights,
            gradients,
            optimizer_state,
            master_weights: 0,
            activations: stored + sizes.logits + of_loss,
            host: 0,
            peak: at_peak.total(),
            peak_recomputed: at_peak_recomputed.total(),
            at_peak,
            at_peak_recomputed,
        })
    }
}

/// The adapters of all matrices of the layers: the inputs of all matmuls are kept, those of the norms
/// are not.
fn on_all_matrices(map: &LayerMap, sizes: &Activations) -> Vec<LayerAdapters> {
    let trainable = sizes.active_layer.saturating_sub(sizes.norms);
    let inputs = trainable.saturating_sub(sizes.frozen_layer);
    let matrices = |parameters: &Vec<usize>| {
        let shapes = parameters.iter().map(|&i| &map.parameters()[i].shape[..]);
        let weights = shapes.filter_map(|shape| <[usize; 2]>::try_from(shape).ok());
        LayerAdapters {
            weights: weights.collect(),
            inputs,
        }
    };
    let layers = map.layers().iter();
    layers.map(|layer| matrices(&layer.parameters)).collect()
}

/// A planned run. All methods return bytes, unless their documentation says otherwise.
struct Run<'a> {
    rank: u64,
    tokens: u64,
    /// Bytes of an element of the weights, and of the adapters.
    element: u64,
    wide: u64,
    merged: bool,
    sizes: Activations,
    of_layers: &'a [LayerAdapters],
}

impl Run<'_> {
    /// Elements of the adapters of these weights.
    fn elements(&self, weights: &[[usize; 2]]) -> u64 {
        let widths = weights
            .iter()
            .map(|[input, output]| (input + output) as u64);
        self.rank * widths.sum::<u64>()
    }

    /// The gradients of the adapters of a layer.
    fn gradients(&self, layer: &LayerAdapters) -> u64 {
        self.elements(&layer.weights) * self.wide
    }

    /// Elements of the largest matrix of an adapter of the layers.
    fn largest(&self) -> u64 {
        let weights = self.of_layers.iter().flat_map(|layer| &layer.weights);
        let widths = weights.flatten().max().copied().unwrap_or(0);
        self.rank * widths as u64
    }

    /// The index of the lowest layer with an adapter; the number of layers if none has one.
    fn lowest(&self) -> usize {
        let has = |layer: &LayerAdapters| !layer.weights.is_empty();
        let lowest = self.of_layers.iter().position(has);
        lowest.unwrap_or(self.of_layers.len())
    }

    /// What the backward pass keeps of a layer: its activations, the inputs of the adapters, and, if
    /// they are merged, the sums; otherwise, the adapters in the dtype of the weights, and the products
    /// of the inputs with the first matrices.
    fn kept(&self, layer: &LayerAdapters) -> u64 {
        let activations = self.sizes.frozen_layer + layer.inputs;
        if self.merged {
            let sizes = layer
                .weights
                .iter()
                .map(|[input, output]| (input * output) as u64);
            return activations + sizes.sum::<u64>() * self.element;
        }
        let casts = if self.wide == self.element {
            0
        } else {
            self.elements(&layer.weights) * self.element
        };
        let low = layer.weights.len() as u64 * self.rank * self.tokens * self.element;
        activations + casts + low
    }
}
