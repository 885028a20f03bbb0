//! [`MemoryPlan::lora`]: the arithmetic of a LoRA run.

use super::activations::{Activations, Footprint};
use super::adapters::{Adapters, LayerAdapters};
use super::breakdown::Breakdown;
use super::plan::MemoryPlan;
use super::segments::{Segment, Segments};
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
    /// As [`LayerMap::find`].
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
        let run = Run::new(&map, adapters, of_layers, workload, sizes);
        let (mut at_peak, mut at_peak_recomputed) = (run.step(), run.recomputed_step());
        if workload.accumulates() {
            at_peak.gradients += run.all_gradients();
            if !workload.in_backward {
                at_peak_recomputed.gradients += run.all_gradients();
            }
        }
        Ok(Self {
            weights: run.weights,
            gradients: run.all_gradients(),
            optimizer_state: run.optimizer_state(),
            master_weights: 0,
            activations: run.stored() + run.sizes.logits + run.loss,
            state_tensors: run.state_tensors(adapters.head),
            host: 0,
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
    workload: &'a Workload,
    rank: u64,
    tokens: u64,
    /// Bytes of an element of the weights, and of the adapters.
    element: u64,
    wide: u64,
    merged: bool,
    sizes: Activations,
    of_layers: &'a [LayerAdapters],
    /// Elements of the adapters of the head, and of all adapters.
    head: u64,
    adapters: u64,
    /// Of the model with its adapters.
    weights: u64,
    /// What the loss needs without the hidden states.
    loss: u64,
}

impl<'a> Run<'a> {
    fn new(
        map: &LayerMap,
        adapters: &Adapters,
        of_layers: &'a [LayerAdapters],
        workload: &'a Workload,
        sizes: Activations,
    ) -> Self {
        let element = workload.element();
        let mut run = Self {
            workload,
            rank: adapters.rank as u64,
            tokens: (workload.batch * workload.sequence) as u64,
            element,
            wide: if adapters.merged {
                element
            } else {
                element.max(4)
            },
            merged: adapters.merged,
            loss: sizes.head.max(adapters.head_loss),
            sizes,
            of_layers,
            head: 0,
            adapters: 0,
            weights: 0,
        };
        run.head = adapters.head.map_or(0, |shape| run.elements(&[shape]));
        let layers = of_layers.iter().map(|l| run.elements(&l.weights));
        run.adapters = run.head + layers.sum::<u64>();
        let base: u64 = map.parameters().iter().map(|p| p.len() as u64).sum();
        run.weights = base * element + run.adapters * run.wide;
        run
    }

    /// The gradients of all adapters.
    fn all_gradients(&self) -> u64 {
        self.adapters * self.wide
    }

    fn optimizer_state(&self) -> u64 {
        2 * self.all_gradients()
    }

    /// The number of tensors of the optimizer state in a record.
    fn state_tensors(&self, head: Option<[usize; 2]>) -> u64 {
        let rank = self.rank as usize;
        let of_layers = self.of_layers.iter().flat_map(|layer| &layer.weights);
        let adapted = of_layers.chain(&head);
        let moments = adapted.map(|&[input, output]| {
            self.workload.moments(&[input, rank]) + self.workload.moments(&[rank, output])
        });
        moments.sum()
    }

    /// The device memory at a moment with these activations, temporary tensors and gradients.
    fn at(&self, activations: u64, temporary: u64, gradients: u64) -> Breakdown {
        Breakdown {
            weights: self.weights,
            optimizer_state: self.optimizer_state(),
            gradients,
            activations: activations + self.sizes.logits,
            temporary: temporary + self.sizes.logits + self.sizes.workspace,
            ..Breakdown::default()
        }
    }

    /// At the loss, with these activations of the layers.
    fn at_loss(&self, activations: u64) -> Breakdown {
        let temporary = self.loss + self.sizes.loss_states();
        self.at(activations, temporary, self.head * self.wide)
    }

    /// At the update, without activations.
    fn at_update(&self) -> Breakdown {
        let temporary = self.workload.update(self.largest());
        self.at(0, temporary, self.all_gradients())
    }

    /// The layers that the backward pass reaches.
    fn backward(&self) -> &'a [LayerAdapters] {
        &self.of_layers[self.lowest()..]
    }

    /// What the backward pass keeps of all layers.
    fn stored(&self) -> u64 {
        self.backward().iter().map(|layer| self.kept(layer)).sum()
    }

    /// The peak of a step without recomputation.
    fn step(&self) -> Breakdown {
        let (mut left, mut done) = (self.stored(), self.head * self.wide);
        let layers = self.backward().iter().rev().map(|layer| {
            done += self.gradients(layer);
            let temporary = self.sizes.layer_backward + self.sizes.hidden;
            let during = self.at(left, temporary, done);
            left -= self.kept(layer);
            during
        });
        let ends = self.at_loss(self.stored()).max(self.at_update());
        layers.fold(ends, Breakdown::max)
    }

    /// The peak of a step with recomputation.
    fn recomputed_step(&self) -> Breakdown {
        let count = self.of_layers.len();
        let segments = Segments::of(self.workload.recompute, self.lowest(), count);
        let states = |count: usize| count as u64 * self.sizes.hidden;
        // Without the input of the first layer.
        let graph = |segment: &Segment| {
            let layers = self.of_layers[segment.layers.clone()].iter();
            let kept: u64 = layers.map(|layer| self.kept(layer)).sum();
            kept.saturating_sub(self.sizes.input)
        };
        let at_head = segments.at_head().map_or(0, graph);
        let mut at_peak = self.at_loss(states(segments.states_at_head) + at_head);
        let mut done = self.head * self.wide;
        for segment in &segments.all {
            let mut before = states(segment.states);
            if self.workload.in_backward {
                (before, done) = (states(segments.most_states()), 0);
            }
            let mut left = graph(segment);
            for layer in self.of_layers[segment.layers.clone()].iter().rev() {
                done += self.gradients(layer);
                let during = self.at(before + left, self.sizes.layer_backward, done);
                at_peak = at_peak.max(during);
                left = left.saturating_sub(self.kept(layer));
            }
        }
        if self.workload.in_backward {
            at_peak
        } else {
            at_peak.max(self.at_update())
        }
    }

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
