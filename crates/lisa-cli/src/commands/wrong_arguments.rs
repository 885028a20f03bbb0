//! Wrong arguments, in the words of this program.

use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};
use lisa_lm::text::is_data_file;

use super::arguments::named;
use crate::settings::{names, others};
use crate::user_error::UserError;

/// An error of clap in the words of this program: a refused value, an unknown flag or command, a flag that is
/// missing or in conflict with another; `name` is the name of the subcommand. Other errors, and help, are clap's
/// own.
pub(super) fn explained(
    program: &Command,
    name: &str,
    error: clap::Error,
) -> Result<UserError, clap::Error> {
    if let Some(ContextValue::Strings(words)) = error.get(ContextKind::Custom)
        && let [message, help] = words.as_slice()
    {
        return Ok(UserError::new(message).with_help(help));
    }
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
    let is_settings = path
        .extension()
        .is_some_and(|end| ["toml", "yaml", "yml"].iter().any(|e| end == *e));
    let help = if name == "train" && is_settings {
        "give a file of settings with --config".to_owned()
    } else if has_data && is_data_file(path) {
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
    train.is_some_and(|train| named(train, name, None, None).is_ok_and(|found| found.is_some()))
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
    use std::ffi::OsString;

    use clap::CommandFactory;

    use super::super::Program;
    use super::*;

    #[test]
    fn a_wrong_argument_is_named_with_what_to_do() {
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
        let twice = "leave one of them out";
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
            (
                "lisa train --batch_size 128 --micro_batch_size 4",
                "--batch_size and --micro_batch_size are the same setting",
                twice,
            ),
            (
                "lisa train --fp16 True --bf16 True",
                "--fp16 and --bf16 are the same setting",
                twice,
            ),
            (
                "lisa train --bf16 --torch_dtype float32",
                "--bf16 and --torch_dtype are the same setting",
                twice,
            ),
            (
                "lisa train --mask_prompt --train_on_inputs True",
                "--mask_prompt and --train_on_inputs are the same setting",
                twice,
            ),
            (
                "lisa train --gradient_checkpointing unsloth",
                "--gradient_checkpointing is `unsloth`",
                "give true or false",
            ),
            (
                "lisa train --bf16=auto",
                "--bf16 is `auto`",
                "leave it out: the default is the dtype of the model's files",
            ),
            (
                "lisa train --packing auto",
                "--packing is `auto`",
                "give true or false, or leave the value out",
            ),
            (
                "lisa train --assistant_only_loss False",
                "--assistant_only_loss is `False`",
                "leave it out: the loss is of the answers and completions; to train on all tokens of every \
                 row, give `loss-on-all`",
            ),
            (
                "lisa train --iters 600",
                "--iters is not a flag of `lisa train`",
                others::advice("iters").unwrap(),
            ),
            (
                "lisa train config.yaml",
                "`config.yaml` is not an argument of `lisa train`",
                "give a file of settings with --config",
            ),
            (
                "lisa train --dry-run config.toml",
                "`config.toml` is not an argument of `lisa train`",
                "give a file of settings with --config",
            ),
        ] {
            let (found, found_help) = explained(line);
            assert_eq!((&*found, &*found_help), (message, help), "{line}");
        }
        // A number below 0 is a value.
        let lr = Program::parsed("lisa train --lr -1".split(' ').map(OsString::from));
        assert!(lr.is_ok());
    }
}
