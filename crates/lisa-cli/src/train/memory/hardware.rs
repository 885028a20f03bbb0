//! [`Hardware`]: what a plan must know of a device.

use burn::tensor::Device;

/// The kind of device that a run is planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hardware {
    /// A CPU, with flex.
    Flex,
    /// A CPU, with another backend.
    Cpu,
    /// A device with memory of its own, which a memory pool manages.
    Gpu,
}

impl Hardware {
    /// Whether the memory of the device is that of the machine.
    pub(crate) fn is_host(self) -> bool {
        self != Self::Gpu
    }
}

impl From<&Device> for Hardware {
    fn from(device: &Device) -> Self {
        let reports = device.memory_pool_usage().is_some();
        of(&format!("{device:?}"), reports)
    }
}

/// The kind of a device, by its name in Burn and by whether it reports its memory. LibTorch does not
/// report that of a GPU.
fn of(name: &str, reports: bool) -> Hardware {
    let is = |kinds: &[&str]| kinds.iter().any(|kind| name.contains(kind));
    if reports || is(&["Cuda", "Mps", "Vulkan"]) {
        Hardware::Gpu
    } else if is(&["Flex"]) {
        Hardware::Flex
    } else {
        Hardware::Cpu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_of_libtorch_is_no_host_although_it_does_not_report_its_memory() {
        assert_eq!(of("Device<LibTorch(Cuda(0))>", false), Hardware::Gpu);
        assert_eq!(of("Device<LibTorch(Mps)>", false), Hardware::Gpu);
        assert_eq!(of("Device<LibTorch(Cpu)>", false), Hardware::Cpu);
        assert_eq!(of("Device<Wgpu(DefaultDevice)>", true), Hardware::Gpu);
        let flex = Device::flex();
        assert_eq!(Hardware::from(&flex), Hardware::Flex);
        assert_eq!(Hardware::from(&flex.autodiff()), Hardware::Flex);
    }
}
