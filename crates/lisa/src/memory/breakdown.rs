//! [`Breakdown`]: what the memory of a device holds at one time of a step.

/// The memory of a device at one time of a step, in bytes, divided by its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Breakdown {
    /// Weights.
    pub weights: u64,
    /// Optimizer state, that of frozen layers included.
    pub optimizer_state: u64,
    /// f32 master weights of trainable parameters.
    pub master_weights: u64,
    /// Gradients of parameters.
    pub gradients: u64,
    /// What the backward pass keeps, with the logits if all of them exist.
    pub activations: u64,
    /// Temporary tensors of the backward pass of the head, of a dequantized layer, or of an update.
    pub temporary: u64,
}

impl Breakdown {
    /// The sum of all parts.
    #[must_use]
    pub fn total(&self) -> u64 {
        let held = self.weights + self.optimizer_state + self.master_weights;
        held + self.gradients + self.activations + self.temporary
    }

    /// The larger one of two times of a step.
    pub(super) fn max(self, other: Self) -> Self {
        if other.total() > self.total() {
            other
        } else {
            self
        }
    }
}
