//! The data of a run: reads, splits and encodes examples, and makes batches. Tests: `tests/run/`.

use anyhow::Result;
use lisa_lm::text::{BatchOptions, Batches, Encoded, EncodedSet, Example, encode_examples_with};
use lisa_lm::{Checkpoint, Tokenizer};

use super::examples::{self, Given};
use super::{text, vocabulary};
use crate::settings::Settings;
use crate::terminal::output::say;
use crate::terminal::progress::Slow;

/// Training and held-out data.
pub(crate) struct Data {
    pub(crate) train: Vec<Encoded>,
    pub(crate) held_out: Vec<Encoded>,
    pub(crate) held_out_examples: Vec<Example>,
    /// The rows that the model's embedding must have.
    pub(crate) vocab_size: usize,
    /// How the examples became text, for the user.
    pub(crate) lines: Vec<String>,
    /// The numbers of rows and tokens, and what was truncated or dropped.
    summary: String,
}

impl Data {
    /// The number of tokens in the longest row.
    pub(crate) fn longest(&self, settings: &Settings) -> usize {
        let longest = self.train.iter().map(|example| example.ids.len()).max();
        if settings.input.pack {
            settings.input.max_seq_length
        } else {
            longest.unwrap_or(settings.input.max_seq_length)
        }
    }

    /// Prints the size of the data, and the number of epochs in `steps` steps.
    pub(crate) fn describe(
        &self,
        batches: &Batches,
        accumulation: usize,
        steps: u64,
    ) -> Result<()> {
        say(&self.summary)?;
        let tokens: usize = self.train.iter().map(|example| example.ids.len()).sum();
        let per_epoch = batches.steps_per_epoch(accumulation);
        let epochs = steps as f64 / per_epoch as f64;
        say(format_args!(
            "{} rows, {} batches and {per_epoch} steps in an epoch; steps of the run: {steps}, which \
             are {epochs:.2} epochs, about {:.0} tokens",
            batches.rows(),
            batches.per_epoch(),
            tokens as f64 * epochs
        ))?;
        Ok(())
    }
}

/// Reads the data of the settings, and splits it into training and held-out data. Returns also the
/// tokenizer as the data needs it.
pub(crate) fn read(
    settings: &Settings,
    tokenizer: Tokenizer,
    checkpoint: &Checkpoint,
) -> Result<(Data, Tokenizer)> {
    let longest = checkpoint.config().max_positions();
    let options = settings
        .input
        .encoding(settings.input.max_seq_length.min(longest));
    let Given {
        mut train,
        mut held_out,
        notes,
    } = examples::read(&settings.input, settings.training.seed)?;
    let sets = &mut [&mut train, &mut held_out];
    let (tokenizer, mut lines) = text::prepare(&settings.input, tokenizer, sets)?;
    let encode = |examples: &[Example]| {
        let (bar, all) = (Slow::items("tokenizing"), examples.len() as u64);
        encode_examples_with(examples, &tokenizer, options, |done| {
            bar.set(done as u64, all);
        })
    };
    let train_examples = train;
    let train = encode(&train_examples)?;
    log::info!("training: {train}");
    let held = if held_out.is_empty() {
        EncodedSet::default()
    } else {
        encode(&held_out)?
    };
    log::info!("held out: {held}");
    let sets = [(&train, &*train_examples), (&held, &*held_out)];
    let vocab_size = vocabulary::rows(settings, &tokenizer, checkpoint, &sets, &mut lines)?;
    // A chat may have several rows.
    let mut sources = held.sources.clone();
    sources.dedup();
    let data = Data {
        vocab_size,
        lines,
        summary: format!("{notes}training: {train}\nheld out: {held}"),
        train: train.examples,
        held_out_examples: sources
            .iter()
            .map(|&index| held_out[index].clone())
            .collect(),
        held_out: held.examples,
    };
    Ok((data, tokenizer))
}

/// The batches of a run, shuffled in each epoch by its seed.
pub(crate) fn batches(
    settings: &Settings,
    tokenizer: &Tokenizer,
    examples: Vec<Encoded>,
    vocab_size: usize,
) -> Result<Batches, lisa_lm::Error> {
    let options = BatchOptions {
        batch_size: settings.training.batch_size,
        pack_to: settings.input.pack.then_some(settings.input.max_seq_length),
        shuffle: true,
        seed: settings.training.seed,
        pad_id: tokenizer.pad_id(),
        vocab_size,
    };
    Batches::new(examples, options)
}
