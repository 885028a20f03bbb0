//! The text that the bundled model is pretrained on, and the instruction set that it is fine-tuned on:
//! simple English from word lists and a grammar. It is the project's own, and the same seed gives the
//! same text on every platform.
//!
//! The two share words only: pretraining never shows an instruction, so fine-tuning has to learn the
//! tasks.

mod choices;
mod story;
mod tasks;
mod words;

pub(crate) use self::choices::Choices;
pub(crate) use self::story::pretraining_text;
pub(crate) use self::tasks::{Example, instructions};

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::files::bundled;

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
        let key = |i: &Example| (i.instruction.clone(), i.input.clone());
        let mut seen: HashSet<_> = train.iter().map(key).collect();
        assert_eq!(seen.len(), 1200);
        assert!(held_out.iter().all(|i| seen.insert(key(i))));
    }

    #[test]
    fn the_bundled_instructions_are_those_of_seed_1() {
        let (train, held_out) = instructions(1, 1200, 150);
        for (file, made) in [("train.jsonl", train), ("heldout.jsonl", held_out)] {
            let text = std::fs::read_to_string(bundled("data").join(file)).unwrap();
            let lines = text.lines();
            let read: Vec<Example> = lines.map(|l| serde_json::from_str(l).unwrap()).collect();
            assert!(read == made, "{file}");
        }
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
