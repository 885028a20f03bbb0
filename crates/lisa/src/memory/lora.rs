//! [`MemoryPlan::lora`]: the arithmetic of a LoRA run.

use super::activations::Footprint;
use super::breakdown::Breakdown;
use super::lisa::LOSS_STATES;
use super::plan::MemoryPlan;
use super::workload::Workload;
use crate::{LayerMap, LisaError};

impl MemoryPlan {
    /// Plans LoRA of this rank on all matrices of the layers.
    ///
    /// `merged`: whether each projection computes `W + A B` before its matmul, as Burn's own LoRA
    /// does, instead of adding the result of a second matmul. Adapters, their gradients and their
    /// moments have the dtype of the weights if merged. Otherwise, they are at least f32, and are cast
    /// to the dtype of the weights for the matmul. Nothing is recomputed, so both peaks
    /// are equal, and only rows, tokens and dtype of the workload matter.
    ///
    /// # Errors
    ///
    /// The stack of layers is not found or is ambiguous.
    pub fn lora<M: Footprint>(
        model: &M,
        rank: usize,
        merged: bool,
        workload: &Workload,
    ) -> Result<Self, LisaError> {
        let map = LayerMap::of_shapes(model, &[])?;
        let element = workload.element();
        let (mut adapters, mut matrices, mut projections) = (0, 0, 0);
        for (i, parameter) in map.parameters().iter().enumerate() {
            if let (Some(_), [input, output]) = (map.layer_of(i), &parameter.shape[..]) {
                adapters += (rank * (input + output)) as u64;
                matrices += (input * output) as u64;
                projections += 1;
            }
        }
        let base: u64 = map.parameters().iter().map(|p| p.len() as u64).sum();
        let wide = if merged { element } else { element.max(4) };
        let casts = if wide == element {
            0
        } else {
            adapters * element
        };
        let weights = base * element + adapters * wide;
        let optimizer_state = 2 * adapters * wide;
        let sizes = model.activations(workload.batch, workload.sequence, workload.dtype);
        // The inputs of all products are kept, those of the norms are not.
        let layer = sizes.active_layer.saturating_sub(sizes.norms);
        let sums = if merged { matrices * element } else { 0 };
        // The product of each projection's input with the first matrix of its adapter.
        let low = if merged {
            0
        } else {
            projections * (rank * workload.batch * workload.sequence) as u64 * element
        };
        let stored = map.layers().len() as u64 * layer + sums + casts + low;
        let at_peak = Breakdown {
            weights,
            optimizer_state,
            activations: stored + sizes.logits,
            temporary: sizes.logits
                + (sizes.head + LOSS_STATES * sizes.hidden).max(sizes.layer_backward)
                + sizes.workspace,
            ..Breakdown::default()
        };
        Ok(Self {
            weights,
            gradients: adapters * wide,
            optimizer_state,
            master_weights: 0,
            activations: stored + sizes.logits + sizes.head,
            host: 0,
            peak: at_peak.total(),
            peak_recomputed: at_peak.total(),
            at_peak,
            at_peak_recomputed: at_peak,
        })
    }
}
