//! What the base model is pretrained on: all words of the study, none of its skills. Tests: at the
//! foot.

use crate::corpus::Choices;
use crate::corpus::words::{COLOURS, OBJECTS, PEOPLE, PLACES, VERBS, plural};

use super::words::{LARGEST, SIGNS, Vocabulary};

/// Paragraphs: scenes with people, numbers and colours, and lists that one person says and another
/// says again. Signs stand in lists of their own, so there is no equation, and nothing is asked or
/// answered.
pub(crate) fn pretraining_text(seed: u64, paragraphs: usize, words: &Vocabulary) -> Vec<String> {
    let mut choices = Choices::new(seed, 300);
    let plain: Vec<&str> = words
        .words()
        .iter()
        .map(String::as_str)
        .filter(|word| !SIGNS.contains(word) && *word != ".")
        .collect();
    let paragraph = |choices: &mut Choices| match choices.below(5) {
        0 | 1 => scene(choices),
        2 => echo(choices, &SIGNS),
        _ => echo(choices, &plain),
    };
    (0..paragraphs).map(|_| paragraph(&mut choices)).collect()
}

fn scene(choices: &mut Choices) -> String {
    let (person, other) = (choices.of(&PEOPLE), choices.of(&PEOPLE));
    let (noun, colour) = (choices.of(&OBJECTS), choices.of(&COLOURS));
    let (place, past) = (choices.of(&PLACES), choices.of(&VERBS).1);
    match choices.below(3) {
        0 => {
            let (number, nouns) = (2 + choices.below(LARGEST - 1), plural(noun));
            format!(
                "in the {place} there were {number} {nouns} . {person} {past} all {number} {nouns} ."
            )
        }
        1 => format!(
            "{person} {past} a {colour} {noun} in the {place} . the {noun} was {colour} . {other} \
             {past} it too ."
        ),
        _ => format!(
            "the {noun} of {person} is {colour} and the {noun} of {other} is {colour} too ."
        ),
    }
}

/// A list, said twice.
fn echo(choices: &mut Choices, from: &[&str]) -> String {
    let count = 2 + choices.below(4);
    let list = choices.some(from, count).join(" ");
    let (person, other) = (choices.of(&PEOPLE), choices.of(&PEOPLE));
    format!("{person} said {list} . {other} said {list} .")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use clap::ValueEnum;

    use super::super::scale::Scale;
    use super::super::tasks::{MARKER, Task};
    use super::*;

    #[test]
    fn the_text_is_a_pure_function_of_its_seed() {
        let words = Vocabulary::new();
        let text = pretraining_text(1, 50, &words);
        assert_eq!(text, pretraining_text(1, 50, &words));
        assert_ne!(text, pretraining_text(2, 50, &words));
    }

    #[test]
    fn the_text_has_every_word_and_none_of_the_skills() {
        let words = Vocabulary::new();
        let text = pretraining_text(1, 4000, &words);
        let seen: HashSet<&str> = text.iter().flat_map(|line| line.split(' ')).collect();
        let missing: Vec<_> = words
            .words()
            .iter()
            .filter(|w| !seen.contains(w.as_str()))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
        for line in &text {
            words.encode(line).unwrap();
            assert!(!line.contains(MARKER), "{line}");
            // No equation: no number stands beside a sign.
            let list: Vec<&str> = line.split(' ').collect();
            for pair in list.windows(2) {
                let number = |word: &str| word.parse::<u32>().is_ok();
                let sign = |word: &str| SIGNS.contains(&word);
                assert!(!(number(pair[0]) && sign(pair[1])), "{line}");
                assert!(!(sign(pair[0]) && number(pair[1])), "{line}");
            }
        }
        let text = text.join("\n");
        for &task in Task::value_variants() {
            for question in task.questions(1, &Scale::full()).test {
                assert!(!text.contains(&question.prompt));
            }
        }
    }
}
