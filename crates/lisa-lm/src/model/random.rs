//! [`seeded`]: random numbers that depend on a seed only.

use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;

/// A device has one sequence of random numbers in a process, so only one caller may draw from it.
static ONE: Mutex<()> = Mutex::new(());

/// What `draw` makes, with the random numbers of this seed. `draw` must not call this function.
/// Waits for a device that is not the host.
pub(crate) fn seeded<T>(device: &Device, seed: u64, draw: impl FnOnce() -> T) -> T {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    device.seed(seed);
    let drawn = draw();
    // A device may draw later, when it has another seed. Its failure is reported where the tensors are
    // used.
    if device.memory_pool_usage().is_some() {
        let _ = device.sync();
    }
    drawn
}

/// A seed that depends on all of these numbers.
pub(crate) fn mixed(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0, |seed, number| {
        // SplitMix64.
        let mut z = (seed ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}
