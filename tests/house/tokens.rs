//! Rust sources as tokens: identifiers, `::` and single characters, without comments, literals and
//! items under `#[cfg(test)]`.

/// The tokens of a source file.
pub(crate) fn tokens(source: &str) -> Vec<String> {
    without_tests(&split(&code(source)))
}

/// The source with each comment and each literal replaced by a space.
fn code(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut text = String::new();
    let mut i = 0;
    while i < chars.len() {
        let end = match at(i) {
            '/' if at(i + 1) == '/' => {
                let line = chars[i..].iter().take_while(|c| **c != '\n');
                Some(i + line.count())
            }
            '/' if at(i + 1) == '*' => {
                (i + 4..=chars.len()).find(|&j| at(j - 2) == '*' && at(j - 1) == '/')
            }
            'r' if "\"#".contains(at(i + 1)) && !text.ends_with(char::is_alphanumeric) => {
                raw_string(&chars, i)
            }
            '"' => Some(quoted(&chars, i)),
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => Some(quoted(&chars, i)),
            _ => None,
        };
        if let Some(end) = end {
            text.push(' ');
            i = end;
        } else {
            text.push(at(i));
            i += 1;
        }
    }
    text
}

/// The end of the literal whose quote is at `start`.
fn quoted(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != chars[start] {
        i += 1 + usize::from(chars[i] == '\\');
    }
    i + 1
}

/// The end of the raw string that begins at `start`; none for a raw identifier.
fn raw_string(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let mut close = vec!['"'];
    close.resize(1 + hashes, '#');
    let end = (open + 1..chars.len()).find(|&i| chars[i..].starts_with(&close));
    Some(end.unwrap_or(chars.len()) + close.len())
}

fn split(code: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut word = String::new();
    for c in code.chars().chain([' ']) {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            tokens.push(std::mem::take(&mut word));
        }
        match tokens.last_mut() {
            Some(last) if c == ':' && last == ":" => last.push(c),
            _ if c.is_whitespace() => {}
            _ => tokens.push(c.to_string()),
        }
    }
    tokens
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
        found.starts_with("use x :: y ; const T : & str = ;"),
        "{found}"
    );
    assert_eq!(found.matches("use").count(), 1, "{found}");
    assert!(found.ends_with("fn last ( ) { }"), "{found}");
}
