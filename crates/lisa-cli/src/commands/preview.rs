//! `lisa preview`: the tokens of a row of the data, and which of them the loss covers.

use std::fmt::Write;
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use clap::Args;
use lisa_lm::text::{
    EncodeOptions, Encoded, IGNORED, LossOn, ReadOptions, encode_examples, read_examples,
};
use lisa_lm::{Checkpoint, Tokenizer};

use super::show::template;
use crate::bundled;
use crate::model_folder::model_folder;
use crate::settings::OnBad;
use crate::terminal::output::say;
use crate::terminal::text::printable;
use crate::user_error::require;

/// Columns of a line of tokens.
const WIDTH: usize = 78;

/// Options of `lisa preview`.
#[derive(Args, Debug)]
pub struct Options {
    /// JSONL file, or a folder of them [default: bundled instructions]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Folder of a model, read for its tokenizer [default: bundled model]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The row, counted from 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    row: usize,
    /// Longest row in tokens; longer rows are truncated
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    max_seq_length: usize,
    /// Train on all tokens, not only on the answers
    #[arg(long)]
    loss_on_all: bool,
    /// Lines that cannot be used: stop at the first one, or skip them
    #[arg(long, value_enum, default_value = "stop")]
    on_bad_line: OnBad,
}

/// Prints the row and a summary of the data.
pub fn preview(options: &Options) -> Result<()> {
    let folder = model_folder(&options.model.clone().unwrap_or_default())?;
    let checkpoint = Checkpoint::open(&folder)?;
    let tokenizer = Tokenizer::from_dir(&folder)?;
    let data = match &options.data {
        Some(data) => data.clone(),
        None => bundled::data()?,
    };
    let read = read_examples(
        &[data],
        &ReadOptions {
            on_bad: options.on_bad_line.into(),
            ..ReadOptions::default()
        },
    )?;
    let encode = EncodeOptions {
        max_length: options
            .max_seq_length
            .min(checkpoint.config().max_positions()),
        loss_on: if options.loss_on_all {
            LossOn::All
        } else {
            LossOn::Answer
        },
        ..EncodeOptions::default()
    };
    let set = encode_examples(&read.examples, &tokenizer, encode)?;
    let (row, rows) = (options.row, set.examples.len());
    require!(
        (1..=rows).contains(&row),
        format!("give 1 to {rows}"),
        "--row is {row}, and there are {rows} rows"
    );
    let shown = &set.examples[row - 1];
    say(format_args!(
        "row {row}: {} tokens, {} trained; each token is followed by its id\n",
        shown.ids.len(),
        shown.trained()
    ))?;
    let colours = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
    say(tokens(shown, &tokenizer, colours)?)?;
    let longest = set
        .examples
        .iter()
        .map(|row| row.ids.len())
        .max()
        .unwrap_or(0);
    say(format_args!("chat template: {}", template(&tokenizer)))?;
    say(format_args!(
        "{set}; longest row {longest} of at most {}",
        encode.max_length
    ))?;
    if read.skipped.count() > 0 {
        say(format_args!("{} lines were skipped", read.skipped.count()))?;
    }
    Ok(())
}

/// The tokens with their ids. Tokens in the loss are green and bold, or in brackets without
/// `colours`.
fn tokens(row: &Encoded, tokenizer: &Tokenizer, colours: bool) -> Result<String> {
    let trained = AnsiColor::Green.on_default().bold();
    let id = Style::new().dimmed();
    let (mut text, mut column) = (String::new(), 0);
    for (index, &token) in row.ids.iter().enumerate() {
        let word = format!("{:?}", printable(&tokenizer.decode(&[token], false)?));
        // The first token is not predicted, so it is never trained.
        let is_trained = index > 0 && row.labels[index] != IGNORED;
        let (open, close) = if is_trained && !colours {
            ("[", "]")
        } else {
            ("", "")
        };
        let width = word.chars().count() + token.to_string().len() + open.len() * 2 + 2;
        if column > 0 && column + width > WIDTH {
            text.push('\n');
            column = 0;
        }
        column += width;
        let style = if is_trained { trained } else { Style::new() };
        let _ = write!(
            text,
            "{style}{open}{word}{style:#}{id}:{token}{id:#}{style}{close}{style:#} "
        );
    }
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trained_tokens_are_marked_with_and_without_colours() {
        let folder = bundled::model().unwrap();
        let tokenizer = Tokenizer::from_dir(folder).unwrap();
        let mut row = Encoded::all_trained(tokenizer.encode("a red ring").unwrap());
        row.labels[1] = IGNORED;
        let shown = |colours| tokens(&row, &tokenizer, colours).unwrap();
        let plain = anstream::adapter::strip_str(&shown(false)).to_string();
        // The first token is not predicted, and the second is not trained.
        assert_eq!(plain.matches('[').count(), row.ids.len() - 2, "{plain}");
        assert!(
            !anstream::adapter::strip_str(&shown(true))
                .to_string()
                .contains('[')
        );
        let green = AnsiColor::Green.on_default().bold().render().to_string();
        assert!(shown(true).matches(&green).count() >= row.ids.len() - 2);
    }
}
