//! Rust sources as tokens: identifiers, `::` and single characters, without comments, literals and
//! items under `#[cfg(test)]`.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// The tokens of a source file. Of a documentation comment, the attribute without its text is left.
pub(crate) fn tokens(source: &str) -> Vec<String> {
    let stream: TokenStream = source.parse().expect("Rust");
    let mut all = Vec::new();
    flatten(stream, &mut all);
    without_tests(&all)
}

fn flatten(stream: TokenStream, tokens: &mut Vec<String>) {
    // Whether the last token is a colon that the next one follows at once.
    let mut is_joint = false;
    for tree in stream {
        let was_joint = std::mem::take(&mut is_joint);
        match tree {
            TokenTree::Ident(ident) => tokens.push(ident.to_string()),
            TokenTree::Literal(_) => {}
            TokenTree::Punct(punct) if punct.as_char() == ':' && was_joint => {
                tokens.pop();
                tokens.push("::".into());
            }
            TokenTree::Punct(punct) => {
                is_joint = punct.as_char() == ':' && punct.spacing() == Spacing::Joint;
                tokens.push(punct.to_string());
            }
            TokenTree::Group(group) => {
                let [open, close] = match group.delimiter() {
                    Delimiter::Parenthesis => ["(", ")"],
                    Delimiter::Brace => ["{", "}"],
                    Delimiter::Bracket => ["[", "]"],
                    Delimiter::None => ["", ""],
                };
                tokens.push(open.into());
                flatten(group.stream(), tokens);
                tokens.push(close.into());
            }
        }
    }
}

fn without_tests(tokens: &[String]) -> Vec<String> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if tokens[i..].len() > mark.len() && tokens[i..].iter().zip(mark).all(|(a, b)| a == b) {
            i = end_of_item(tokens, i + mark.len());
        } else {
            kept.push(tokens[i].clone());
            i += 1;
        }
    }
    kept
}

/// After the first `;` or the first pair of braces.
fn end_of_item(tokens: &[String], start: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(start) {
        match token.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => return i + 1,
            "}" => depth -= 1,
            ";" if depth == 0 => return i + 1,
            _ => {}
        }
    }
    tokens.len()
}

#[test]
fn comments_literals_and_tests_are_left_out() {
    let source = r##"
        //! use a::b;
        use x::y; /* use c::d; */
        const T: &str = "use e::f; \" use g::h;";
        const R: &str = r#"use "i"::j;"#;
        fn f<'a>(c: &'a char) -> bool { *c == '"' || *c == '\'' }
        #[cfg(test)]
        mod tests { use k::l; }
        #[cfg(test)]
        use m::n;
        fn last() {}
    "##;
    let found = tokens(source).join(" ");
    assert!(
        found.contains("] use x :: y ; const T : & str = ;"),
        "{found}"
    );
    assert_eq!(found.matches("use").count(), 1, "{found}");
    assert!(found.ends_with("fn last ( ) { }"), "{found}");
}
