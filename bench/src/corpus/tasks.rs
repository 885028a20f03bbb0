//! The instruction set: questions with short exact answers, from the words of the corpus.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::choices::Choices;
use super::words::{
    ANIMALS, COLOURS, NUMBERS, OBJECTS, OPPOSITES, PEOPLE, PLACES, VERBS, article, count, list,
};

/// One line of the set, in Alpaca's format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Example {
    /// The task.
    pub(crate) instruction: String,
    /// Its input.
    pub(crate) input: String,
    /// The only right answer.
    pub(crate) output: String,
}

impl Example {
    fn new(instruction: &str, input: impl Into<String>, output: impl Into<String>) -> Self {
        Self {
            instruction: instruction.to_owned(),
            input: input.into(),
            output: output.into(),
        }
    }
}

/// Instructions to train on and held-out ones, all different, from each task in turn.
///
/// The smallest tasks run out of words (40 words have an opposite) and are skipped from then on.
pub(crate) fn instructions(
    seed: u64,
    train: usize,
    held_out: usize,
) -> (Vec<Example>, Vec<Example>) {
    let tasks: [fn(&mut Choices) -> Example; 14] = [
        colour, place, person, object, opposite, sum, how_many, question, last_word, first_word,
        upper_case, sorted, past, reply,
    ];
    let mut choices = Choices::new(seed, 1);
    let mut made = HashSet::new();
    let mut all = Vec::new();
    'rounds: loop {
        for task in tasks {
            if all.len() == train + held_out {
                break 'rounds;
            }
            for _ in 0..20 {
                let one = task(&mut choices);
                if made.insert((one.instruction.clone(), one.input.clone())) {
                    all.push(one);
                    break;
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..all.len()).collect();
    let drawn = choices.some(&order, held_out);
    order.retain(|index| !drawn.contains(index));
    let pick = |indices: &[usize]| indices.iter().map(|index| all[*index].clone()).collect();
    (pick(&order), pick(&drawn))
}

/// A sentence with a person, a colour, an object and a place.
struct Scene {
    person: &'static str,
    colour: &'static str,
    noun: &'static str,
    place: &'static str,
    sentence: String,
}

impl Scene {
    fn new(choices: &mut Choices) -> Self {
        let person = choices.of(&PEOPLE);
        let colour = choices.of(&COLOURS);
        let noun = choices.of(&OBJECTS);
        let place = choices.of(&PLACES);
        let past = choices.of(&VERBS).1;
        let a = article(colour);
        let sentence = match choices.below(4) {
            0 => format!("{person} {past} {a} {colour} {noun} in the {place}."),
            1 => format!("In the {place} {person} {past} {a} {colour} {noun}."),
            2 => format!("{person} was in the {place} and {past} {a} {colour} {noun}."),
            _ => format!("The {colour} {noun} of {person} is in the {place}."),
        };
        Self {
            person,
            colour,
            noun,
            place,
            sentence,
        }
    }
}

fn colour(choices: &mut Choices) -> Example {
    let scene = Scene::new(choices);
    Example::new("Name the colour.", scene.sentence, scene.colour)
}

fn place(choices: &mut Choices) -> Example {
    let scene = Scene::new(choices);
    Example::new("Name the place.", scene.sentence, scene.place)
}

fn person(choices: &mut Choices) -> Example {
    let scene = Scene::new(choices);
    Example::new("Name the person.", scene.sentence, scene.person)
}

fn object(choices: &mut Choices) -> Example {
    let scene = Scene::new(choices);
    Example::new("Name the object.", scene.sentence, scene.noun)
}

fn opposite(choices: &mut Choices) -> Example {
    let pair = choices.of(&OPPOSITES);
    let (word, opposite) = if choices.below(2) == 0 {
        pair
    } else {
        (pair.1, pair.0)
    };
    Example::new("Give the opposite.", word, opposite)
}

fn sum(choices: &mut Choices) -> Example {
    let (a, b) = (choices.below(11), choices.below(10));
    let input = format!("{} plus {}", NUMBERS[a], NUMBERS[b]);
    Example::new("Add the numbers.", input, NUMBERS[a + b])
}

fn how_many(choices: &mut Choices) -> Example {
    let animals = choices.some(&ANIMALS, 2);
    let (a, b) = (1 + choices.below(9), 1 + choices.below(9));
    let place = choices.of(&PLACES);
    let input = format!(
        "There are {} and {} in the {place}.",
        count(a, animals[0]),
        count(b, animals[1])
    );
    let (animal, number) = if choices.below(2) == 0 {
        (animals[0], a)
    } else {
        (animals[1], b)
    };
    let instruction = format!("How many of these animals are there: {animal}?");
    Example::new(&instruction, input, NUMBERS[number])
}

fn question(choices: &mut Choices) -> Example {
    let (person, noun) = (choices.of(&PEOPLE), choices.of(&OBJECTS));
    let input = format!("{person} has the {noun}.");
    let output = format!("Does {person} have the {noun}?");
    Example::new("Turn the sentence into a question.", input, output)
}

fn some_words(choices: &mut Choices) -> Vec<&'static str> {
    let number = 3 + choices.below(3);
    choices.some(&OBJECTS, number)
}

fn last_word(choices: &mut Choices) -> Example {
    let words = some_words(choices);
    Example::new(
        "Repeat the last word.",
        words.join(" "),
        words[words.len() - 1],
    )
}

fn first_word(choices: &mut Choices) -> Example {
    let words = some_words(choices);
    Example::new("Repeat the first word.", words.join(" "), words[0])
}

fn upper_case(choices: &mut Choices) -> Example {
    let lists: [&[&str]; 4] = [&OBJECTS, &ANIMALS, &COLOURS, &PLACES];
    let words = choices.of(&lists);
    let word = choices.of(words);
    Example::new(
        "Write the word in large letters.",
        word,
        word.to_uppercase(),
    )
}

fn sorted(choices: &mut Choices) -> Example {
    let mut words = choices.some(&OBJECTS, 3);
    let input = list(&words);
    words.sort_unstable();
    Example::new("Sort the words as in a dictionary.", input, list(&words))
}

fn past(choices: &mut Choices) -> Example {
    let (now, then) = choices.of(&VERBS);
    let (noun, person) = (choices.of(&OBJECTS), choices.of(&PEOPLE));
    let input = format!("I {now} the {noun} of {person}.");
    let output = format!("I {then} the {noun} of {person}.");
    Example::new("Put the sentence in the past.", input, output)
}

/// Whether a scene has a colour: yes or no.
fn reply(choices: &mut Choices) -> Example {
    let scene = Scene::new(choices);
    let asked = if choices.below(2) == 0 {
        scene.colour
    } else {
        choices.of(&COLOURS)
    };
    let answer = if asked == scene.colour { "yes" } else { "no" };
    let instruction = format!("Is the {} {asked}? Answer yes or no.", scene.noun);
    Example::new(&instruction, scene.sentence, answer)
}
