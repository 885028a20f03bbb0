//! [`Explained`]: an error as a compiler shows one: what, where, why, what to do.
//!
//! Tests: at the foot.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use crate::LisaError;

/// A place in a file.
///
/// # Example
///
/// ```
/// use lisa::{ErrorKind, LisaError, Place};
///
/// let error = LisaError::new(ErrorKind::Data, "no JSON object; correct the line")
///     .with_place("data/train.jsonl", Some(7));
/// let place = Place { file: "data/train.jsonl".into(), line: Some(7) };
/// assert_eq!(error.place(), Some(&place));
/// assert_eq!(place.to_string(), "data/train.jsonl:7");
///
/// let whole = Place { line: None, ..place };
/// assert_eq!(whole.to_string(), "data/train.jsonl");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, the first being 1, where it is known.
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    /// `file:line`, which terminals and editors take one to.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// An error and its sources, taken apart. `Display` prints it:
///
/// ```text
/// error: active_layers is 9 and the model has 8 layers
///   help: give at most 8
/// ```
///
/// A message of this project says what was asked and found, and behind its last `; ` what to do. A
/// source whose text stands in the message already is not said twice.
///
/// # Example
///
/// ```
/// use lisa::{ErrorKind, Explained, LisaError};
///
/// let error = LisaError::new(ErrorKind::Data, "no key is known; give `messages` or `text`")
///     .with_place("train.jsonl", Some(7));
/// let explained = Explained::new(&error);
/// assert_eq!(explained.what, "no key is known");
/// assert_eq!(explained.help, ["give `messages` or `text`"]);
/// assert_eq!(explained.place.as_ref().unwrap().to_string(), "train.jsonl:7");
/// // For colours of one's own.
/// let labels: Vec<&str> = explained.lines().map(|(label, _)| label).collect();
/// assert_eq!(labels, ["error", "-->", "help"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explained {
    /// What was asked and found.
    pub what: String,
    /// Where.
    pub place: Option<Place>,
    /// Why, from the outermost to the innermost source.
    pub because: Vec<String>,
    /// What to do.
    pub help: Vec<String>,
}

impl Explained {
    /// Takes an error apart. An `anyhow::Error` is handed over as `error.as_ref()`.
    #[must_use]
    pub fn new(error: &(dyn Error + 'static)) -> Self {
        let mut explained = Self::default();
        let mut said = String::new();
        let mut next = Some(error);
        while let Some(error) = next {
            explained.add(error, &mut said);
            next = error.source();
        }
        explained
    }

    fn add(&mut self, error: &(dyn Error + 'static), said: &mut String) {
        let ours = error.downcast_ref::<LisaError>();
        let text = ours.map_or_else(|| error.to_string(), |error| error.message().to_owned());
        let place = ours.and_then(LisaError::place);
        let (what, help) = match ours.and_then(LisaError::help) {
            Some(help) => (text.as_str(), Some(help)),
            None => parts(&text),
        };
        // The place has a line of its own.
        let shown = place.map_or(what, |place| {
            let named = place.line.map_or_else(
                || format!("{}: ", place.file.display()),
                |line| format!("{}, line {line}: ", place.file.display()),
            );
            what.strip_prefix(&named).unwrap_or(what)
        });
        if said.is_empty() {
            shown.clone_into(&mut self.what);
        } else if !said.contains(shown) {
            self.because.push(shown.to_owned());
        }
        if let Some(help) = help.filter(|help| !said.contains(help)) {
            self.help.push(help.to_owned());
        }
        self.place = self.place.take().or_else(|| place.cloned());
        said.push_str(&text);
        said.push('\n');
    }

    /// The lines of the report, each with what it begins with: `error`, `-->`, `because`, `help`.
    /// For a program that has its own colours.
    pub fn lines(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        let one = |label, text: &str| (label, text.replace('\n', "\n    "));
        let place = self.place.iter().map(|place| ("-->", place.to_string()));
        std::iter::once(one("error", &self.what))
            .chain(place)
            .chain(self.because.iter().map(move |text| one("because", text)))
            .chain(self.help.iter().map(move |text| one("help", text)))
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (label, text)) in self.lines().enumerate() {
            match (number, label) {
                (0, _) => write!(f, "{label}: {text}")?,
                (_, "-->") => write!(f, "\n  --> {text}")?,
                _ => write!(f, "\n  {label}: {text}")?,
            }
        }
        Ok(())
    }
}

/// What is, and what to do. A message of several lines is another program's and stays whole.
fn parts(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once("; ").filter(|_| !text.contains('\n')) {
        Some((what, help)) => (what, Some(help)),
        None => (text.trim_end(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn shown(error: &LisaError) -> String {
        Explained::new(error).to_string()
    }

    #[test]
    fn what_and_help_stand_on_lines_of_their_own() {
        let error = LisaError::new(ErrorKind::Config, "the period is 0; give at least 1");
        assert_eq!(
            shown(&error),
            "error: the period is 0\n  help: give at least 1"
        );
        let error = LisaError::new(ErrorKind::Config, "the period is 0");
        assert_eq!(shown(&error), "error: the period is 0");
    }

    #[test]
    fn a_place_is_shown_once() {
        let error = LisaError::new(ErrorKind::Data, "a.jsonl, line 3: not JSON; correct it")
            .with_place("a.jsonl", Some(3));
        let wanted = "error: not JSON\n  --> a.jsonl:3\n  help: correct it";
        assert_eq!(shown(&error), wanted);
    }

    #[test]
    fn a_source_is_said_where_the_message_does_not_say_it() {
        let io = || std::io::Error::other("disk full");
        let error = LisaError::new(ErrorKind::Io, "cannot write x: disk full").with_source(io());
        assert_eq!(shown(&error), "error: cannot write x: disk full");
        let error = LisaError::new(ErrorKind::Io, "cannot write x").with_source(io());
        assert_eq!(shown(&error), "error: cannot write x\n  because: disk full");
        // The innermost says where, and each what to do.
        let inner = LisaError::new(ErrorKind::Record, "it is cut off; fetch it again")
            .with_place("x.bpk", None);
        let outer = LisaError::new(ErrorKind::Io, "cannot resume; begin anew").with_source(inner);
        assert_eq!(
            shown(&outer),
            "error: cannot resume\n  --> x.bpk\n  because: it is cut off\n  help: begin anew\n  \
             help: fetch it again"
        );
    }

    #[test]
    fn another_programs_lines_stay_together() {
        let toml = std::io::Error::other("line 1; column 2\n  |\n1 | a\n  | ^");
        let error = LisaError::new(ErrorKind::Config, "cannot use x").with_source(toml);
        assert!(shown(&error).contains("line 1; column 2\n      |\n    1 | a\n      | ^"));
    }
}
