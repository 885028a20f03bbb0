//! [`Usage`]: the memory that a run uses besides the model.

/// The memory that a [`Lisa`](crate::Lisa) uses, in bytes. [`Lisa::memory`](crate::Lisa::memory)
/// returns it.
///
/// It does not include the weights of the model, which the caller owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Optimizer state on the device, such as AdamW's moments, without master weights.
    pub optimizer_state: u64,
    /// f32 master weights on the device.
    pub master_weights: u64,
    /// Optimizer state and master weights in host memory
    /// ([`OnFreeze::Offload`](crate::OnFreeze::Offload)).
    pub offloaded: u64,
    /// Full-precision weights of quantized layers, in host memory.
    pub full_precision: u64,
}

impl Usage {
    /// Optimizer state and master weights on the device.
    #[must_use]
    pub fn on_device(&self) -> u64 {
        self.optimizer_state + self.master_weights
    }

    /// Offloaded state and full-precision weights in host memory.
    #[must_use]
    pub fn on_host(&self) -> u64 {
        self.offloaded + self.full_precision
    }
}
