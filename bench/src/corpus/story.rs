//! Paragraphs for pretraining: short stories and descriptions, arithmetic, comparisons, lists,
//! opposites, and people who ask each other questions in prose.

use super::choices::Choices;
use super::words::{
    ANIMALS, COLOURS, NUMBERS, OBJECTS, OPPOSITES, PEOPLE, PLACES, VERBS, article, capital, count,
    list,
};

/// Paragraphs of a seed. A larger number of paragraphs starts with the same text.
pub(crate) fn pretraining_text(seed: u64, paragraphs: usize) -> Vec<String> {
    let mut choices = Choices::new(seed, 0);
    let kinds: [fn(&mut Choices) -> String; 18] = [
        story,
        description,
        sums,
        comparison,
        shopping,
        opposites,
        talk,
        talk,
        talk,
        talk,
        counting,
        spelling,
        echo,
        echo,
        echo,
        echo,
        echo,
        order,
    ];
    (0..paragraphs)
        .map(|_| choices.of(&kinds)(&mut choices))
        .collect()
}

fn thing(choices: &mut Choices) -> &'static str {
    if choices.below(4) == 0 {
        choices.of(&ANIMALS)
    } else {
        choices.of(&OBJECTS)
    }
}

/// A person finds something and meets somebody; the end refers to the beginning.
fn story(choices: &mut Choices) -> String {
    let people = choices.some(&PEOPLE, 2);
    let (one, two) = (people[0], people[1]);
    let places = choices.some(&PLACES, 2);
    let (place, later) = (places[0], places[1]);
    let (noun, colour) = (thing(choices), choices.of(&COLOURS));
    let past = choices.of(&VERBS).1;
    let start = match choices.below(3) {
        0 => format!("One day {one} went to the {place}."),
        1 => format!("{one} was in the {place}."),
        _ => format!("In the morning {one} walked to the {place}."),
    };
    let middle = match choices.below(3) {
        0 => format!("There {one} {past} {} {colour} {noun}.", article(colour)),
        1 => format!("{one} {past} {} {colour} {noun} there.", article(colour)),
        _ => format!(
            "{one} and {two} {past} {} {colour} {noun} in the {place}.",
            article(colour)
        ),
    };
    let end = match choices.below(4) {
        0 => format!("Then {one} gave the {colour} {noun} to {two}. {two} was happy."),
        1 => format!("{two} asked for the {noun}, and {one} took the {noun} to the {later}."),
        2 => format!("Later the {noun} was in the {later}. The {noun} was {colour}."),
        _ => format!("The {colour} {noun} was in the {place}, and {one} was with {two}."),
    };
    format!("{start} {middle} {end}")
}

/// Objects in a place, and their colours.
fn description(choices: &mut Choices) -> String {
    let place = choices.of(&PLACES);
    let nouns = choices.some(&OBJECTS, 3);
    let colours = choices.some(&COLOURS, 3);
    let pair = choices.of(&OPPOSITES);
    let owner = choices.of(&PEOPLE);
    format!(
        "The {place} is {}. In the {place} there is {} {} {} and {} {} {}. {owner} has the {} {}. \
         The {} is {}, and the {} is {}.",
        pair.0,
        article(colours[0]),
        colours[0],
        nouns[0],
        article(colours[1]),
        colours[1],
        nouns[1],
        colours[2],
        nouns[2],
        nouns[0],
        colours[0],
        nouns[1],
        colours[1],
    )
}

fn sums(choices: &mut Choices) -> String {
    let sentences: Vec<String> = (0..3)
        .map(|_| {
            let (a, b) = (choices.below(11), choices.below(10));
            let sentence = match choices.below(3) {
                0 => format!("{} plus {} is {}.", NUMBERS[a], NUMBERS[b], NUMBERS[a + b]),
                1 => format!("{} and {} make {}.", NUMBERS[a], NUMBERS[b], NUMBERS[a + b]),
                _ => format!("{} minus {} is {}.", NUMBERS[a + b], NUMBERS[b], NUMBERS[a]),
            };
            capital(&sentence)
        })
        .collect();
    sentences.join(" ")
}

fn comparison(choices: &mut Choices) -> String {
    let (a, b) = (choices.below(20), choices.below(20));
    let (small, large) = (a.min(b), a.max(b) + usize::from(a == b));
    let people = choices.some(&PEOPLE, 2);
    let noun = thing(choices);
    format!(
        "{} is more than {}. {} has {} and {} has {}. So {} has more than {}. {} is less than {}.",
        capital(NUMBERS[large]),
        NUMBERS[small],
        people[0],
        count(large, noun),
        people[1],
        count(small, noun),
        people[0],
        people[1],
        capital(NUMBERS[small]),
        NUMBERS[large],
    )
}

/// A list that is repeated, so that the model learns to copy.
fn shopping(choices: &mut Choices) -> String {
    let person = choices.of(&PEOPLE);
    let number = 2 + choices.below(4);
    let nouns = choices.some(&OBJECTS, number);
    format!(
        "{person} needs {} things: {}. {person} buys {}. The first is the {}, and the last is the \
         {}.",
        NUMBERS[number],
        list(&nouns),
        list(&nouns),
        nouns[0],
        nouns[number - 1],
    )
}

fn opposites(choices: &mut Choices) -> String {
    let nouns = choices.some(&OBJECTS, 2);
    let pairs = choices.some(&OPPOSITES, 2);
    let turned: Vec<_> = pairs
        .iter()
        .map(|pair| {
            if choices.below(2) == 0 {
                *pair
            } else {
                (pair.1, pair.0)
            }
        })
        .collect();
    format!(
        "The {} is {}, but the {} is {}. What is not {} is {}. {} and {} are opposites.",
        nouns[0],
        turned[0].0,
        nouns[1],
        turned[0].1,
        turned[1].0,
        turned[1].1,
        capital(turned[1].0),
        turned[1].1,
    )
}

/// A report about two people, then three questions and their answers.
fn talk(choices: &mut Choices) -> String {
    let people = choices.some(&PEOPLE, 4);
    let nouns = choices.some(&OBJECTS, 2);
    let colours = choices.some(&COLOURS, 2);
    let places = choices.some(&PLACES, 2);
    let mut text = format!("{} and {} talk.", people[0], people[1]);
    for i in 0..2 {
        let (who, colour, noun, place) = (people[i + 2], colours[i], nouns[i], places[i]);
        let past = choices.of(&VERBS).1;
        let a = article(colour);
        text += &match choices.below(3) {
            0 => format!(" {who} {past} {a} {colour} {noun} in the {place}."),
            1 => format!(" In the {place} {who} {past} {a} {colour} {noun}."),
            _ => format!(" The {colour} {noun} of {who} is in the {place}."),
        };
    }
    for _ in 0..3 {
        let i = choices.below(2);
        let (who, colour, noun, place) = (people[i + 2], colours[i], nouns[i], places[i]);
        let (question, answer) = match choices.below(5) {
            0 => (format!("Where is the {noun}?"), place),
            1 => (format!("What colour is the {noun}?"), colour),
            2 => (format!("Whose is the {noun}?"), who),
            3 => (format!("What is in the {place}?"), noun),
            _ => (format!("What does {who} have?"), noun),
        };
        text += &format!(
            " \"{question}\" asked {}. \"The answer is {answer}\", said {}.",
            people[0], people[1]
        );
    }
    text
}

fn counting(choices: &mut Choices) -> String {
    let place = choices.of(&PLACES);
    let animals = choices.some(&ANIMALS, 2);
    let (a, b) = (1 + choices.below(9), 1 + choices.below(9));
    let start = choices.below(16);
    format!(
        "There are {} and {} in the {place}. Together there are {} animals. Count: {}.",
        count(a, animals[0]),
        count(b, animals[1]),
        NUMBERS[a + b],
        NUMBERS[start..start + 5].join(", "),
    )
}

/// Words in capital letters, so that the model learns both forms.
fn spelling(choices: &mut Choices) -> String {
    let words: Vec<&str> = vec![thing(choices), choices.of(&COLOURS), choices.of(&PLACES)];
    let signs: Vec<String> = words
        .iter()
        .map(|word| format!("the word {word} as {}", word.to_uppercase()))
        .collect();
    format!(
        "{} wrote {} on the sign.",
        choices.of(&PEOPLE),
        list(&signs)
    )
}

/// Random words, said three times: they can only be copied.
fn echo(choices: &mut Choices) -> String {
    let mut all: Vec<&str> = Vec::new();
    for list in [&OBJECTS[..], &ANIMALS, &COLOURS, &PLACES, &PEOPLE] {
        all.extend(list);
    }
    let number = 3 + choices.below(8);
    let words = choices.some(&all, number);
    let said = words.join(" ");
    let end = match choices.below(3) {
        0 => format!("The last word was {}.", words[number - 1]),
        1 => format!("The first word was {}.", words[0]),
        _ => format!(
            "The first word was {}, and the last was {}.",
            words[0],
            words[number - 1]
        ),
    };
    let people = choices.some(&PEOPLE, 3);
    format!(
        "{} said \"{said}\", {} said \"{said}\" and {} said \"{said}\" too. {end}",
        people[0], people[1], people[2],
    )
}

fn order(choices: &mut Choices) -> String {
    let mut words = choices.some(&OBJECTS, 3);
    let before = list(&words);
    words.sort_unstable();
    format!(
        "In a dictionary {before} stand in this order: {}.",
        list(&words)
    )
}
