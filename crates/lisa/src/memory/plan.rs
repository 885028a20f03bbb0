//! [`MemoryPlan`]: the bytes of a planned run.

use std::fmt;

use super::breakdown::Breakdown;

/// The memory that a run needs, in bytes. `Display` prints a table.
///
/// [`MemoryPlan::lisa`] and [`MemoryPlan::lora`] make it. The sizes are those of a run in which
/// every active layer has its optimizer state. A peak is the largest number of bytes in memory at
/// one time of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryPlan {
    /// Weights on the device.
    pub weights: u64,
    /// Gradients of all trainable parameters.
    pub gradients: u64,
    /// The optimizer state of all trainable parameters: two moments per element, as in AdamW. With
    /// [`OnFreeze::Keep`](crate::OnFreeze::Keep), the peaks include the moments of all layers.
    pub optimizer_state: u64,
    /// f32 master weights of all trainable parameters.
    pub master_weights: u64,
    /// Activations that a backward pass without recomputation keeps, with the logits of a slice or
    /// of all tokens.
    pub activations: u64,
    /// The number of tensors in a record of the optimizer state of all layers that have some: those
    /// that are active and, unless their state is dropped, those that were. Burn reads at most
    /// 100,000 in a file. Not in bytes.
    pub state_tensors: u64,
    /// In host memory: full-precision weights of quantized layers, and offloaded optimizer state.
    pub host: u64,
    /// The content of device memory at its peak without recomputation.
    pub at_peak: Breakdown,
    /// The content of device memory at its peak with [recomputation](crate::recompute::Recompute).
    /// [`Workload::in_backward`](super::Workload::in_backward) says when layers are updated.
    pub at_peak_recomputed: Breakdown,
}

impl MemoryPlan {
    /// The peak of device memory without recomputation.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.at_peak.total()
    }

    /// The peak of device memory with recomputation.
    #[must_use]
    pub fn peak_recomputed(&self) -> u64 {
        self.at_peak_recomputed.total()
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, bytes) in [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer state", self.optimizer_state),
            ("master weights", self.master_weights),
            ("activations", self.activations),
            ("in host memory", self.host),
            ("peak", self.peak()),
            ("peak, recomputed", self.peak_recomputed()),
        ] {
            writeln!(f, "  {name:<18}{:>9.2} GB", bytes as f64 / 1e9)?;
        }
        Ok(())
    }
}
