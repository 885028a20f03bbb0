//! Chat templates.

use std::collections::BTreeMap;

use lisa_lm::ChatTemplate;
use lisa_lm::text::{Chat, Message};

use crate::rng::{Rng, mutate_bytes};

/// Parses a template and renders a chat, with and without a generation prompt.
pub fn template(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else {
        return;
    };
    let special = BTreeMap::from([("eos_token".to_owned(), "</s>".to_owned())]);
    let Ok(template) = ChatTemplate::new(source, &special) else {
        return;
    };
    let chat = Chat::from([
        Message::new("system", "Be brief."),
        Message::user("Two and two?"),
        Message::assistant("four"),
    ]);
    let _ = template.render(&chat, false);
    let _ = template.render(&chat.before(2), true);
}

/// Fragments to insert. What fills memory is not among them: a rendering's memory is not limited.
const FRAGMENTS: [&str; 21] = [
    "{{ ''[::-1] }}",
    "{{ 'a'.count('') ~ ''.rsplit() }}",
    "{{ 'x'.rsplit('') }}{{ 'x'.split('') }}{{ 'x'.replace('', '') }}",
    "{{ 'é'.find('x') }}{{ [].index(1) }}",
    "{{ messages | tojson(indent=9, separators=(1, 2)) }}",
    "{{ messages[99].content.x }}",
    "{{ none | length }}{{ none.x }}",
    "{{ 1 // 0 }}{{ 1 % 0 }}{{ 2 ** 9999 }}",
    "{{ -9223372036854775808 - 1 }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for x in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% generation %}{% generation %}a{% endgeneration %}",
    "{% endgeneration %}",
    "{%- if true -%}",
    "{% set ns = namespace() %}{% set ns.x = 1 %}",
    "{% break %}",
    "{{ strftime_now('%Q %') }}",
    "{{ raise_exception(messages) }}",
    "{{ '%s %d' | format(1) }}{{ '{0.x}'.format(1) }}",
    "\u{FDD0}",
];

/// Another template: changed bytes, or fragments between the tags of one.
#[must_use]
pub fn mutate(rng: &mut Rng, input: &[u8], _corpus: &[Vec<u8>]) -> Vec<u8> {
    if rng.once_in(3) {
        return mutate_bytes(rng, input);
    }
    let mut text = String::from_utf8_lossy(input).into_owned();
    for _ in 0..=rng.below(3) {
        let places: Vec<usize> = text.match_indices('{').map(|(at, _)| at).collect();
        let at = places.get(rng.below(places.len())).copied().unwrap_or(0);
        text.insert_str(at, rng.pick::<&str>(&FRAGMENTS));
    }
    text.into_bytes()
}
