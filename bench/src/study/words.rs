//! The study's words, each a token: what is asked of the models must not hang on a tokenizer.

use std::collections::HashMap;

use crate::corpus::words::{ANIMALS, COLOURS, OBJECTS, PEOPLE, PLACES, VERBS, plural};
use anyhow::{Context, Result};

/// The token that ends a text.
pub(crate) const END: u32 = 0;

/// The largest number that has a word.
pub(crate) const LARGEST: usize = 20;

/// Signs.
pub(crate) const SIGNS: [&str; 8] = ["+", "-", "=", "?", ":", "/", "[", "]"];

/// Towns, the subjects of the facts.
pub(crate) const TOWNS: [&str; 32] = [
    "Arlen", "Boros", "Cald", "Dorne", "Elvas", "Farn", "Gorin", "Haldor", "Istra", "Jorvik",
    "Kemble", "Lorne", "Marl", "Norden", "Orla", "Pelham", "Quell", "Rostov", "Selby", "Torva",
    "Ulm", "Vann", "Wexel", "Xanten", "Yarrow", "Zell", "Brume", "Corvo", "Drift", "Ember",
    "Falun", "Grent",
];

/// All other words.
const OTHERS: [&str; 52] = [
    ".", ",", "the", "a", "in", "and", "was", "is", "of", "has", "said", "too", "there", "were",
    "he", "it", "answer", "all", "reverse", "first", "last", "ends", "plain", "commas", "brackets",
    "numbered", "signs", "how", "many", "more", "then", "finds", "gets", "loses", "gives", "away",
    "at", "start", "left", "what", "which", "name", "tell", "me", "that", "colour", "animal",
    "object", "place", "now", "with", "who",
];

/// Words and their numbers.
#[derive(Clone, Debug)]
pub(crate) struct Vocabulary {
    words: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    /// Always the same.
    pub(crate) fn new() -> Self {
        let mut words = vec!["<end>".to_string()];
        let past = VERBS.map(|(_, past)| past);
        let lists: [&[&str]; 9] = [
            &OTHERS, &SIGNS, &TOWNS, &PEOPLE, &OBJECTS, &ANIMALS, &COLOURS, &PLACES, &past,
        ];
        words.extend(
            lists
                .iter()
                .flat_map(|list| list.iter())
                .map(ToString::to_string),
        );
        words.extend(OBJECTS.iter().map(|noun| plural(noun)));
        words.extend((0..=LARGEST).map(|number| number.to_string()));
        let ids = words
            .iter()
            .zip(0..)
            .map(|(word, id)| (word.clone(), id))
            .collect();
        Self { words, ids }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    /// All but the end.
    pub(crate) fn words(&self) -> &[String] {
        &self.words[1..]
    }

    /// A text whose words stand between blanks.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let id = |word: &str| {
            let id = self.ids.get(word).copied();
            id.with_context(|| format!("`{word}` of `{text}` is not in the vocabulary"))
        };
        text.split_whitespace().map(id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_there_once() {
        let vocabulary = Vocabulary::new();
        assert_eq!(vocabulary.ids.len(), vocabulary.len());
        assert_eq!(vocabulary.encode("<end> . ,").unwrap(), [END, 1, 2]);
        assert!(vocabulary.encode("a zebra").is_err());
    }
}
