//! The words that the grammar chooses from, and their forms.

/// People.
pub(crate) const PEOPLE: [&str; 24] = [
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Iris", "Jack", "Kate",
    "Leo", "Mary", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tina", "Victor", "Wendy", "Oscar",
    "Nina", "Hugo",
];

/// Objects.
pub(crate) const OBJECTS: [&str; 24] = [
    "apple", "ball", "book", "bottle", "bowl", "box", "chair", "clock", "coat", "cup", "drum",
    "flower", "hat", "kite", "lamp", "letter", "pen", "plate", "ring", "rope", "shirt", "spoon",
    "stone", "table",
];

/// Animals.
pub(crate) const ANIMALS: [&str; 12] = [
    "cat", "dog", "horse", "bird", "cow", "duck", "goat", "rabbit", "hen", "frog", "bear", "lion",
];

/// Colours.
pub(crate) const COLOURS: [&str; 10] = [
    "red", "blue", "green", "yellow", "black", "white", "brown", "pink", "grey", "purple",
];

/// Places, used after "in the".
pub(crate) const PLACES: [&str; 16] = [
    "garden", "kitchen", "park", "school", "market", "forest", "house", "village", "barn",
    "library", "shop", "tower", "yard", "station", "hall", "tent",
];

/// Opposites.
pub(crate) const OPPOSITES: [(&str, &str); 20] = [
    ("big", "small"),
    ("hot", "cold"),
    ("old", "new"),
    ("fast", "slow"),
    ("light", "dark"),
    ("happy", "sad"),
    ("open", "closed"),
    ("full", "empty"),
    ("high", "low"),
    ("long", "short"),
    ("wet", "dry"),
    ("hard", "soft"),
    ("clean", "dirty"),
    ("rich", "poor"),
    ("strong", "weak"),
    ("early", "late"),
    ("thick", "thin"),
    ("loud", "quiet"),
    ("good", "bad"),
    ("sweet", "sour"),
];

/// Numbers from zero to twenty.
pub(crate) const NUMBERS: [&str; 21] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];

/// What people do with an object: present and past.
pub(crate) const VERBS: [(&str, &str); 10] = [
    ("see", "saw"),
    ("find", "found"),
    ("carry", "carried"),
    ("buy", "bought"),
    ("want", "wanted"),
    ("hold", "held"),
    ("bring", "brought"),
    ("lose", "lost"),
    ("paint", "painted"),
    ("sell", "sold"),
];

/// The plural of an object or animal.
pub(crate) fn plural(noun: &str) -> String {
    if noun.ends_with('x') {
        format!("{noun}es")
    } else {
        format!("{noun}s")
    }
}

/// The sentence with a capital first letter.
pub(crate) fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

/// The article before a word: "a" or "an".
pub(crate) fn article(next: &str) -> &'static str {
    if next.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    }
}

/// A number of a noun, in words.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("one {noun}")
    } else {
        format!("{} {}", NUMBERS[number.min(20)], plural(noun))
    }
}

/// Words as a list in prose: "a, b and c".
pub(crate) fn list<T: AsRef<str>>(words: &[T]) -> String {
    match words {
        [] => String::new(),
        [only] => only.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", first.join(", "), last.as_ref())
        }
    }
}
