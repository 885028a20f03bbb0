//! The three tasks, made from a seed. They stand for the paper's three: following an instruction in a
//! given form (MT-Bench), word problems with worked steps (GSM8K), questions on a closed body of
//! facts (PubMedQA). Tests: at the foot.

use std::collections::HashSet;

use crate::corpus::Choices;
use crate::corpus::words::{ANIMALS, COLOURS, OBJECTS, PEOPLE, PLACES, plural};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::scale::Scale;
use super::words::TOWNS;
use crate::settings::display_as_value;

/// A task.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Do something with a list of words and write it in a given form
    Form,
    /// Word problems of two steps, with the steps
    Sums,
    /// What was learnt of 32 towns, asked in words that were not seen for that fact
    Facts,
}

display_as_value!(Task);

/// What stands between a question and its answer, in no other text.
pub(crate) const MARKER: &str = "answer :";

/// A question with its only right answer; words between blanks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// With the marker.
    pub(crate) prompt: String,
    pub(crate) answer: String,
}

/// Questions in three parts, none of which shares a prompt with another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) train: Vec<Question>,
    pub(crate) validation: Vec<Question>,
    pub(crate) test: Vec<Question>,
}

impl Task {
    /// The questions: a pure function of the seed and the scale.
    pub(crate) fn questions(self, seed: u64, scale: &Scale) -> Parts {
        let mut choices = Choices::new(seed, 100 + self as u64);
        match self {
            Self::Form => drawn(&mut choices, scale, |choices| form(choices, scale)),
            Self::Sums => drawn(&mut choices, scale, |choices| {
                sums(choices, scale.largest_term)
            }),
            Self::Facts => facts(&mut choices, scale.towns),
        }
    }
}

/// Different questions of one kind.
fn drawn(choices: &mut Choices, scale: &Scale, make: impl Fn(&mut Choices) -> Question) -> Parts {
    let mut seen = HashSet::new();
    let mut some = |count: usize| -> Vec<Question> {
        let mut questions = Vec::new();
        while questions.len() < count {
            let question = make(choices);
            if seen.insert(question.prompt.clone()) {
                questions.push(question);
            }
        }
        questions
    };
    Parts {
        train: some(scale.train),
        validation: some(scale.validation),
        test: some(scale.test),
    }
}

/// What is to be done with the words.
const DEEDS: [&str; 5] = ["first", "last", "all", "reverse", "ends"];

/// How the result is to be written.
const FORMS: [&str; 5] = ["plain", "commas", "brackets", "numbered", "signs"];

fn form(choices: &mut Choices, scale: &Scale) -> Question {
    let (deed, form) = (
        choices.of(&DEEDS[..scale.deeds]),
        choices.of(&FORMS[..scale.forms]),
    );
    let count = 3 + choices.below(scale.longest_list - 2);
    let words = choices.some(&OBJECTS, count);
    let kept: Vec<&str> = match deed {
        "all" => words.clone(),
        "reverse" => words.iter().rev().copied().collect(),
        "first" => vec![words[0]],
        "last" => vec![words[count - 1]],
        _ => vec![words[0], words[count - 1]],
    };
    let numbered = || (1..).zip(&kept).map(|(i, word)| format!("{i} {word}"));
    let answer = match form {
        "plain" => kept.join(" "),
        "commas" => kept.join(" , "),
        "brackets" => format!("[ {} ]", kept.join(" ")),
        "numbered" => numbered().collect::<Vec<_>>().join(" "),
        _ => format!("+ {}", kept.join(" + ")),
    };
    Question {
        prompt: format!("{deed} , {form} : {} . {MARKER}", words.join(" ")),
        answer,
    }
}

/// Terms are at most `largest`.
fn sums(choices: &mut Choices, largest: usize) -> Question {
    let (person, noun) = (choices.of(&PEOPLE), plural(choices.of(&OBJECTS)));
    let (a, b) = (1 + choices.below(largest), 1 + choices.below(largest));
    let c = 1 + choices.below(largest.min(a + b));
    let story = match choices.below(3) {
        0 => format!("{person} has {a} {noun} and finds {b} more and gives {c} away ."),
        1 => format!("{person} has {a} {noun} and gets {b} and loses {c} ."),
        _ => format!("there were {a} {noun} . {person} finds {b} more and loses {c} ."),
    };
    let (sum, rest) = (a + b, a + b - c);
    Question {
        prompt: format!("{story} {MARKER}"),
        answer: format!("{a} + {b} = {sum} . {sum} - {c} = {rest}"),
    }
}

/// What is known of each town, with what it can be.
const KNOWN: [(&str, &[&str]); 4] = [
    ("colour", &COLOURS),
    ("animal", &ANIMALS),
    ("object", &OBJECTS),
    ("place", &PLACES),
];

/// The ways to ask.
const WAYS: usize = 5;

fn ask(way: usize, town: &str, what: &str) -> String {
    match way {
        0 => format!("what is the {what} of {town} ?"),
        1 => format!("{town} has which {what} ?"),
        2 => format!("name the {what} of {town} ."),
        3 => format!("tell me the {what} that {town} has ."),
        _ => format!("of {town} , the {what} is what ?"),
    }
}

/// Each fact is asked in one way in validation, in another in the test, and in all others in
/// training; which, is drawn for each fact.
fn facts(choices: &mut Choices, towns: usize) -> Parts {
    let (mut train, mut validation, mut test) = (Vec::new(), Vec::new(), Vec::new());
    for town in &TOWNS[..towns] {
        for (what, values) in KNOWN {
            let value = choices.of(values);
            let ways = choices.some(&[0, 1, 2, 3, 4], WAYS);
            for (i, way) in ways.into_iter().enumerate() {
                let part = match i {
                    0 => &mut validation,
                    1 => &mut test,
                    _ => &mut train,
                };
                part.push(Question {
                    prompt: format!("{} {MARKER}", ask(way, town, what)),
                    answer: value.to_string(),
                });
            }
        }
    }
    Parts {
        train,
        validation,
        test,
    }
}

/// Text of the domain of [`Task::Sums`], to go on pretraining with: equations, one behind the other,
/// with no word problem.
pub(crate) fn domain_text(seed: u64, lines: usize, largest: usize) -> Vec<String> {
    let mut choices = Choices::new(seed, 200);
    let mut equation = || {
        let (a, b) = (1 + choices.below(largest), 1 + choices.below(largest));
        if choices.below(2) == 0 {
            return format!("{a} + {b} = {} .", a + b);
        }
        let c = 1 + choices.below(largest.min(a + b));
        format!("{} - {c} = {} .", a + b, a + b - c)
    };
    let mut line = || [equation(), equation(), equation(), equation()].join(" ");
    (0..lines).map(|_| line()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::words::Vocabulary;
    use super::*;

    fn prompts(questions: &[Question]) -> HashSet<&str> {
        questions.iter().map(|q| q.prompt.as_str()).collect()
    }

    #[test]
    fn questions_are_a_pure_function_of_their_seed() {
        let scale = Scale::full();
        for &task in Task::value_variants() {
            assert_eq!(task.questions(1, &scale), task.questions(1, &scale));
            assert_ne!(task.questions(1, &scale), task.questions(2, &scale));
        }
        assert_eq!(domain_text(1, 5, 6), domain_text(1, 5, 6));
    }

    #[test]
    fn what_is_held_out_is_asked_nowhere_else() {
        let scale = Scale::full();
        for &task in Task::value_variants() {
            let parts = task.questions(1, &scale);
            let (train, validation) = (prompts(&parts.train), prompts(&parts.validation));
            let test = prompts(&parts.test);
            assert_eq!(train.len(), parts.train.len());
            assert_eq!(test.len(), parts.test.len());
            assert!(train.is_disjoint(&validation) && train.is_disjoint(&test));
            assert!(validation.is_disjoint(&test));
        }
    }

    #[test]
    fn every_fact_of_the_test_was_taught() {
        let parts = Task::Facts.questions(1, &Scale::full());
        let key = |q: &Question| {
            let named = |word: &&str| TOWNS.contains(word) || KNOWN.iter().any(|k| k.0 == *word);
            let mut words: Vec<String> = q
                .prompt
                .split(' ')
                .filter(named)
                .map(ToString::to_string)
                .collect();
            words.sort();
            (words, q.answer.clone())
        };
        let taught: HashSet<_> = parts.train.iter().map(key).collect();
        assert_eq!(taught.len(), parts.test.len());
        assert!(parts.test.iter().all(|q| taught.contains(&key(q))));
    }

    #[test]
    fn answers_are_right() {
        let parts = Task::Sums.questions(1, &Scale::full());
        for question in parts.train {
            let given: Vec<usize> = question
                .prompt
                .split(' ')
                .filter_map(|word| word.parse().ok())
                .collect();
            let rest: usize = question.answer.rsplit(' ').next().unwrap().parse().unwrap();
            assert_eq!(given[0] + given[1] - given[2], rest, "{question:?}");
        }
        let form = &Task::Form.questions(1, &Scale::full()).train;
        let find = |start: &str| form.iter().find(|q| q.prompt.starts_with(start)).unwrap();
        let one = find("reverse , brackets :");
        let words: Vec<&str> = one
            .prompt
            .split(' ')
            .skip(4)
            .take_while(|w| *w != ".")
            .collect();
        let back: Vec<&str> = words.iter().rev().copied().collect();
        assert_eq!(one.answer, format!("[ {} ]", back.join(" ")));
    }

    #[test]
    fn every_word_has_a_token() {
        let vocabulary = Vocabulary::new();
        for &task in Task::value_variants() {
            for question in task.questions(3, &Scale::full()).train {
                vocabulary.encode(&question.prompt).unwrap();
                vocabulary.encode(&question.answer).unwrap();
            }
        }
        for line in domain_text(1, 50, 9) {
            vocabulary.encode(&line).unwrap();
        }
    }
}
