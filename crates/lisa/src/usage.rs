//! [`Usage`]: what a run holds beside the model.

/// What a run holds now beside the model, in bytes: see [`Lisa::memory`](crate::Lisa::memory).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The optimizer's state on the device, such as AdamW's two moments. Without master weights.
    pub optimizer_state: u64,
    /// f32 master weights on the device.
    pub master_weights: u64,
    /// Optimizer state and master weights of frozen layers in host memory
    /// ([`OnFreeze::Offload`](crate::OnFreeze::Offload)).
    pub offloaded: u64,
    /// Full-precision weights of quantized layers in host memory
    /// ([`LisaConfig::frozen_weights`](crate::LisaConfig::frozen_weights)).
    pub full_precision: u64,
}

impl Usage {
    /// The bytes on the device: optimizer state and master weights.
    #[must_use]
    pub fn on_device(&self) -> u64 {
        self.optimizer_state + self.master_weights
    }

    /// The bytes in host memory: offloaded state and full-precision weights.
    #[must_use]
    pub fn on_host(&self) -> u64 {
        self.offloaded + self.full_precision
    }
}
