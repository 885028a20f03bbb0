//! `lisa preview`: the tokens of a row as they are trained on, and a summary of the data.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use lisa_lm::Checkpoint;

use crate::model_tokenizer::model_tokenizer;
use crate::settings::{Facts, Flags, InputFlags, ModelFacts, OnBad, Origin};
use crate::terminal::output::warn;
use crate::terminal::text::counted;
use crate::train::data::rows::batches;
use crate::train::data::shown_row::Show;
use crate::train::prepare::settle::Unread;
use crate::user_error::require;

/// Options of `lisa preview`.
#[derive(Args, Debug)]
// Without them, every row of the data is shown and counted as a training row.
#[command(
    mut_arg("eval_fraction", |arg| arg.help("Share of the data that is held out [default: 0]"))
)]
pub struct Options {
    /// The row, counted from 1 among those that can be used [default: 1]
    #[arg(long, value_name = "N")]
    row: Option<usize>,
    /// Print the row as text, with trained parts in [[ ]]
    #[arg(long)]
    text: bool,
    /// TOML file of settings (keys: long flag names); flags override it
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// The model and the data, as for `lisa train`.
    #[command(flatten)]
    input: InputFlags,
}

/// Prints the row and a summary of the data.
pub(crate) fn preview(options: &Options) -> Result<()> {
    let mut flags = Flags {
        input: options.input.clone(),
        ..Flags::default()
    };
    if let Some(path) = &options.config {
        flags = flags.or(Flags::from_file(path)?);
    }
    if flags.input.eval_fraction.is_none() {
        let mut none_held_out = Flags::default();
        none_held_out.input.eval_fraction = Some(0.0);
        flags = flags.or(none_held_out.all_from(&Origin::Default));
    }
    // A row that is asked for is shown, whatever is wrong with other rows.
    let skips = options.row.is_some() && flags.input.on_bad_line.is_none();
    if skips {
        let mut skip = Flags::default();
        skip.input.on_bad_line = Some(OnBad::Skip);
        flags = flags.or(skip.all_from(&Origin::Default));
    }
    let flags = flags.with_base_of_adapter()?;
    let settings = flags.clone().resolve(None)?;
    let folder = settings.input.folder()?;
    let checkpoint = Checkpoint::open(&folder)?;
    let adapter = &settings.method.adapter;
    let tokenizer = model_tokenizer(&folder, adapter, &settings.input.chat_template)?;
    // As `lisa train` settles the length, without regard to memory.
    let model = ModelFacts::uncounted(&checkpoint)?;
    let facts = Facts {
        model: Some(&model),
        ..Facts::default()
    };
    let unread = Unread {
        flags,
        settings: &settings,
        checkpoint: &checkpoint,
        tokenizer,
        folder: &std::env::temp_dir(),
    };
    let settled = unread.settle(facts)?;
    let (settings, data, tokenizer) = (settled.settings, settled.data, settled.tokenizer);
    let (row, rows) = (options.row.unwrap_or(1), data.train.len());
    let (give, are) = match rows {
        1 => ("leave it out".to_owned(), "is"),
        _ => (format!("give 1 to {rows}"), "are"),
    };
    require!(
        (1..=rows).contains(&row),
        give,
        "--row is {row}, and there {are} {}",
        counted(rows, "row")
    );
    if options.text {
        data.show_text(row - 1, &tokenizer)?;
    } else {
        data.show(row - 1, &tokenizer, Show::All)?;
    }
    let batches = batches(&settings, &tokenizer, &data)?;
    data.summarize(&settings, &batches)?;
    if skips && data.has_bad_rows() {
        warn(
            "`lisa train` stops at the first row that cannot be used; correct these rows, or give it \
             --on-bad-line skip",
        );
    }
    if let Some(warning) = settings.input.half_bundled() {
        warn(warning);
    }
    Ok(())
}
