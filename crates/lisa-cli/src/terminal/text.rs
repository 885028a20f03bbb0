//! Converts text and sizes to a form that is safe and short to print.

use std::borrow::Cow;
use std::ffi::OsStr;

/// The text with control characters escaped, except a new line and a tab. So a file or a model
/// cannot send commands to the terminal. Characters that change the direction of text are escaped
/// too: they can show a line in another order than it has.
#[must_use]
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if commands(c) {
            shown.extend(c.escape_debug());
        } else {
            shown.push(c);
        }
    }
    shown
}

fn commands(c: char) -> bool {
    let is_direction = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    is_direction || c.is_control() && !matches!(c, '\n' | '\t')
}

/// The text on one line: a new line becomes ` / `, a tab becomes a space.
#[must_use]
pub(crate) fn one_line(text: &str) -> String {
    let text = printable(text.trim()).replace('\t', " ");
    text.replace(['\n', '\u{2028}', '\u{2029}'], " / ")
}

/// A path, or another text, as one word of a command that is pasted into a shell.
#[must_use]
pub(crate) fn shell_word(text: impl AsRef<OsStr>) -> String {
    let word = text.as_ref().to_string_lossy();
    if cfg!(windows) {
        // Its shells read `\` as it is, and a path has no double quote.
        let is_plain = |c: char| c.is_alphanumeric() || r"\/:._-~".contains(c);
        return if word.chars().all(is_plain) {
            word.into_owned()
        } else {
            format!("\"{word}\"")
        };
    }
    shlex::try_quote(&word).map_or_else(|_| word.to_string(), Cow::into_owned)
}

/// A number and a noun, which gets an `s` unless the number is 1.
#[must_use]
pub(crate) fn counted(number: usize, noun: &str) -> String {
    counted_as(number, noun, &format!("{noun}s"))
}

/// A number and a noun with this plural.
#[must_use]
pub(crate) fn counted_as(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A size in MiB, or in GiB from 1024 MiB on.
#[must_use]
pub(crate) fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 1024.0 {
        format!("{:.2} GiB", mib / 1024.0)
    } else {
        format!("{mib:.0} MiB")
    }
}

/// A duration with its two largest units, such as `45 s`, `12 min` or `3 h 20 min`.
#[must_use]
pub(crate) fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    let (minutes, hours, days) = (s / 60, s / 3600, s / 86400);
    match s {
        0..60 => format!("{s} s"),
        60..600 if !s.is_multiple_of(60) => format!("{minutes} min {} s", s % 60),
        60..3600 => format!("{minutes} min"),
        3600..86400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A number of epochs, such as `1 epoch`, `0.05 epochs` or `less than 0.01 epochs`.
#[must_use]
pub(crate) fn epochs_in_words(epochs: f64) -> String {
    let number = format!("{epochs:.2}");
    match number.trim_end_matches('0').trim_end_matches('.') {
        "0" => "less than 0.01 epochs".to_owned(),
        "1" => "1 epoch".to_owned(),
        number => format!("{number} epochs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_part_of_an_epoch_is_not_none() {
        for (epochs, words) in [
            (0.0006, "less than 0.01 epochs"),
            (0.05, "0.05 epochs"),
            (0.999, "1 epoch"),
            (2.5, "2.5 epochs"),
            (10.0, "10 epochs"),
        ] {
            assert_eq!(epochs_in_words(epochs), words);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_in_a_command_is_one_word_of_a_shell() {
        for (path, word) in [
            ("runs/lisa", "runs/lisa"),
            ("/tmp/a b", "'/tmp/a b'"),
            ("it's", "\"it's\""),
            ("$HOME", "'$HOME'"),
            ("\u{fc}", "'\u{fc}'"),
        ] {
            assert_eq!(shell_word(path), word);
        }
    }

    #[test]
    fn durations_have_at_most_two_units() {
        for (seconds, text) in [
            (0.4, "0 s"),
            (59.6, "1 min"),
            (125.0, "2 min 5 s"),
            (3599.0, "59 min"),
            (12_000.0, "3 h 20 min"),
            (345_600.0, "4 d 0 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(counted(1, "step"), "1 step");
        assert_eq!(counted(0, "step"), "0 steps");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\td"), "a\\u{1b}[2Jb\nc\td");
        assert_eq!(printable("a\r\u{9b}2J"), "a\\r\\u{9b}2J");
        assert_eq!(printable("a\u{202e}b"), "a\\u{202e}b");
        // Letters, and joiners that scripts need, are unchanged.
        assert_eq!(printable("\u{627}\u{200c}\u{e9}"), "\u{627}\u{200c}\u{e9}");
        assert_eq!(one_line(" a\nb\tc\r\n"), "a / b c");
    }
}
