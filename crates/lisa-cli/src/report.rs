//! An error in a terminal: what, where, why, what to do; in colours where they are wanted.

use anstyle::{AnsiColor, Style};
use lisa::Explained;

/// The error as text with colours. Print it by `anstream`, which takes them away where nobody looks:
/// in a file or a pipe, and with `NO_COLOR`.
#[must_use]
pub fn report(error: &anyhow::Error) -> String {
    let bold = Style::new().bold();
    let red = AnsiColor::BrightRed.on_default().bold();
    let blue = AnsiColor::BrightBlue.on_default().bold();
    let cyan = AnsiColor::BrightCyan.on_default().bold();
    let mut text = String::new();
    for (label, line) in Explained::new(error.as_ref()).lines() {
        text += &match label {
            "error" => format!("{red}{label}{red:#}{bold}: {line}{bold:#}\n"),
            "-->" => format!("  {blue}{label}{blue:#} {line}\n"),
            "help" => format!("  {cyan}{label}{cyan:#}: {line}\n"),
            _ => format!("  {bold}{label}{bold:#}: {line}\n"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn without_its_colours_it_is_the_plain_text() {
        let error = lisa::LisaError::new(lisa::ErrorKind::Data, "no key is known; give `text`")
            .with_place("a.jsonl", Some(2));
        let error = Err::<(), _>(error).context("cannot train").unwrap_err();
        let text = report(&error);
        assert!(text.contains('\u{1b}'));
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(plain.trim_end(), Explained::new(error.as_ref()).to_string());
        assert_eq!(
            plain,
            "error: cannot train\n  --> a.jsonl:2\n  because: no key is known\n  help: give `text`\n"
        );
    }
}
