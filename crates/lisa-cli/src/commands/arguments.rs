//! The arguments of the process before clap reads them.

use std::ffi::OsString;
use std::path::Path;

use clap::builder::PossibleValue;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};

use crate::settings::names::{self, Word};

/// The arguments with the names that clap knows: `-` and `_` are alike in the name of a flag, and the
/// [other names](names) of a setting become its own. Values are unchanged, but for those that have
/// other words. Arguments after `--` are unchanged.
///
/// # Errors
///
/// Two names of one setting have different values, or a switch has another value than those it has.
pub(super) fn normalized(
    program: &Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Vec<OsString>, clap::Error> {
    let mut arguments = arguments.into_iter().peekable();
    let mut known = Vec::new();
    let mut given = Vec::new();
    let mut command = program;
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            known.push(argument);
            known.extend(arguments);
            break;
        }
        let text = argument.to_str().unwrap_or_default();
        if std::ptr::eq(command, program)
            && let Some(found) = program.find_subcommand(text)
        {
            command = found;
        }
        let Some(flag) = text.strip_prefix("--") else {
            known.push(argument);
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let next = arguments
            .peek()
            .and_then(|next| next.to_str())
            .map(str::to_owned);
        let Some(found) = named(command, name, value, next.as_deref())? else {
            // A value that is not UTF-8 stays as it is.
            known.push(argument);
            continue;
        };
        if found.took_next {
            arguments.next();
        }
        if found.is_given {
            refuse_two_names(&mut given, name, &found, next.as_deref())?;
            known.push(OsString::from(found.joined()));
        }
    }
    Ok(known)
}

/// A flag of a command.
pub(super) struct Known<'a> {
    arg: &'a Arg,
    /// Its value in the words of the command, if that is not the next argument.
    value: Option<String>,
    /// Whether the next argument was read as the value.
    took_next: bool,
    /// Whether its value means something else than "not given".
    is_given: bool,
}

impl<'a> Known<'a> {
    fn new(arg: &'a Arg, value: Option<String>, took_next: bool) -> Self {
        Self {
            arg,
            value,
            took_next,
            is_given: true,
        }
    }

    fn absent(arg: &'a Arg, took_next: bool) -> Self {
        Self {
            is_given: false,
            ..Self::new(arg, None, took_next)
        }
    }

    fn name(&self) -> &'a str {
        self.arg.get_long().unwrap_or_default()
    }

    /// `--name=value`, or `--name` alone.
    fn joined(&self) -> String {
        let name = self.name();
        match self.value.as_deref() {
            Some("true") if !self.arg.get_action().takes_values() => format!("--{name}"),
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        }
    }

    /// The value as the command names it, so that two words for one value are equal.
    fn plain_value(&self, next: Option<&str>) -> String {
        let value = match self.value.as_deref() {
            Some(value) => value,
            None if is_switch(self.arg) => "true",
            None => next.unwrap_or_default(),
        };
        let values = self.arg.get_possible_values();
        let known = values.iter().find(|known| known.matches(value, false));
        known.map_or(value, PossibleValue::get_name).to_owned()
    }
}

/// A setting that was given, under which name, and its value.
struct Given<'a> {
    setting: &'a str,
    name: String,
    value: String,
}

/// Refuses a second name of a setting with another value. Of one name, the last value counts, and
/// lists are joined.
fn refuse_two_names<'a>(
    given: &mut Vec<Given<'a>>,
    name: &str,
    found: &Known<'a>,
    next: Option<&str>,
) -> Result<(), clap::Error> {
    if matches!(found.arg.get_action(), ArgAction::Append) {
        return Ok(());
    }
    let (setting, value) = (found.name(), found.plain_value(next));
    let plain = |name: &str| name.replace('_', "-");
    match given.iter_mut().find(|given| given.setting == setting) {
        Some(earlier) if plain(&earlier.name) == plain(name) => earlier.value = value,
        Some(earlier) if earlier.value != value => {
            let earlier = &earlier.name;
            let message = format!("--{earlier} and --{name} are the same setting");
            return Err(refused(message, "leave one of them out"));
        }
        Some(_) => {}
        None => given.push(Given {
            setting,
            name: name.to_owned(),
            value,
        }),
    }
    Ok(())
}

/// Whether a flag is on without a value.
fn is_switch(arg: &Arg) -> bool {
    arg.is_require_equals_set() || !arg.get_action().takes_values()
}

/// The argument of a command with this long name.
fn argument<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let mut arguments = command.get_arguments();
    arguments.find(|arg| arg.get_long() == Some(name))
}

/// An error with these words, which [`explained`](super::wrong_arguments::explained) writes as they are.
fn refused(message: String, help: impl Into<String>) -> clap::Error {
    let mut error = clap::Error::new(ErrorKind::InvalidValue);
    let words = ContextValue::Strings(vec![message, help.into()]);
    error.insert(ContextKind::Custom, words);
    error
}

/// The flag that a name means, and its value, which may be the `next` argument. `None` if the command
/// has no such flag.
pub(super) fn named<'a>(
    command: &'a Command,
    name: &str,
    value: Option<String>,
    next: Option<&str>,
) -> Result<Option<Known<'a>>, clap::Error> {
    // The next argument cannot be another argument of the command, so it is meant as the value, unless it is a
    // file.
    let is_file = |next: &str| Path::new(next).extension().is_some();
    let takes_none = command.get_positionals().next().is_none();
    let is_stray = |next: &str| !next.starts_with('-') && takes_none && !is_file(next);
    let hyphens = name.replace('_', "-");
    let other = names::setting(name);
    if let Some(arg) = argument(command, &hyphens).or_else(|| argument(command, &other)) {
        match (&value, next) {
            (Some(value), _) if names::is_absent(name, value) => {
                return Ok(Some(Known::absent(arg, false)));
            }
            (None, Some(next)) if names::is_absent(name, next) => {
                return Ok(Some(Known::absent(arg, true)));
            }
            _ => {}
        }
        if !is_switch(arg) {
            return Ok(Some(Known::new(arg, value, false)));
        }
        // A switch may be followed by its value, as in other trainers.
        let is_word = |next: &str| ["true", "false"].contains(&names::plain_switch(next));
        let (value, took_next) = match (value, next) {
            (None, Some(next)) if is_word(next) => (Some(next.to_owned()), true),
            (None, Some(next)) if is_stray(next) => {
                let help = "give true or false, or leave the value out";
                return Err(refused(format!("--{name} is `{next}`"), help));
            }
            (value, _) => (value, false),
        };
        let value = value.map(|value| names::plain_switch(&value).to_owned());
        if !arg.get_action().takes_values() && value.as_deref() == Some("false") {
            return Ok(Some(Known::absent(arg, took_next)));
        }
        return Ok(Some(Known::new(arg, value, took_next)));
    }
    let Some(worded) = names::translated(name) else {
        return Ok(None);
    };
    let Some(arg) = argument(command, worded.setting) else {
        return Ok(None);
    };
    let word = |text: &str| worded.meaning(names::plain_switch(text));
    let (found, took_next) = match (&value, next) {
        (Some(value), _) => (word(value), false),
        (None, Some(next)) if word(next).is_some() || is_stray(next) => (word(next), true),
        // A name that is no switch has no value, which is an error of clap.
        (None, _) if word("true").is_none() => return Ok(Some(Known::new(arg, None, false))),
        (None, _) => (word("true"), false),
    };
    let written = value.as_deref().or(next).unwrap_or_default();
    match found {
        Some(Word::Absent) => Ok(Some(Known::absent(arg, took_next))),
        Some(Word::Refused(help)) => Err(refused(format!("--{name} is `{written}`"), help)),
        Some(word) => Ok(Some(Known::new(arg, Some(word.to_string()), took_next))),
        None => {
            let help = format!("give {}", worded.choices());
            Err(refused(format!("--{name} is `{written}`"), help))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Program;
    use super::*;

    /// The arguments as clap gets them, without the program's name.
    fn of(line: &str) -> String {
        let arguments = line.split(' ').map(OsString::from);
        let known = normalized(&Program::command(), arguments).unwrap();
        let known: Vec<_> = known.iter().map(|a| a.to_str().unwrap()).collect();
        known.join(" ")
    }

    #[test]
    fn the_names_of_other_trainers_are_flags_of_this_one() {
        for (given, known) in [
            ("--num_train_epochs 3", "--epochs 3"),
            ("--num-train-epochs=3", "--epochs=3"),
            ("--lisa_activated_layers 4", "--active-layers 4"),
            ("--model_name_or_path a_b", "--model a_b"),
            ("--active_layers 4", "--active-layers 4"),
            ("--packing true --lr 1e-4", "--pack=true --lr 1e-4"),
            ("--packing --lr 1e-4", "--pack --lr 1e-4"),
            ("--packing True --lr 1e-4", "--pack=true --lr 1e-4"),
            ("--packing=False", "--pack=false"),
            ("--bf16 True --fp16 False", "--dtype=bf16"),
            ("--gradient_checkpointing=True", "--recompute=1"),
            ("--overwrite_output_dir True", "--overwrite"),
            ("--model True", "--model True"),
            ("--gradient_checkpointing", "--recompute=1"),
            ("--gradient_checkpointing false", "--recompute=0"),
            ("--bf16 --seed 1", "--dtype=bf16 --seed 1"),
            ("--fp16 false --lr 1", "--lr 1"),
            ("--max_steps -1 --lr 1", "--lr 1"),
            ("--max-steps=-1 --lr 1", "--lr 1"),
            ("--max_steps 7", "--steps 7"),
            ("--min_lr 1e-6", "--min-lr 1e-6"),
            ("--min_lr_rate 0.1", "--min-lr-ratio 0.1"),
            ("--torch_dtype float16", "--dtype float16"),
            ("--torch_dtype auto", "--dtype auto"),
            ("--lr_scheduler_type linear", "--schedule=linear"),
            (
                "--lr-scheduler-type=constant_with_warmup",
                "--schedule=constant",
            ),
            ("--skip-bad-lines", "--on-bad-line=skip"),
            ("--skip-bad-lines=false", "--on-bad-line=stop"),
            ("--accumulation 2", "--gradient-accumulation-steps 2"),
            ("--overwrite_output_dir", "--overwrite"),
            ("--overwrite_output_dir 0 --lr 1", "--lr 1"),
            // As `HfArgumentParser` reads them.
            (
                "--packing 1 --train_on_inputs no",
                "--pack=true --loss-on-all=false",
            ),
            ("--gradient_checkpointing 0 --lr 1", "--recompute=0 --lr 1"),
            ("--assistant_only_loss True", "--loss-on-all=false"),
            ("--r 16", "--lora-rank 16"),
            // One name may be repeated, and two names may have one value.
            (
                "--batch-size 2 --batch_size 3",
                "--batch-size 2 --batch-size 3",
            ),
            (
                "--bf16 --torch_dtype bfloat16",
                "--dtype=bf16 --dtype bfloat16",
            ),
            (
                "--mask_prompt --train_on_inputs False",
                "--loss-on-all=false --loss-on-all=false",
            ),
            ("--data a --train_file b", "--data a --data b"),
            ("--unknown_flag x", "--unknown_flag x"),
            ("-h", "-h"),
        ] {
            assert_eq!(
                of(&format!("lisa train {given}")),
                format!("lisa train {known}")
            );
        }
    }

    #[test]
    fn values_and_what_follows_two_hyphens_are_unchanged() {
        for line in [
            "lisa generate --prompt=--max_steps_",
            "lisa generate --prompt a_b --max-new-tokens 2",
            "lisa export runs/a_b --out c_d -- --max_steps",
            "lisa",
        ] {
            assert_eq!(of(line), line);
        }
        // The command has no such flag, so the error names the one that was given.
        assert_eq!(
            of("lisa export --learning_rate 1"),
            "lisa export --learning_rate 1"
        );
    }

    #[test]
    fn every_other_name_is_of_one_setting_and_is_none_itself() {
        let program = Program::command();
        let train = program.find_subcommand("train").unwrap();
        let flags: Vec<&str> = train.get_arguments().filter_map(Arg::get_long).collect();
        let mut seen = std::collections::HashSet::new();
        for (other, _) in names::all() {
            assert!(seen.insert(other), "{other} is there twice");
            assert!(!flags.contains(&other), "{other} is a flag");
        }
    }
}
