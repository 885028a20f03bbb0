//! The text of a template as it is compiled: with guards behind the operands that cost memory.
//!
//! `a ~ b` becomes `a|_whole ~ b|_whole`, and so on: see [`Guard`]. A filter binds more tightly than any
//! operator, so nothing else changes. Long text between tags gets a `{{ _spent(LENGTH) }}` in it, where
//! it changes no whitespace control, and `{% generation %}` becomes `{% if true %}`: transformers uses
//! it to find the assistant's tokens; what it encloses is printed as it is. What the guards do is in
//! `limits.rs`. Tests: at the foot, and in `chat/tests.rs`.

use super::limits;

/// Text between tags that is longer than this is paid for.
const LONG: usize = 32;
/// Raw text, and whitespace between tags, that is longer than this is refused where it cannot be paid
/// for.
const BLANK: usize = 256;

/// The template with its guards; the error says what is refused.
pub(super) fn guarded(source: &str) -> Result<String, String> {
    if source.len() as u64 > crate::files::TEMPLATE_BYTES {
        let (found, most) = (source.len(), crate::files::TEMPLATE_BYTES);
        return Err(format!("it has {found} bytes; at most {most} are read"));
    }
    debug_assert!(limits::BUDGET > source.len());
    let mut out = String::with_capacity(2 * source.len());
    let mut rest = source;
    let mut stripped = false;
    while let Some(start) = next_tag(rest) {
        let strips = rest[start + 2..].starts_with('-');
        text(&rest[..start], stripped || strips, &mut out)?;
        rest = &rest[start..];
        let length = match &rest[..2] {
            "{#" => rest.find("#}").map(|at| at + 2),
            _ => tag_end(rest),
        };
        // An open tag: the parser says so.
        let Some(mut length) = length else {
            out.push_str(rest);
            return Ok(out);
        };
        let tag = &rest[..length];
        match &tag[..2] {
            "{#" => out.push_str(tag),
            _ if word(tag) == "raw" => {
                // As it stands, up to the tag that ends it. It cannot be paid for.
                let end = end_of_raw(&rest[length..]);
                length += end.unwrap_or(rest.len() - length);
                if length > BLANK {
                    return Err(format!(
                        "its raw text has {length} bytes, and may have {BLANK}"
                    ));
                }
                out.push_str(&rest[..length]);
            }
            _ => code(tag, &mut out),
        }
        stripped = rest[..length]
            .trim_end_matches(['%', '}', '#'])
            .ends_with('-');
        rest = &rest[length..];
    }
    text(rest, stripped, &mut out)?;
    Ok(out)
}

fn next_tag(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    (0..bytes.len().saturating_sub(1))
        .find(|&at| bytes[at] == b'{' && matches!(bytes[at + 1], b'{' | b'%' | b'#'))
}

/// The length of a tag: strings and brackets in it may hold what looks like its end.
fn tag_end(tag: &str) -> Option<usize> {
    let bytes = tag.as_bytes();
    let end: &[u8] = if bytes[1] == b'%' { b"%}" } else { b"}}" };
    let (mut at, mut depth) = (2, 0_i64);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"') => {
                at += string_length(&bytes[at..], quote)?;
                continue;
            }
            _ if depth == 0 && bytes[at..].starts_with(end) => return Some(at + 2),
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

fn string_length(bytes: &[u8], quote: u8) -> Option<usize> {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            byte if byte == quote => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The first word of a block tag.
fn word(tag: &str) -> &str {
    let Some(inside) = tag.strip_prefix("{%") else {
        return "";
    };
    let inside = inside.trim_start_matches(['-', '+']).trim_start();
    let end = inside.find(|c: char| !c.is_alphanumeric() && c != '_');
    &inside[..end.unwrap_or(inside.len())]
}

/// Where the tag that ends raw text ends.
fn end_of_raw(text: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = text[from..].find("{%") {
        let start = from + at;
        let end = start + text[start..].find("%}")? + 2;
        if word(&text[start..end]) == "endraw" {
            return Some(end);
        }
        from = start + 2;
    }
    None
}

/// Text between tags. `stripped` is whether whitespace at one of its ends is taken away.
fn text(text: &str, stripped: bool, out: &mut String) -> Result<(), String> {
    if text.len() <= LONG {
        out.push_str(text);
        return Ok(());
    }
    let paid = format!("{{{{ _spent({}) }}}}", text.len());
    let trimmed = text.trim_end();
    let last = trimmed.char_indices().next_back().map(|(at, _)| at);
    // In front of the last letter: what whitespace there is stays next to the same tag.
    if let Some(mut at) = last {
        while text[..at].ends_with('{') {
            at -= 1;
        }
        out.push_str(&text[..at]);
        out.push_str(&paid);
        out.push_str(&text[at..]);
        return Ok(());
    }
    // In the middle of at least three lines, so that those next to the tags stay what they are.
    let lines: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
    if !stripped && lines.len() >= 3 {
        let at = lines[lines.len() / 2];
        out.push_str(&text[..at]);
        out.push_str(&paid);
        out.push_str(&text[at..]);
    } else if !stripped && text.len() > BLANK {
        return Err(format!("it has {} spaces between two tags", text.len()));
    } else {
        out.push_str(text);
    }
    Ok(())
}

/// What is put behind an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// Of `+`: the text or the elements are paid for.
    Plus,
    /// Of `~`, a comparison or `in`: all of it is paid for, with what is in it.
    Whole,
    /// Of the only product in a tag.
    Times,
    /// Of one of several products, quotients and powers: there texts are refused.
    Chain,
}

impl Guard {
    fn text(self) -> &'static str {
        match self {
            Self::Plus => "|_joined ",
            Self::Whole => "|_whole ",
            Self::Times => "|_times ",
            Self::Chain => "|_chain ",
        }
    }
}

/// One level of brackets in a tag.
// What was read is a handful of facts, each true or not.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// Whether what was read last is an operand, or the end of one.
    operand: bool,
    /// The guard that the operand needs for the operator in front of it.
    before: Option<Guard>,
    /// Whether the operand has a slice in it, which copies.
    sliced: bool,
    /// Whether a name belongs to the operand: behind `.` or `|`.
    member: bool,
    /// Whether the brackets are a subscript.
    subscript: bool,
    /// Whether there was a colon in them.
    colon: bool,
}

impl Level {
    /// The operand ends here; `after` is the guard that the operator behind it asks for.
    fn end(&mut self, after: Option<Guard>, out: &mut String) {
        if self.operand {
            if let (Some(before), Some(after)) = (self.before, after)
                && before != after
            {
                out.push_str(before.text());
            }
            let guard = after.or(self.before);
            let guard = guard.or(self.sliced.then_some(Guard::Plus));
            out.push_str(guard.map_or("", Guard::text));
        }
        self.before = after;
        (self.operand, self.sliced, self.member) = (false, false, false);
    }
}

/// The code of a tag, its marks included.
// One arm for each kind of token.
#[allow(clippy::too_many_lines)]
fn code(tag: &str, out: &mut String) {
    let (body, end) = tag.split_at(tag.len() - 2);
    let (body, mark) = match body.as_bytes().last() {
        Some(b'-' | b'+') if body.len() > 2 => body.split_at(body.len() - 1),
        _ => (body, ""),
    };
    let first = word(tag);
    if matches!(first, "generation" | "endgeneration") {
        let to = if first == "generation" {
            "if true"
        } else {
            "endif"
        };
        out.push_str(&tag.replacen(first, &format!(" {to} "), 1));
        return;
    }
    let front = 2 + usize::from(matches!(body.as_bytes().get(2), Some(b'-' | b'+')));
    let (front, body) = body.split_at(front.min(body.len()));
    out.push_str(front);
    // Only names in a `for` that come before its `in`.
    let mut targets = first == "for";
    // What is assigned to an attribute stays: it must not be nested without end.
    let mut kept = false;
    let mut levels = vec![Level::default()];
    let times = if tokens(body).filter(|token| is_product(token)).count() > 1 {
        Guard::Chain
    } else {
        Guard::Times
    };
    let mut rest = body;
    while let Some(token) = next_token(rest) {
        rest = &rest[token.len()..];
        let depth = levels.len();
        let Some(level) = levels.last_mut() else {
            break;
        };
        let starts = token.chars().next().unwrap_or(' ');
        match token {
            _ if starts.is_whitespace() => {}
            "+" if level.operand => level.end(Some(Guard::Plus), out),
            "~" if level.operand => level.end(Some(Guard::Whole), out),
            "*" if level.operand => level.end(Some(times), out),
            "==" | "!=" | "<" | ">" | "<=" | ">=" if level.operand => {
                level.end(Some(Guard::Whole), out);
            }
            "in" if level.operand && !level.member => {
                if targets && depth == 1 {
                    targets = false;
                    level.end(None, out);
                } else {
                    level.end(Some(Guard::Whole), out);
                }
            }
            "." | "|" => level.member = true,
            "(" | "[" | "{" => {
                let subscript = token == "[" && level.operand;
                level.member = false;
                levels.push(Level {
                    subscript,
                    ..Level::default()
                });
            }
            ")" | "]" | "}" => {
                level.end(None, out);
                let sliced = level.subscript && level.colon;
                if depth > 1 {
                    levels.pop();
                }
                if let Some(outer) = levels.last_mut() {
                    outer.operand = true;
                    outer.sliced |= sliced;
                }
            }
            ":" => {
                level.end(None, out);
                level.colon = true;
            }
            "=" => {
                level.end(None, out);
                let dotted = || body[..body.len() - rest.len()].contains('.');
                if depth == 1 && first == "set" && !kept && dotted() {
                    kept = true;
                    out.push_str("=(");
                    continue;
                }
            }
            "and" | "or" | "not" | "is" | "if" | "else" if !level.member => level.end(None, out),
            _ if starts.is_alphanumeric() || starts == '_' || matches!(starts, '\'' | '"') => {
                if level.operand && !level.member {
                    // A word of the statement, such as `recursive`, or the argument of a test.
                    level.end(None, out);
                }
                (level.operand, level.member) = (true, false);
            }
            // Another operator, or the sign of a number.
            _ => level.end(None, out),
        }
        out.push_str(token);
    }
    if let Some(level) = levels.last_mut() {
        level.end(None, out);
    }
    if kept {
        out.push_str(")|_keep ");
    }
    out.push_str(mark);
    out.push_str(end);
}

fn tokens(mut code: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let token = next_token(code)?;
        code = &code[token.len()..];
        Some(token)
    })
}

fn is_product(token: &str) -> bool {
    matches!(token, "*" | "/" | "//" | "%" | "**")
}

/// The next piece of code: whitespace, a string, a word or number, or an operator.
fn next_token(code: &str) -> Option<&str> {
    let first = code.chars().next()?;
    let while_ = |is: fn(char) -> bool| code.find(|c| !is(c)).unwrap_or(code.len());
    let length = match first {
        '\'' | '"' => string_length(code.as_bytes(), first as u8).unwrap_or(code.len()),
        c if c.is_whitespace() => while_(char::is_whitespace),
        c if c.is_ascii_digit() => {
            let digits = while_(|c| c.is_alphanumeric() || c == '_' || c == '.');
            let exponent =
                code[..digits].ends_with(['e', 'E']) && code[digits..].starts_with(['-', '+']);
            let rest = &code[digits + usize::from(exponent)..];
            let more = rest.find(|c: char| !exponent || !c.is_ascii_digit());
            digits + usize::from(exponent) + more.unwrap_or(rest.len())
        }
        c if c.is_alphanumeric() || c == '_' => while_(|c| c.is_alphanumeric() || c == '_'),
        _ => match code.get(..2) {
            Some("//" | "**" | "==" | "!=" | ">=" | "<=") => 2,
            _ => first.len_utf8(),
        },
    };
    Some(&code[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_get_guards_and_all_else_stays() {
        let cases = [
            ("{{ a.b ~ c(d)[0] }}", "{{ a.b |_whole ~ c(d)[0] |_whole }}"),
            (
                "{{ a + b|trim + 'x' -}}",
                "{{ a |_joined + b|trim |_joined + 'x' |_joined -}}",
            ),
            ("{{ -1 }}{{ f(*a, b=+c) }}", "{{ -1 }}{{ f(*a, b=+c) }}"),
            (
                "{{ a + 1e-5 - 1.5 }}",
                "{{ a |_joined + 1e-5 |_joined - 1.5 }}",
            ),
            ("{% if a == b %}", "{% if a |_whole == b |_whole %}"),
            ("{% if not a in b %}", "{% if not a |_whole in b |_whole %}"),
            (
                "{% for x, y in a + b recursive %}",
                "{% for x, y in a |_joined + b |_joined recursive %}",
            ),
            ("{{ a * 2 }}", "{{ a |_times * 2 |_times }}"),
            (
                "{{ a[1:] }}{{ a[1:].b }}",
                "{{ a[1:] |_joined }}{{ a[1:].b |_joined }}",
            ),
            ("{% set ns.x = [a] %}", "{% set ns.x =( [a] )|_keep %}"),
            ("{% set x = {'a': '}}'} %}", "{% set x = {'a': '}}'} %}"),
            (
                "{% generation %}{%- endgeneration -%}",
                "{%  if true  %}{%-  endif  -%}",
            ),
            ("{# a ~ b #}a ~ b", "{# a ~ b #}a ~ b"),
            (
                "{{ x.in + y is string }}",
                "{{ x.in |_joined + y |_joined is string }}",
            ),
            (
                "{{ 'a~' ~ \"\\\"~\" }}",
                "{{ 'a~' |_whole ~ \"\\\"~\" |_whole }}",
            ),
        ];
        for (source, expected) in cases {
            assert_eq!(guarded(source).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn a_chain_of_products_is_told_from_one() {
        let found = guarded("{{ a * b * c }}").unwrap();
        assert_eq!(found, "{{ a |_chain * b |_chain * c |_chain }}");
    }

    #[test]
    fn long_text_is_paid_for_where_it_changes_no_whitespace() {
        let found = guarded("{% if a %}\n  0123456789012345678901234567890123456789  {% endif %}");
        let expected = "{% if a %}\n  012345678901234567890123456789012345678\
                        {{ _spent(45) }}9  {% endif %}";
        assert_eq!(found.unwrap(), expected);
    }
}
