//! Memory in use: from the device where it reports it, else from the process's allocator.

use burn::tensor::Device;
use peak_alloc::PeakAlloc;

/// Counts the bytes in use, for backends that do not report them.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Bytes in use now.
pub(crate) fn live(device: &Device) -> u64 {
    match device.memory_pool_usage() {
        Some(usage) => usage.bytes_in_use,
        None => HEAP.current_usage() as u64,
    }
}

/// The most bytes in use since [`reset`] or [`reset_heap`]; for a device, the bytes that it reserved.
pub(crate) fn peak(device: &Device) -> u64 {
    match device.memory_pool_usage() {
        Some(usage) => usage.bytes_reserved,
        None => HEAP.peak_usage() as u64,
    }
}

/// Starts a new measurement of every peak.
pub(crate) fn reset(device: &Device) {
    if device.memory_pool_usage().is_some() {
        device.memory_cleanup();
    }
    reset_heap();
    // On Linux this resets the high-water mark; other systems have none to read.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Starts a new measurement of the allocator's peak.
pub(crate) fn reset_heap() {
    HEAP.reset_peak_usage();
}

/// The high-water mark of the resident set, where the system reports it.
pub(crate) fn resident_peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Bytes as whole MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / 1_048_576.0)
}

#[cfg(test)]
#[cfg(feature = "flex")]
pub(crate) mod tests;
