//! Converts text and sizes to a form that is safe and short to print.

/// The text without control characters, except a new line and a tab. So a file or a model cannot
/// send commands to the terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\n' | '\t') {
            shown.extend(c.escape_debug());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// The text on one line: a new line becomes ` / `.
#[must_use]
pub fn one_line(text: &str) -> String {
    printable(text.trim()).replace('\n', " / ")
}

/// A size in MiB, or in GiB from 1024 MiB on.
#[must_use]
pub fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 1024.0 {
        format!("{:.2} GiB", mib / 1024.0)
    } else {
        format!("{mib:.0} MiB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\td"), "a\\u{1b}[2Jb\nc\td");
        assert_eq!(one_line(" a\nb\r\n"), "a / b");
    }
}
