//! Random tensors that depend on a seed only, whatever the device and whatever else draws from it.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A sequence of random numbers that depends on these numbers.
pub(super) fn sequence(seed: u64, index: u64) -> ChaCha8Rng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&index.to_le_bytes());
    ChaCha8Rng::from_seed(bytes)
}

/// Values that are uniformly distributed between `-bound` and `bound`.
pub(super) fn uniform(random: &mut ChaCha8Rng, count: usize, bound: f64) -> Vec<f32> {
    // 2^52 distinct values.
    let mut unit = || (random.next_u64() >> 12) as f64 / (1u64 << 51) as f64 - 1.0;
    (0..count).map(|_| (bound * unit()) as f32).collect()
}

/// The value `1 / kept` with the probability `kept`, which is rounded to 16 bits, and else 0.
pub(super) fn mask(random: &mut ChaCha8Rng, count: usize, kept: f64) -> Vec<f32> {
    let (limit, value) = ((kept * 65536.0).round() as u64, (1.0 / kept) as f32);
    let mut values = Vec::with_capacity(count + 3);
    while values.len() < count {
        let bits = random.next_u64();
        for part in 0..4 {
            let is_kept = (bits >> (16 * part)) & 0xffff < limit;
            values.push(if is_kept { value } else { 0.0 });
        }
    }
    values.truncate(count);
    values
}
