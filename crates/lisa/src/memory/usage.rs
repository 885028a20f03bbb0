//! [`Usage`] and [`DeviceUsage`]: the memory of a program that runs.

use burn::tensor::Device;

/// The memory that a [`Lisa`](crate::Lisa) uses, in bytes. [`Lisa::memory`](crate::Lisa::memory)
/// returns it.
///
/// It does not include the weights of the model, which the caller owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// The memory pool of a device, in bytes. It has all tensors of the program on that device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceUsage {
    /// Bytes of live tensors.
    pub in_use: u64,
    /// Bytes that the pool has reserved for tensors.
    pub reserved: u64,
}

impl DeviceUsage {
    /// The memory pool of a device; `None` if the backend does not report it. CubeCL's backends
    /// (wgpu, CUDA) report it; flex and LibTorch do not. Waits for the device.
    #[must_use]
    pub fn of(device: &Device) -> Option<Self> {
        let pool = device.memory_pool_usage()?;
        Some(Self {
            in_use: pool.bytes_in_use,
            reserved: pool.bytes_reserved,
        })
    }
}
