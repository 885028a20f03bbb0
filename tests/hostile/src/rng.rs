//! Random numbers that are the same everywhere: SplitMix64.

/// A generator that is a function of a seed and the number of a run.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The generator of this run.
    #[must_use]
    pub fn new(seed: u64, run: u64) -> Self {
        let mut rng = Self(seed ^ run.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        rng.bits();
        rng
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `end`; 0 where that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % (end.max(1) as u64)) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// Changes some bytes: flips, cuts, repeats, inserts.
#[must_use]
pub fn mutate_bytes(rng: &mut Rng, input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len() + 1);
        match rng.below(6) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            2 if at < bytes.len() => bytes[at] = rng.bits() as u8,
            3 => bytes.insert(at, *rng.pick(&[0, b'"', b'{', b'[', 0xff, b'\n', b'\\'])),
            4 => {
                let end = (at + rng.below(16)).min(bytes.len());
                drop(bytes.drain(at..end));
            }
            _ => {
                let end = (at + rng.below(64)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                for byte in part.into_iter().rev() {
                    bytes.insert(at, byte);
                }
            }
        }
    }
    bytes
}
