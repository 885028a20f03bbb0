//! [`Choices`]: random choices that are the same on every platform.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A source of random choices: ChaCha with eight rounds.
#[derive(Debug)]
pub(crate) struct Choices(ChaCha8Rng);

impl Choices {
    /// The choices of a seed. `stream` makes the users of one seed independent of each other.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&stream.to_le_bytes());
        Self(ChaCha8Rng::from_seed(bytes))
    }

    /// A number below `bound`, which must not be 0. The remainder is biased, by less than 2^-40 for the
    /// small bounds used here.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }

    /// One of the items, with equal probability.
    pub(crate) fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// `count` different items in random order; all of them where there are fewer.
    pub(crate) fn some<T: Copy>(&mut self, items: &[T], count: usize) -> Vec<T> {
        let mut left = items.to_vec();
        (0..count.min(items.len()))
            .map(|_| left.swap_remove(self.below(left.len())))
            .collect()
    }
}
