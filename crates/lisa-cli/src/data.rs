//! A run's data: examples read, split and made tokens, and the batches of its steps.
//! Tests: `tests/run.rs`.

use anyhow::{Result, bail};
use lisa_lm::{
    BatchOptions, Batches, Checkpoint, EncodeOptions, Encoded, Example, LossOn, OnBadLine,
    Tokenizer, encode_examples_with, read_examples,
};

use crate::progress::Slow;
use crate::settings::Settings;

/// A run's data, as examples and as tokens.
pub(crate) struct Data {
    pub(crate) train: Vec<Encoded>,
    pub(crate) held_out: Vec<Encoded>,
    pub(crate) held_out_examples: Vec<Example>,
    in_words: String,
}

impl Data {
    /// The most tokens of a row.
    pub(crate) fn longest(&self, settings: &Settings) -> usize {
        let longest = self.train.iter().map(|example| example.ids.len()).max();
        if settings.pack {
            settings.max_length
        } else {
            longest.unwrap_or(settings.max_length)
        }
    }

    /// How many tokens there are, and how many so many batches see.
    pub(crate) fn describe(&self, batches: &Batches, number: u64) {
        println!("{}", self.in_words);
        let tokens: usize = self.train.iter().map(|example| example.ids.len()).sum();
        let epochs = number as f64 / batches.per_epoch().max(1) as f64;
        println!(
            "{} rows, {} batches an epoch; {number} batches see the data {epochs:.2} times, \
             about {:.0} tokens",
            batches.rows(),
            batches.per_epoch(),
            tokens as f64 * epochs
        );
    }
}

/// The data that the settings name, with a part held out.
pub(crate) fn read(
    settings: &Settings,
    tokenizer: &Tokenizer,
    checkpoint: &Checkpoint,
) -> Result<Data> {
    let longest = checkpoint.config().max_positions();
    let options = EncodeOptions {
        max_length: settings.max_length.min(longest),
        loss_on: if settings.loss_on_all {
            LossOn::All
        } else {
            LossOn::Answer
        },
    };
    let on_bad = if settings.skip_bad_lines {
        OnBadLine::Skip
    } else {
        OnBadLine::Stop
    };
    let train = read_examples(&settings.data, on_bad)?.examples;
    let (train, held_out) = if settings.validation.as_os_str().is_empty() {
        lisa_lm::split(train, settings.validation_split, settings.seed)?
    } else {
        (train, read_examples(&settings.validation, on_bad)?.examples)
    };
    if held_out.is_empty() {
        bail!("no example is held out; give --validation FILE or --validation-split above 0");
    }
    let encode = |examples: &[Example]| {
        let (bar, all) = (Slow::items("tokenizing"), examples.len() as u64);
        encode_examples_with(examples, tokenizer, options, |done| {
            bar.set(done as u64, all);
        })
    };
    let train = encode(&train)?;
    log::info!("training: {train}");
    let held = encode(&held_out)?;
    log::info!("held out: {held}");
    Ok(Data {
        in_words: format!("training: {train}\nheld out: {held}"),
        train: train.examples,
        held_out_examples: held.sources.iter().map(|&i| held_out[i].clone()).collect(),
        held_out: held.examples,
    })
}

/// The batches that train: shuffled in each epoch by the run's seed.
pub(crate) fn batches(
    settings: &Settings,
    tokenizer: &Tokenizer,
    examples: Vec<Encoded>,
) -> Result<Batches, lisa_lm::Error> {
    let options = BatchOptions {
        batch_size: settings.batch_size,
        pack_to: settings.pack.then_some(settings.max_length),
        shuffle: true,
        seed: settings.seed,
        pad_id: tokenizer.pad_id(),
    };
    Batches::new(examples, options)
}
