//! Chat templates.

use std::collections::BTreeMap;

use lisa_lm::ChatTemplate;
use lisa_lm::text::{Chat, Message};

use crate::rng::{Rng, mutate_bytes};

/// A template: parses it, and writes two chats down with it.
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

/// Expressions to put into templates; `@` is where another one goes.
const EXPRESSIONS: [&str; 44] = [
    "x",
    "ns",
    "ns.x",
    "messages",
    "messages[0].content",
    "'a'",
    "''",
    "0",
    "1",
    "1000000000",
    "-1",
    "none",
    "true",
    "[]",
    "{}",
    "[@]",
    "[@, @]",
    "{'k': @}",
    "(@)",
    "@ ~ @",
    "@ + @",
    "@ * @",
    "@ - @",
    "@ ** @",
    "@ // @",
    "@ % @",
    "@ in @",
    "@ == @",
    "@ < @",
    "not @",
    "@ if @ else @",
    "@[0]",
    "@[::-1]",
    "@.x",
    "@.format(@)",
    "@.replace('', @)",
    "@.join(@)",
    "namespace(x=@)",
    "dict(x=@)",
    "range(@)",
    "range(100000)",
    "m(@)",
    "@ is eq(@)",
    "@ is string",
];

/// Filters to put behind an expression.
const FILTERS: [&str; 34] = [
    "upper",
    "lower",
    "trim",
    "length",
    "string",
    "list",
    "tojson",
    "tojson(indent=9)",
    "join(@)",
    "replace(@, @)",
    "indent(99)",
    "format(@)",
    "sort",
    "unique",
    "reverse",
    "first",
    "last",
    "sum",
    "batch(@)",
    "slice(@)",
    "batch(3, @)",
    "map('upper')",
    "map(attribute='x')",
    "select('string')",
    "selectattr('role', 'equalto', @)",
    "groupby('x')",
    "dictsort",
    "items",
    "int",
    "float",
    "round(@)",
    "urlencode",
    "pprint",
    "zip(@)",
];

/// Statements to put into templates; `@` is an expression and `$` another statement.
const STATEMENTS: [&str; 18] = [
    "{{ @ }}",
    "{{- @ -}}",
    "{% set x = @ %}",
    "{% set ns = namespace(x=@) %}",
    "{% set ns.x = @ %}",
    "{% set x %}$$$$$$$${% endset %}",
    "{% for x in @ %}$$${% endfor %}",
    "{% for m in messages %}$${% endfor %}",
    "{% for i in range(100000) %}$${% endfor %}",
    "{% for x in @ recursive %}${{ loop(@) }}{% endfor %}",
    "{% if @ %}${% else %}${% endif %}",
    "{% macro m(x) %}$${{ m(@) }}{% endmacro %}{{ m(@) }}",
    "{% macro m(x) %}${% endmacro %}$",
    "{% filter upper %}${% endfilter %}",
    "{% generation %}${% endgeneration %}",
    "text\n  ",
    "{% raw %}{{ x }}{% endraw %}",
    "{# {% #}",
];

fn expression(rng: &mut Rng, depth: usize, out: &mut String) {
    let last = depth > 5;
    let form = if last {
        rng.below(14)
    } else {
        rng.below(EXPRESSIONS.len())
    };
    for character in EXPRESSIONS[form].chars() {
        if character == '@' {
            expression(rng, depth + 1, out);
        } else {
            out.push(character);
        }
    }
    if !last && rng.once_in(5) {
        out.push('|');
        for character in rng.pick(&FILTERS).chars() {
            if character == '@' {
                expression(rng, depth + 2, out);
            } else {
                out.push(character);
            }
        }
    }
}

fn statement(rng: &mut Rng, depth: usize, out: &mut String) {
    let form = if depth > 3 {
        rng.below(5)
    } else {
        rng.below(STATEMENTS.len())
    };
    for character in STATEMENTS[form].chars() {
        match character {
            '@' => expression(rng, depth, out),
            '$' => statement(rng, depth + 1, out),
            other => out.push(other),
        }
    }
}

/// Another template: new from a grammar, a piece of the corpus with new pieces in it, or changed bytes.
#[must_use]
pub fn mutate(rng: &mut Rng, input: &[u8], _corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut out = String::new();
    match rng.below(4) {
        0 => return mutate_bytes(rng, input),
        1 => {
            let text = String::from_utf8_lossy(input);
            // Between two tags.
            let places: Vec<usize> = text.match_indices('{').map(|(at, _)| at).collect();
            let at = places.get(rng.below(places.len())).copied().unwrap_or(0);
            out.push_str(&text[..at]);
            statement(rng, 1, &mut out);
            out.push_str(&text[at..]);
        }
        _ => {
            for _ in 0..=rng.below(6) {
                statement(rng, 0, &mut out);
            }
        }
    }
    out.into_bytes()
}
