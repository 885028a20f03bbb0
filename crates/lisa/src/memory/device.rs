//! [`DeviceUsage`]: the memory pool of a device.

use burn::tensor::Device;

/// The memory pool of a device, in bytes. It has all tensors of the program on that device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
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
