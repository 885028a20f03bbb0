//! [`Data`]: the training and held-out rows of a run, and what is printed of them.

use anyhow::Result;
use lisa_lm::Tokenizer;
use lisa_lm::text::{BatchOptions, Batches, Encoded, Example, StoredRows};

use super::examples::Examples;
use super::note::Note;
use super::places::Places;
use super::shown_row::{Show, marked_text, tokens};
use super::summary::Summary;
use super::visited::Rows;
use crate::settings::Settings;
use crate::terminal::output::{say, say_styled, warn};
use crate::terminal::text::{counted, counted_as, epochs_in_words};
use crate::train::score::Scorer;

/// Training and held-out data.
pub(crate) struct Data {
    pub(crate) train: StoredRows,
    /// For each training row, the index of its example, and its tokens before truncation.
    pub(super) train_sources: Vec<usize>,
    pub(super) train_lengths: Vec<usize>,
    /// The places of the training examples.
    pub(super) places: Places,
    pub(crate) held_out: StoredRows,
    /// For each held-out row, the index of its example. An example may have several rows, or none.
    pub(crate) held_out_sources: Vec<usize>,
    pub(super) examples: Examples,
    /// Compares generated answers with those of the data.
    pub(crate) scorer: Scorer,
    /// What a resumed run must have in common: the training rows, and the held-out ones.
    pub(crate) fingerprints: [Rows; 2],
    /// The rows that the model's embedding must have.
    pub(crate) vocab_size: usize,
    /// What was read, and how it became text.
    pub(super) notes: Vec<Note>,
    /// `None` if all rows are evaluated.
    pub(super) train_summary: Option<Summary>,
    pub(super) held_out_summary: Option<Summary>,
}

impl Data {
    /// Prints the size of an epoch, and the number of epochs in `steps` steps.
    pub(crate) fn describe(
        &self,
        batches: &Batches,
        accumulation: usize,
        steps: u64,
    ) -> Result<()> {
        let per_epoch = batches.steps_per_epoch(accumulation);
        let epochs = steps as f64 / per_epoch as f64;
        say(format_args!(
            "an epoch has {} in {} and {}; the run has {}: {}, about {:.0} tokens",
            counted(batches.rows(), "row"),
            counted_as(batches.per_epoch(), "batch", "batches"),
            counted(per_epoch, "step"),
            counted(steps as usize, "step"),
            epochs_in_words(epochs),
            self.train_tokens() as f64 * epochs
        ))?;
        Ok(())
    }

    /// Prints what the data is, and warnings about it.
    pub(crate) fn summarize(&self, settings: &Settings, batches: &Batches) -> Result<()> {
        self.print_notes()?;
        if let Some(summary) = &self.train_summary {
            say(format_args!("training data: {summary}"))?;
        }
        if settings.input.pack {
            let (rows, length) = (batches.rows(), settings.input.max_seq_length);
            let full = 100.0 * self.train_tokens() as f64 / (rows * length) as f64;
            let packed = counted(rows, "row");
            say(format_args!(
                "  packed: {packed} of {length} tokens, {full:.1} % full"
            ))?;
            let examples = self.train.len();
            if rows == examples && examples > 1 {
                warn(format_args!(
                    "--pack has no effect: no two of {examples} examples share a row of {length} tokens \
                     (--max-seq-length)"
                ));
            }
        }
        match &self.held_out_summary {
            Some(summary) => say(format_args!("held-out data: {summary}"))?,
            None => say("held-out data: none")?,
        }
        self.print_warnings();
        Ok(())
    }

    /// As [`summarize`](Self::summarize), of data that is only evaluated.
    pub(crate) fn summarize_evaluated(&self) -> Result<()> {
        self.print_notes()?;
        if let Some(summary) = &self.held_out_summary {
            say(format_args!("held-out data: {summary}"))?;
        }
        self.print_warnings();
        Ok(())
    }

    fn print_notes(&self) -> Result<()> {
        for note in &self.notes {
            note.print()?;
        }
        Ok(())
    }

    fn print_warnings(&self) {
        for (name, summary) in [
            ("training", &self.train_summary),
            ("held-out", &self.held_out_summary),
        ] {
            for warning in summary.iter().flat_map(Summary::warnings) {
                warn(format_args!("{name} data: {warning}"));
            }
        }
    }

    fn train_tokens(&self) -> usize {
        self.train_summary.as_ref().map_or(0, Summary::tokens)
    }

    /// The number of trained tokens of the held-out rows.
    pub(crate) fn held_out_trained(&self) -> usize {
        self.held_out_summary.as_ref().map_or(0, Summary::trained)
    }

    /// Whether rows are left out since they cannot be read or rendered.
    pub(crate) fn has_bad_rows(&self) -> bool {
        let parts = [&self.train_summary, &self.held_out_summary];
        parts.into_iter().flatten().any(Summary::has_bad_rows)
    }

    /// Prints a training row, counted from 0: where it comes from, and its tokens.
    pub(crate) fn show(&self, row: usize, tokenizer: &Tokenizer, show: Show) -> Result<()> {
        let encoded = self.train.get(row)?;
        let body = tokens(&encoded, tokenizer, show)?;
        self.print_row(row, &encoded, "each token is followed by its id", body)
    }

    /// As [`show`](Self::show), with the text of the row instead of its tokens.
    pub(crate) fn show_text(&self, row: usize, tokenizer: &Tokenizer) -> Result<()> {
        let encoded = self.train.get(row)?;
        let body = marked_text(&encoded, tokenizer)?;
        self.print_row(row, &encoded, "what is trained is in [[ ]]", body)
    }

    fn print_row(&self, row: usize, encoded: &Encoded, legend: &str, body: String) -> Result<()> {
        let place = self.places.get(self.train_sources[row]);
        let place = place.map(|place| format!(" ({place})"));
        say(format_args!(
            "row {} of {}{}: {}, {} trained; {legend}",
            row + 1,
            self.train.len(),
            place.unwrap_or_default(),
            counted(encoded.ids.len(), "token"),
            encoded.trained()
        ))?;
        say_styled(body)?;
        let cut = self.train_lengths[row] - encoded.ids.len();
        if cut > 0 {
            say(format_args!(
                "cut here (--max-seq-length): {} more",
                counted(cut, "token")
            ))?;
        }
        Ok(())
    }

    /// The number of tokens in the longest row.
    pub(crate) fn longest(&self, settings: &Settings) -> usize {
        let longest = self.train.lengths().max();
        if settings.input.pack {
            settings.input.max_seq_length
        } else {
            longest.unwrap_or(settings.input.max_seq_length)
        }
    }

    /// Reads the held-out examples with these indices.
    pub(crate) fn held_out_examples(&self, indices: &[usize]) -> Result<Vec<Example>> {
        self.examples.held_out(indices)
    }

    /// The bytes of the temporary file of the rows.
    pub(crate) fn file_bytes(&self) -> u64 {
        let store = self.train.store();
        if store.is_in_file() { store.bytes() } else { 0 }
    }
}

/// The batches of a run, shuffled in each epoch by its seed.
pub(crate) fn batches(
    settings: &Settings,
    tokenizer: &Tokenizer,
    data: &Data,
) -> Result<Batches, lisa_lm::Error> {
    let options = BatchOptions {
        batch_size: settings.training.batch_size,
        pack_to: settings.input.pack.then_some(settings.input.max_seq_length),
        shuffle: true,
        seed: settings.training.seed,
        pad_id: tokenizer.pad_id(),
        vocab_size: data.vocab_size,
    };
    Batches::from_rows(data.train.clone(), options)
}
