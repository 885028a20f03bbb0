//! The arguments of the process before clap reads them, and clap's errors in the words of this
//! program.

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};
use lisa_lm::text::is_data_file;

use crate::settings::names::{self, Word};
use crate::settings::others;
use crate::user_error::UserError;

/// The arguments with the names that clap knows: `-` and `_` are alike in the name of a flag, and the
/// [other names](names) of a setting become its own. Values are unchanged, but for those that have
/// other words. Arguments after `--` are unchanged.
pub(super) fn normalized(
    program: &Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Vec<OsString> {
    let mut arguments = arguments.into_iter().peekable();
    let mut known = Vec::new();
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
        match named(command, name, value, next.as_deref()) {
            Some((flag, took_next)) => {
                if took_next {
                    arguments.next();
                }
                known.extend(flag.map(OsString::from));
            }
            // A value that is not UTF-8 stays as it is.
            None => known.push(argument),
        }
    }
    known
}

/// The flag under the name that the command knows, and whether its value is the `next` argument. The
/// flag is left out if its value means "not given". `None` if the command has no such flag.
fn named(
    command: &Command,
    name: &str,
    value: Option<String>,
    next: Option<&str>,
) -> Option<(Option<String>, bool)> {
    let find = |name: &str| {
        command
            .get_arguments()
            .find(|arg| arg.get_long() == Some(name))
    };
    let hyphens = name.replace('_', "-");
    let other = names::setting(name);
    if let Some(arg) = find(&hyphens).or_else(|| find(&other)) {
        let long = arg.get_long().unwrap_or_default();
        let is_absent = |value: &str| names::is_absent(name, value);
        match (&value, next) {
            (Some(value), _) if is_absent(value) => return Some((None, false)),
            (None, Some(value)) if is_absent(value) => return Some((None, true)),
            _ => {}
        }
        // A switch may be followed by its value, as in other trainers.
        let switch = arg.is_require_equals_set() || !arg.get_action().takes_values();
        let is_word = |next: &str| ["true", "false"].contains(&names::lowercase_switch(next));
        let follows = value.is_none() && switch && next.is_some_and(is_word);
        let mut value = if follows {
            next.map(str::to_owned)
        } else {
            value
        };
        if switch {
            value = value.map(|value| names::lowercase_switch(&value).to_owned());
        }
        return Some((Some(joined(arg, long, value.as_deref())), follows));
    }
    let (setting, words) = names::translated(name)?;
    let arg = find(setting)?;
    let word = |text: &str| {
        let text = names::lowercase_switch(text);
        let mut words = words.iter();
        words
            .find(|(known, _)| *known == text)
            .map(|(_, word)| word)
    };
    let (found, took_next) = match (&value, next.and_then(word)) {
        (Some(value), _) => (word(value), false),
        (None, Some(found)) => (Some(found), true),
        (None, None) => (word("true"), false),
    };
    let flag = match found {
        Some(Word::Absent) => None,
        Some(found) => Some(joined(arg, setting, Some(&found.to_string()))),
        None => Some(joined(arg, setting, value.as_deref())),
    };
    Some((flag, took_next))
}

/// `--name=value`. A switch that takes no value is left out where it is off.
fn joined(arg: &Arg, name: &str, value: Option<&str>) -> String {
    match value {
        Some("true") if !arg.get_action().takes_values() => format!("--{name}"),
        Some(value) => format!("--{name}={value}"),
        None => format!("--{name}"),
    }
}

/// An error of clap in the words of this program: a refused value, an unknown flag or command, a flag that is
/// missing or in conflict with another; `name` is the name of the subcommand. Other errors, and help, are clap's
/// own.
pub(super) fn explained(
    program: &Command,
    name: &str,
    error: clap::Error,
) -> Result<UserError, clap::Error> {
    let argument = text(&error, ContextKind::InvalidArg);
    let flag = argument.split([' ', '=', '[']).next().unwrap_or_default();
    Ok(match error.kind() {
        ErrorKind::ValueValidation => refused_value(flag, &error),
        ErrorKind::InvalidValue => invalid_value(flag, &argument, &error),
        ErrorKind::UnknownArgument => match flag.strip_prefix("--") {
            Some(flag) => unknown_flag(program, name, flag),
            None => unknown_argument(program, name, &argument),
        },
        ErrorKind::ArgumentConflict => {
            let others = texts(&error, ContextKind::PriorArg, " and ");
            let message = format!("{argument} cannot be given with {others}");
            UserError::new(message).with_help("leave one of them out")
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = texts(&error, ContextKind::InvalidArg, " and ");
            // One of a group: `<--prompt <TEXT>|--chat <TEXT>>`.
            let group = missing
                .strip_prefix('<')
                .and_then(|rest| rest.strip_suffix('>'))
                .filter(|rest| rest.starts_with("--"));
            let (missing, it) = match group {
                Some(names) => (names.replace('|', " or "), "one of them"),
                None => (missing, "it"),
            };
            UserError::new(format!("`lisa {name}` also needs {missing}"))
                .with_help(format!("add {it}; {}", lists(name)))
        }
        ErrorKind::InvalidSubcommand => {
            let name = text(&error, ContextKind::InvalidSubcommand);
            let near = names::nearest(&name, commands(program).into_iter());
            let help = near.map_or_else(
                || format!("give one of {}", commands(program).join(", ")),
                |near| format!("did you mean `lisa {near}`?"),
            );
            UserError::new(format!("`{name}` is not a command of lisa")).with_help(help)
        }
        _ => return Err(error),
    })
}

/// A flag (without `--`) that the command does not have.
fn unknown_flag(program: &Command, name: &str, flag: &str) -> UserError {
    let Some(command) = program.find_subcommand(name) else {
        let message = format!("--{flag} is not a flag of `lisa`");
        return UserError::new(message).with_help(needs_command(program));
    };
    let near = names::nearest(flag, command.get_arguments().filter_map(Arg::get_long));
    let help = if name == "plan" && is_of_train(program, flag) {
        "leave it out: `lisa plan` compares methods; `lisa train --dry-run` plans a run with its flags"
            .to_owned()
    } else if name == "train"
        && let Some(advice) = others::advice(flag)
    {
        advice.to_owned()
    } else {
        near.map_or_else(|| lists(name), |near| format!("did you mean `--{near}`?"))
    };
    UserError::new(format!("--{flag} is not a flag of `lisa {name}`")).with_help(help)
}

/// Another argument that the command does not have, such as the second file of an unquoted
/// `*.jsonl`.
fn unknown_argument(program: &Command, name: &str, argument: &str) -> UserError {
    let Some(command) = program.find_subcommand(name) else {
        let message = format!("`{argument}` is not an argument of `lisa`");
        return UserError::new(message).with_help(needs_command(program));
    };
    let (mut arguments, path) = (command.get_arguments(), Path::new(argument));
    let has_data = arguments.any(|arg| arg.get_long() == Some("data"));
    let help = if has_data && is_data_file(path) {
        "give files and folders with --data, several with commas: --data A,B".to_owned()
    } else {
        lists(name)
    };
    UserError::new(format!("`{argument}` is not an argument of `lisa {name}`")).with_help(help)
}

fn lists(name: &str) -> String {
    format!("`lisa {name} --help` lists the flags")
}

fn needs_command(program: &Command) -> String {
    let commands = commands(program).join(", ");
    format!("begin with a command: {commands}; `lisa COMMAND --help` lists its flags")
}

fn commands(program: &Command) -> Vec<&str> {
    program.get_subcommands().map(Command::get_name).collect()
}

/// Whether `lisa train` has this flag, under its own or another name.
fn is_of_train(program: &Command, name: &str) -> bool {
    let train = program.find_subcommand("train");
    train.is_some_and(|train| named(train, name, None, None).is_some())
}

/// The text of an error; empty if it has none.
fn text(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    }
}

/// The text or the texts of an error.
fn texts(error: &clap::Error, kind: ContextKind, between: &str) -> String {
    match error.get(kind) {
        Some(ContextValue::Strings(texts)) => texts.join(between),
        _ => text(error, kind),
    }
}

/// A value that the parser of its flag refuses.
fn refused_value(flag: &str, error: &clap::Error) -> UserError {
    let source = std::error::Error::source(error);
    if let Some(own) = source.and_then(|source| source.downcast_ref::<lisa_lm::Error>()) {
        let refused = UserError::new(format!("{flag}: {}", own.message()));
        return refused.with_help(own.help().unwrap_or_default());
    }
    let reason = source.map(ToString::to_string).unwrap_or_default();
    let help = if reason.contains("float") {
        "give a number, such as 0.001 or 1e-3".to_owned()
    } else if reason.contains("digit") || reason.contains("is not in") {
        "give a whole number, 0 or more, in digits alone".to_owned()
    } else if reason.contains("too large") {
        format!("give a whole number of at most {}", usize::MAX)
    } else {
        reason
    };
    let value = text(error, ContextKind::InvalidValue);
    UserError::new(format!("{flag} is `{value}`")).with_help(help)
}

/// A flag without its value, or with a value that it does not have.
fn invalid_value(flag: &str, argument: &str, error: &clap::Error) -> UserError {
    let value = text(error, ContextKind::InvalidValue);
    let known = texts(error, ContextKind::ValidValue, ", ");
    let found = if value.is_empty() {
        format!("{flag} has no value")
    } else {
        format!("{flag} is `{value}`")
    };
    let help = if known.is_empty() {
        format!("give one: {argument}")
    } else {
        format!("give one of {known}")
    };
    UserError::new(found).with_help(help)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Program;
    use super::*;

    /// The arguments as clap gets them, without the program's name.
    fn of(line: &str) -> String {
        let arguments = line.split(' ').map(OsString::from);
        let known = normalized(&Program::command(), arguments);
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
    fn a_value_out_of_range_gives_the_range() {
        let explained = |line: &str| {
            let arguments = line.split(' ').map(OsString::from);
            let error = Program::parsed(arguments).unwrap_err();
            let error = explained(&Program::command(), "train", error).unwrap();
            (
                error.to_string(),
                error.help().unwrap_or_default().to_owned(),
            )
        };
        let whole = "give a whole number, 0 or more, in digits alone";
        for (line, message, help) in [
            ("lisa train --steps 1e9", "--steps is `1e9`", whole),
            ("lisa train --steps -1", "--steps is `-1`", whole),
            ("lisa train --seed -1", "--seed is `-1`", whole),
            (
                "lisa train --lr fast",
                "--lr is `fast`",
                "give a number, such as 0.001 or 1e-3",
            ),
            (
                "lisa train --max_step 3",
                "--max_step is not a flag of `lisa train`",
                "did you mean `--max-steps`?",
            ),
            (
                "lisa train --report_to none",
                "--report_to is not a flag of `lisa train`",
                others::advice("report_to").unwrap(),
            ),
            (
                "lisa train --resume-from-checkpoint=c",
                "--resume-from-checkpoint is not a flag of `lisa train`",
                "leave it out, and give the flag --resume",
            ),
        ] {
            let (found, found_help) = explained(line);
            assert_eq!((&*found, &*found_help), (message, help), "{line}");
        }
        // A number below 0 is a value.
        let lr = Program::parsed("lisa train --lr -1".split(' ').map(OsString::from));
        assert!(lr.is_ok());
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
