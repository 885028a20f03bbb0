//! The examples of a run, as `--data`, `--eval` and their neighbours name them.

use std::path::PathBuf;

use anyhow::Result;
use lisa_lm::text::{Content, Example, Examples, ReadOptions, data_files, read_examples, split};

use crate::bundled;
use crate::data_folder::data_paths;
use crate::settings::{Contents, InputSettings};
use crate::terminal::text::counted;
use crate::user_error::require;

/// Training and held-out examples.
pub(crate) struct Given {
    pub(crate) train: Vec<Example>,
    /// None of them with `--eval-fraction 0`.
    pub(crate) held_out: Vec<Example>,
    /// What was read as what, in lines: files, forms, and skipped lines. A line may be a warning.
    pub(crate) notes: Vec<String>,
    pub(crate) contents: Contents,
}

/// Reads the examples. The held-out ones are those of `--eval`, or of the held-out files in folders
/// of `--data`, or a share of the data.
pub(crate) fn read(input: &InputSettings, seed: u64) -> Result<Given> {
    let options = ReadOptions {
        on_bad: input.on_bad_line.into(),
        columns: input.columns.clone(),
    };
    let is_bundled = input.data.is_empty();
    let data = if is_bundled {
        vec![bundled::data()?]
    } else {
        data_paths(&input.data)?
    };
    let files = data_files(&data)?;
    let held_out = if !input.eval.as_os_str().is_empty() {
        eval_files(input)?
    } else if is_bundled {
        vec![bundled::held_out()?]
    } else {
        files.valid.clone()
    };
    let real = |file: &PathBuf| file.canonicalize().unwrap_or_else(|_| file.clone());
    let trained: Vec<PathBuf> = files.train.iter().map(real).collect();
    let both = held_out.iter().find(|file| trained.contains(&real(file)));
    require!(
        both.is_none(),
        "give another file with --eval",
        "`{}` is training data and held-out data",
        both.map(|file| file.display().to_string())
            .unwrap_or_default()
    );
    let train = read_examples(&files.train, &options).map_err(skippable)?;
    let mut notes = Vec::new();
    if !is_bundled {
        notes.extend(noted("training", &train));
        if !files.left_out.is_empty() {
            notes.push(files.to_string());
        }
    }
    let held_out_files = !held_out.is_empty() && input.eval.as_os_str().is_empty();
    let (train, held_out) = if held_out.is_empty() {
        require!(
            train.examples.len() > 1 || input.eval_fraction == 0.0,
            "train without held-out examples with --eval-fraction 0, or give --eval FILE",
            "`{}` has one example, so none can be held out",
            input.data[0].display()
        );
        split(train.examples, input.eval_fraction, seed)?
    } else {
        let held_out = read_examples(&held_out, &options).map_err(skippable)?;
        if !is_bundled {
            notes.extend(noted("held-out", &held_out));
        }
        (train.examples, held_out.examples)
    };
    Ok(Given {
        contents: Contents {
            held_out_files,
            ..contents(&train, &held_out)
        },
        train,
        held_out,
        notes,
    })
}

/// What these examples have.
fn contents(train: &[Example], held_out: &[Example]) -> Contents {
    let all = || train.iter().chain(held_out);
    Contents {
        held_out: !held_out.is_empty(),
        held_out_files: false,
        answers: held_out.iter().any(|example| example.answer.is_some()),
        pairs: all().any(|example| matches!(example.content, Content::Pair { .. })),
        chats: all().any(|example| matches!(example.content, Content::Chat(_))),
    }
}

/// The files of `--eval`: a file, or the held-out files of a folder, or all its files.
fn eval_files(input: &InputSettings) -> Result<Vec<PathBuf>> {
    let files = data_files(&data_paths(std::slice::from_ref(&input.eval))?)?;
    Ok(if files.valid.is_empty() {
        files.train
    } else {
        files.valid
    })
}

fn noted(what: &str, read: &Examples) -> Vec<String> {
    let mut notes = vec![format!("{what} files: {}", read.mapping)];
    if read.skipped.count() > 0 {
        // The first ones are logged when they are read.
        let count = counted(read.skipped.count(), "line");
        notes.push(format!(
            "warning: {what} files: {count} skipped (--on-bad-line)"
        ));
    }
    notes
}

/// An error at a line, with the flag that leaves such lines out.
pub(crate) fn skippable(error: lisa_lm::Error) -> lisa_lm::Error {
    if error.place().and_then(|(_, line)| line).is_none() {
        return error;
    }
    let skip = "leave such lines out with --on-bad-line skip";
    let rename = "name the keys, such as --columns Title=prompt,Body=completion; or ";
    let rename = if error.message().contains("columns can rename keys") {
        rename
    } else {
        ""
    };
    let help = match error.help() {
        None | Some("correct the line, or skip bad lines") => {
            format!("{rename}correct the line, or {skip}")
        }
        Some(help) => format!("{help}; or {skip}"),
    };
    error.with_help(help)
}
