//! [`report`]: formats an error for a terminal: what, where, why, and what to do.

use std::error::Error;
use std::path::Path;

use anstyle::{AnsiColor, Style};
use lisa::LisaError;

use super::text::printable;
use crate::user_error::UserError;

/// The error and its sources as text with colours.
///
/// ```text
/// error: --active-layers is 9 and the model has 8 layers
///   --> run.toml:3
///   because: ..
///   help: give at most 8
/// ```
///
/// A source is omitted if a message already contains its text. Control characters of the messages
/// and of the names of files are escaped. Print the text with `anstream`, which removes the colours
/// in a file, in a pipe, and with `NO_COLOR`.
#[must_use]
pub fn report(error: &anyhow::Error) -> String {
    let bold = Style::new().bold();
    let red = AnsiColor::BrightRed.on_default().bold();
    let blue = AnsiColor::BrightBlue.on_default().bold();
    let cyan = AnsiColor::BrightCyan.on_default().bold();
    let indented = |text: &str| printable(text).replace('\n', "\n    ");

    let (mut reasons, mut help, mut place) = (Vec::new(), Vec::new(), None);
    let mut said = String::new();
    for error in error.chain() {
        let fields = Fields::of(error);
        if !said.contains(&fields.message) {
            reasons.push(fields.message.clone());
        }
        help.extend(fields.help.filter(|help| !said.contains(help)));
        place = place.or(fields.place);
        said.push_str(&error.to_string());
        said.push('\n');
    }

    if help.is_empty() {
        help.extend(error.chain().find_map(help_of_system));
    }
    let mut reasons = reasons.into_iter();
    let what = indented(&reasons.next().unwrap_or_default());
    let mut text = format!("{red}error{red:#}{bold}: {what}{bold:#}\n");
    if let Some(place) = place {
        text += &format!("  {blue}-->{blue:#} {}\n", indented(&place));
    }
    for reason in reasons {
        text += &format!("  {bold}because{bold:#}: {}\n", indented(&reason));
    }
    for help in help {
        text += &format!("  {cyan}help{cyan:#}: {}\n", indented(&help));
    }
    text
}

/// Whether the report of this error says what to do.
#[must_use]
pub(crate) fn has_help(error: &anyhow::Error) -> bool {
    let mut chain = error.chain();
    chain.any(|error| Fields::of(error).help.is_some() || help_of_system(error).is_some())
}

/// What to do about an error of the system that has no help of its own.
fn help_of_system(error: &(dyn Error + 'static)) -> Option<String> {
    use std::io::ErrorKind::{
        AlreadyExists, InvalidData, IsADirectory, NotADirectory, NotFound, PermissionDenied,
        QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    let help = match error.downcast_ref::<std::io::Error>()?.kind() {
        NotFound => "check the path",
        NotADirectory => "check the path: a part of it is a file",
        AlreadyExists => "a file has this name: give another folder",
        InvalidData => "give a text file in UTF-8",
        IsADirectory => "check the path: it is a folder",
        ReadOnlyFilesystem => "give a folder on another disk: this one is read-only",
        PermissionDenied => "check who may read and write there, or give another folder",
        StorageFull | QuotaExceeded => "free some space, or give a folder on another disk",
        _ => return None,
    };
    Some(help.to_owned())
}

/// A text of the library with the flags that set its fields.
fn in_flags(text: &str) -> String {
    const FLAGS: [(&str, &str); 9] = [
        ("set unbiased to false", "leave --unbiased out"),
        ("active_layers", "--active-layers"),
        ("sampling_period", "--period"),
        ("on_freeze", "--moments"),
        (
            "set frozen_weights to FrozenWeights::Exact",
            "leave --quantize out",
        ),
        ("frozen_weights", "--quantize"),
        ("max_grad_norm", "--max-grad-norm"),
        ("outer_every", "--outer-every"),
        ("layer_warmup", "--layer-warmup"),
    ];
    let replaced = |text: String, (field, flag)| text.replace(field, flag);
    FLAGS.into_iter().fold(text.to_owned(), replaced)
}

/// What one error of the chain says.
struct Fields {
    message: String,
    help: Option<String>,
    place: Option<String>,
}

impl Fields {
    fn of(error: &(dyn Error + 'static)) -> Self {
        if let Some(error) = error.downcast_ref::<UserError>() {
            return Self {
                message: error.to_string(),
                help: error.help().map(str::to_owned),
                place: error.place().map(|(file, line)| shown(file, line)),
            };
        }
        if let Some(error) = error.downcast_ref::<lisa_lm::Error>() {
            return Self {
                message: error.message().to_owned(),
                help: error.help().map(str::to_owned),
                place: error.place().map(|(file, line)| shown(file, line)),
            };
        }
        if let Some(error) = error.downcast_ref::<LisaError>() {
            return Self {
                message: in_flags(error.message()),
                help: error.help().map(in_flags),
                place: None,
            };
        }
        Self {
            message: error.to_string().trim_end().to_owned(),
            help: None,
            place: None,
        }
    }
}

/// `file:line`, which terminals and editors can open.
fn shown(file: &Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{}:{line}", file.display()),
        None => file.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    fn plain(error: anyhow::Error) -> String {
        anstream::adapter::strip_str(&report(&error)).to_string()
    }

    #[test]
    fn message_place_reason_and_help_have_a_line_each() {
        let error = UserError::new("no key is known")
            .with_help("give `text`")
            .with_place("a.jsonl", Some(2));
        let error = Err::<(), _>(error).context("cannot train").unwrap_err();
        assert!(report(&error).contains('\u{1b}'));
        assert_eq!(
            plain(error),
            "error: cannot train\n  --> a.jsonl:2\n  because: no key is known\n  help: give `text`\n"
        );
    }

    #[test]
    fn a_source_that_the_message_repeats_is_left_out() {
        let io = || std::io::Error::other("disk full");
        let error = UserError::new("cannot write x: disk full").with_source(io());
        assert_eq!(plain(error.into()), "error: cannot write x: disk full\n");
        let error = UserError::new("cannot write x").with_source(io());
        assert_eq!(
            plain(error.into()),
            "error: cannot write x\n  because: disk full\n"
        );
    }

    #[test]
    fn an_error_of_the_system_says_what_to_do_unless_another_one_does() {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let error = Err::<(), _>(missing())
            .context("cannot read `x`")
            .unwrap_err();
        assert!(plain(error).ends_with("\n  help: check the path\n"));
        let error = UserError::new("no model")
            .with_help("give --model")
            .with_source(missing());
        assert!(!plain(error.into()).contains("check the path"));
    }

    #[test]
    fn every_error_of_the_chain_gives_its_help_and_the_innermost_its_place() {
        let inner = UserError::new("it is cut off")
            .with_help("download it again")
            .with_place("x.bpk", None);
        let outer = UserError::new("cannot resume")
            .with_help("start again")
            .with_source(inner);
        assert_eq!(
            plain(outer.into()),
            "error: cannot resume\n  --> x.bpk\n  because: it is cut off\n  help: start again\n  \
             help: download it again\n"
        );
    }

    #[test]
    fn control_characters_of_files_do_not_reach_the_terminal() {
        let error = UserError::new("role \u{1b}[2J is unknown")
            .with_help("rename \u{7}")
            .with_place("a\u{1b}]0;x\u{7}.jsonl", Some(2))
            .with_source(std::io::Error::other("\u{9b}31m"));
        let text = report(&error.into());
        // The styles are those of the program.
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(
            plain,
            "error: role \\u{1b}[2J is unknown\n  --> a\\u{1b}]0;x\\u{7}.jsonl:2\n  because: \
             \\u{9b}31m\n  help: rename \\u{7}\n"
        );
    }

    #[test]
    fn further_lines_of_a_message_are_indented() {
        let toml = std::io::Error::other("line 1; column 2\n  |\n1 | a\n  | ^");
        let error = UserError::new("cannot use x").with_source(toml);
        assert!(plain(error.into()).contains("line 1; column 2\n      |\n    1 | a\n      | ^"));
    }
}
