//! `{% generation %}` blocks, which enclose the text that the assistant generates.
//!
//! minijinja has no custom statements, so a block becomes a `{% filter %}` block. The filter puts a
//! mark before and after the text. A `{% with %}` block inside it has its own scope, as in
//! transformers. The marks are removed from the rendered text, and their positions become spans.

use std::ops::Range;

/// The name of the filter.
pub(super) const FILTER: &str = "_generation";
/// The marks. Unicode reserves these characters for use inside a program.
const MARKS: [char; 2] = ['\u{FDD0}', '\u{FDD1}'];

/// Replaces generation blocks by filter blocks. Also returns whether the template has generation
/// blocks.
pub(super) fn to_filter_blocks(source: &str) -> (String, bool) {
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
            "generation" => format!("filter {FILTER} %}}{{% with"),
            "endgeneration" => "endwith %}{% endfilter".to_owned(),
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

/// The text of a generation block, between marks.
pub(super) fn mark(text: &str) -> String {
    let [start, end] = MARKS;
    format!("{start}{text}{end}")
}

/// Removes the marks. Returns the text and the span of each generation block; a block inside
/// another block belongs to the outer one. `None` if the marks do not match, which happens if the
/// chat contains a mark.
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
                if open.is_empty() {
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
            to_filter_blocks("a{%- generation -%} b {%+endgeneration%}{% if generation %}");
        let wanted = "a{%- filter _generation %}{% with -%} b {%+endwith %}{% endfilter%}{% if generation %}";
        assert_eq!((out.as_str(), found), (wanted, true));
        for unchanged in [
            "{% raw %}{% generation %}{% endraw %}",
            "{% set generation = 1 %}{% generations %}{{ generation }}{%",
        ] {
            assert_eq!(to_filter_blocks(unchanged), (unchanged.to_owned(), false));
        }
    }

    #[test]
    fn marks_become_spans_of_bytes() {
        let [a, z] = MARKS;
        let (text, spans) = take_marks(&format!("é{a}b{z}{a}{z}c{a}d{a}e{z}{z}")).unwrap();
        assert_eq!((text.as_str(), spans), ("ébcde", vec![2..3, 3..3, 4..6]));
        for odd in [format!("{a}"), format!("{z}"), format!("{z}{a}")] {
            assert_eq!(take_marks(&odd), None);
        }
    }
}
