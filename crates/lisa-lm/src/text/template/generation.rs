//! `{% generation %}` blocks, which say what text the assistant generates.
//!
//! minijinja has no statements of one's own, so a block becomes a `{% call %}` block of a function that
//! puts a mark before and after the text. transformers makes a call block of it too, so that scopes are
//! the same. The marks are taken out of the rendered text, and where they were is known then.

use std::ops::Range;

use minijinja::value::Kwargs;
use minijinja::{Error, State, Value};

/// The function that is called.
pub(super) const FUNCTION: &str = "_generation";
/// The marks: Unicode reserves these characters for use inside a program.
const MARKS: [char; 2] = ['\u{FDD0}', '\u{FDD1}'];

/// The template with call blocks in place of generation blocks, and whether it has any.
pub(super) fn to_call_blocks(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len());
    let (mut rest, mut raw, mut found) = (source, false, false);
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        let inside = tag.trim_start_matches(['-', '+']).trim_start();
        let length = inside.find(|c: char| !c.is_alphanumeric() && c != '_');
        let (word, after) = inside.split_at(length.unwrap_or(inside.len()));
        let ends = after.trim_start().trim_start_matches(['-', '+']);
        raw = match word {
            "raw" => true,
            "endraw" => false,
            _ => raw,
        };
        let statement = match word {
            "generation" => format!("call {FUNCTION}()"),
            "endgeneration" => "endcall".to_owned(),
            _ => word.to_owned(),
        };
        let is_ours = statement != word && !raw && ends.starts_with("%}");
        found |= is_ours;
        out.push_str(before);
        out.push_str(&tag[..tag.len() - inside.len()]);
        out.push_str(if is_ours { &statement } else { word });
        rest = after;
    }
    out.push_str(rest);
    (out, found)
}

/// Writes a generation block between marks.
pub(super) fn mark(state: &State, block: Kwargs) -> Result<String, Error> {
    let text = block.get::<Value>("caller")?.call(state, &[])?;
    let [start, end] = MARKS;
    Ok(format!("{start}{text}{end}"))
}

/// The text without its marks, and what was between each pair of them; a block inside another counts as
/// part of the outer one. None where the marks do not match, as the chat has one of them.
pub(super) fn take_marks(marked: &str) -> Option<(String, Vec<Range<usize>>)> {
    let mut text = String::with_capacity(marked.len());
    let mut spans = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for part in marked.split_inclusive(MARKS) {
        let body = part.trim_end_matches(MARKS);
        text.push_str(body);
        match part[body.len()..].chars().next() {
            Some(mark) if mark == MARKS[0] => open.push(text.len()),
            Some(_) => {
                let start = open.pop()?;
                if open.is_empty() && start < text.len() {
                    spans.push(start..text.len());
                }
            }
            None => {}
        }
    }
    open.is_empty().then_some((text, spans))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_keep_their_whitespace_control() {
        let (out, found) =
            to_call_blocks("a{%- generation -%} b {%+endgeneration%}{% if generation %}");
        let wanted = "a{%- call _generation() -%} b {%+endcall%}{% if generation %}";
        assert_eq!((out.as_str(), found), (wanted, true));
        for unchanged in [
            "{% raw %}{% generation %}{% endraw %}",
            "{% set generation = 1 %}{% generations %}{{ generation }}{%",
        ] {
            assert_eq!(to_call_blocks(unchanged), (unchanged.to_owned(), false));
        }
    }

    #[test]
    fn marks_become_spans_of_bytes() {
        let [a, z] = MARKS;
        let (text, spans) = take_marks(&format!("é{a}b{z}{a}{z}c{a}d{a}e{z}{z}")).unwrap();
        assert_eq!((text.as_str(), spans), ("ébcde", vec![2..3, 4..6]));
        for odd in [format!("{a}"), format!("{z}"), format!("{z}{a}")] {
            assert_eq!(take_marks(&odd), None);
        }
    }
}
