//! The text that the bundled base model is pretrained on, and the instruction set that it is
//! fine-tuned on: small English made from word lists and a grammar, so that it is the project's own
//! and comes out the same from the same seed on every platform.
//!
//! - [`words`]: the vocabulary, with its opposites, plurals and numbers;
//! - [`story`]: paragraphs for pretraining;
//! - [`tasks`]: questions with short exact answers for fine-tuning.
//!
//! The two share their words and nothing else: pretraining never sees an instruction, so what a
//! fine-tune gains is the tasks.

pub(crate) mod story;
pub(crate) mod tasks;
pub(crate) mod words;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

pub(crate) use story::pretraining_text;
pub(crate) use tasks::{Instruction, instructions};

/// A source of choices: ChaCha with eight rounds, so that a seed means the same everywhere.
#[derive(Debug)]
pub(crate) struct Choices(ChaCha8Rng);

impl Choices {
    /// The choices of a seed. `stream` keeps the parts of the corpus independent of each other.
    #[must_use]
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&stream.to_le_bytes());
        Self(ChaCha8Rng::from_seed(bytes))
    }

    /// A number below `bound`, which must not be 0. Bounds here are tiny, so the bias of a remainder
    /// is too.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }

    /// One of these, each as likely.
    pub(crate) fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// So many different ones of these, in a random order.
    pub(crate) fn some<T: Copy>(&mut self, items: &[T], count: usize) -> Vec<T> {
        let mut left = items.to_vec();
        (0..count.min(items.len()))
            .map(|_| left.swap_remove(self.below(left.len())))
            .collect()
    }
}

/// The sentence with a capital letter in front.
#[must_use]
pub(crate) fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_corpus_is_a_pure_function_of_its_seed() {
        assert_eq!(pretraining_text(1, 20), pretraining_text(1, 20));
        assert_ne!(pretraining_text(1, 20), pretraining_text(2, 20));
        assert_eq!(instructions(1, 30, 10), instructions(1, 30, 10));
    }

    #[test]
    fn held_out_instructions_are_not_among_the_others() {
        let (train, held_out) = instructions(0, 1200, 150);
        assert_eq!((train.len(), held_out.len()), (1200, 150));
        let key = |i: &Instruction| (i.instruction.clone(), i.input.clone());
        let mut seen: HashSet<_> = train.iter().map(key).collect();
        assert_eq!(seen.len(), 1200);
        assert!(held_out.iter().all(|i| seen.insert(key(i))));
    }

    #[test]
    fn pretraining_never_shows_an_instruction() {
        let text = pretraining_text(0, 200).join("\n");
        assert!(!text.contains("<|"));
        for instruction in instructions(0, 50, 1).0 {
            assert!(!text.contains(&instruction.instruction));
        }
    }
}
