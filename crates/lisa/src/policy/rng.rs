//! [`DrawRng`]: the random numbers of a period, the same on every platform and in every version.
//!
//! The generator is ChaCha with 8 rounds; the seed is its key and the period its stream. The
//! algorithms from random words to layers are implemented here and not taken from `rand`, whose
//! algorithms may change between versions: a record must resume the same run years later.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Random numbers that are a pure function of a seed and a period.
///
/// # Example
///
/// ```
/// use lisa::policy::{Draw, DrawRng};
///
/// // In a policy of your own:
/// let draw = Draw::new(42, 1, 32, 2);
/// let mut rng = draw.rng();
/// assert_eq!(rng.choose(draw.layers, draw.active_layers), [12, 30]);
/// assert_eq!(rng.shuffle(5), [4, 1, 2, 3, 0]);
/// assert_eq!((rng.below(6), rng.unit()), (2, 0.15988328415153863));
/// // The numbers depend on the seed and the period only.
/// assert_eq!(DrawRng::new(42, 1).choose(32, 2), [12, 30]);
/// assert_eq!(DrawRng::new(42, 7).next_u64(), 3_425_180_178_688_264_041);
/// ```
#[derive(Clone, Debug)]
pub struct DrawRng(ChaCha8Rng);

impl DrawRng {
    /// The random numbers of this seed and period.
    #[must_use]
    pub fn new(seed: u64, period: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(period);
        Self(rng)
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in [0, 1), with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number below `n`, each with the same probability; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        if n == 0 {
            return 0;
        }
        // Reject the tail that would favour small numbers.
        let usable = u64::MAX - u64::MAX % n;
        loop {
            let word = self.next_u64();
            if word < usable {
                return (word % n) as usize;
            }
        }
    }

    /// `k` different numbers below `n`, in ascending order: every subset with the same probability
    /// (the first `k` steps of a Fisher-Yates shuffle). If `k >= n`, all of them.
    pub fn choose(&mut self, n: usize, k: usize) -> Vec<usize> {
        let mut chosen = self.first_of(n, k);
        chosen.sort_unstable();
        chosen
    }

    /// The numbers below `n` in random order, every order with the same probability.
    pub fn shuffle(&mut self, n: usize) -> Vec<usize> {
        self.first_of(n, n)
    }

    /// The first `k` numbers of a shuffled order of those below `n`.
    fn first_of(&mut self, n: usize, k: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        let k = k.min(n);
        for i in 0..k {
            let j = i + self.below(n - i);
            all.swap(i, j);
        }
        all.truncate(k);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_seed_and_the_period_on_every_platform() {
        let first = |seed, period| DrawRng::new(seed, period).next_u64();
        assert_eq!(first(0, 0), 15_438_444_565_445_410_878);
        assert_eq!(first(42, 7), 3_425_180_178_688_264_041);
        assert_ne!(first(0, 0), first(0, 1));
        assert_ne!(first(0, 0), first(1, 0));
        assert_eq!(first(7, 9), first(7, 9));
    }

    #[test]
    fn below_stays_below_and_reaches_every_number() {
        let mut rng = DrawRng::new(3, 0);
        let mut seen = [0; 7];
        for _ in 0..7000 {
            seen[rng.below(7)] += 1;
        }
        assert!(seen.iter().all(|n| (850..1150).contains(n)), "{seen:?}");
        assert_eq!(rng.below(1), 0);
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn choose_takes_every_number_once_when_asked_for_all() {
        assert_eq!(DrawRng::new(1, 1).choose(4, 9), [0, 1, 2, 3]);
        assert!(DrawRng::new(1, 1).choose(4, 0).is_empty());
    }

    #[test]
    fn every_order_of_a_shuffle_is_equally_likely() {
        let mut rng = DrawRng::new(4, 0);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..6000 {
            *counts.entry(rng.shuffle(3)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(
            counts.values().all(|n| (870..1130).contains(n)),
            "{counts:?}"
        );
    }
}
