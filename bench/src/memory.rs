//! What is held: by the device where it can tell, by the process's allocator where not.

use burn::tensor::Device;

use crate::HEAP;

/// Bytes live now.
pub(crate) fn live(device: &Device) -> u64 {
    match device.memory_pool_usage() {
        Some(usage) => usage.bytes_in_use,
        None => HEAP.current_usage() as u64,
    }
}

/// The most bytes that were live since [`reset`]; of a device, what it has reserved.
pub(crate) fn peak(device: &Device) -> u64 {
    match device.memory_pool_usage() {
        Some(usage) => usage.bytes_reserved,
        None => HEAP.peak_usage() as u64,
    }
}

/// Begins a new measurement of the peak, of the allocator and of the resident set.
pub(crate) fn reset(device: &Device) {
    if device.memory_pool_usage().is_some() {
        device.memory_cleanup();
    }
    HEAP.reset_peak_usage();
    // Linux: the high-water mark begins anew. Elsewhere there is none to be read either.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The high-water mark of the resident set, where the system tells.
pub(crate) fn resident_peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
