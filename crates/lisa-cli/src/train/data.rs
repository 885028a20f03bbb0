//! The data of a run: reads, splits and encodes examples, and makes batches. Tests: `data/tests.rs` and
//! `tests/run/`.

use std::path::Path;

use anyhow::Result;
use lisa_lm::text::{BatchOptions, Batches, Example, RowStore, StoredRows};
use lisa_lm::{Checkpoint, Tokenizer};

use super::examples::{Examples, For};
use super::part::Part;
use super::places::Places;
use super::score::Scorer;
use super::shown_row::{Show, tokens};
use super::summary::Summary;
use super::visited::Rows;
use super::{text, vocabulary};
use crate::machine::available_bytes;
use crate::settings::{Contents, Settings};
use crate::terminal::output::{say, say_styled, warn};
use crate::terminal::progress::Slow;
use crate::terminal::text::{counted, counted_as, epochs_in_words, one_line, size};

/// Training and held-out data.
pub(crate) struct Data {
    pub(crate) train: StoredRows,
    /// For each training row, the index of its example, and its tokens before truncation.
    train_sources: Vec<usize>,
    train_lengths: Vec<usize>,
    /// The places of the training examples.
    places: Places,
    pub(crate) held_out: StoredRows,
    /// For each held-out row, the index of its example. An example may have several rows, or none.
    pub(crate) held_out_sources: Vec<usize>,
    examples: Examples,
    /// Compares generated answers with those of the data.
    pub(crate) scorer: Scorer,
    /// What a resumed run must have in common: the training rows, and the held-out ones.
    pub(crate) fingerprints: [Rows; 2],
    /// The rows that the model's embedding must have.
    pub(crate) vocab_size: usize,
    /// What was read, and how it became text. A line may be a warning.
    lines: Vec<String>,
    has_chats: bool,
    train_summary: Summary,
    held_out_summary: Option<Summary>,
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
            self.train_summary.tokens() as f64 * epochs
        ))?;
        Ok(())
    }

    /// Prints what the data is, and warnings about it.
    pub(crate) fn summarize(
        &self,
        settings: &Settings,
        tokenizer: &Tokenizer,
        batches: &Batches,
    ) -> Result<()> {
        for line in &self.lines {
            match line.strip_prefix("warning: ") {
                Some(warning) => warn(warning),
                None => say(line)?,
            }
            if self.has_chats && line.starts_with("chat template: ") {
                say(format_args!("  {}", beginning(tokenizer)))?;
            }
        }
        say(format_args!("training data: {}", self.train_summary))?;
        if settings.input.pack {
            let (rows, length) = (batches.rows(), settings.input.max_seq_length);
            let full = 100.0 * self.train_summary.tokens() as f64 / (rows * length) as f64;
            let packed = counted(rows, "row");
            say(format_args!(
                "  packed: {packed} of {length} tokens, {full:.1} % full"
            ))?;
        }
        match &self.held_out_summary {
            Some(summary) => say(format_args!("held-out data: {summary}"))?,
            None => say("held-out data: none")?,
        }
        for (name, summary) in [
            ("training", Some(&self.train_summary)),
            ("held-out", self.held_out_summary.as_ref()),
        ] {
            if let Some(warning) = summary.and_then(Summary::warning) {
                warn(format_args!("{name} data: {warning}"));
            }
        }
        Ok(())
    }

    /// Prints a training row, counted from 0: where it comes from, and its tokens.
    pub(crate) fn show(&self, row: usize, tokenizer: &Tokenizer, show: Show) -> Result<()> {
        let encoded = self.train.get(row)?;
        let place = self.places.get(self.train_sources[row]);
        let place = place.map(|place| format!(" ({place})"));
        say(format_args!(
            "row {} of {}{}: {}, {} trained; each token is followed by its id",
            row + 1,
            self.train.len(),
            place.unwrap_or_default(),
            counted(encoded.ids.len(), "token"),
            encoded.trained()
        ))?;
        say_styled(tokens(&encoded, tokenizer, show)?)?;
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

/// Training and held-out data as tokens, with rows of at most the model's limit.
pub(crate) struct WholeData {
    examples: Examples,
    train: Part,
    held_out: Option<Part>,
    scorer: Scorer,
    /// The tokenizer as the data needs it.
    tokenizer: Tokenizer,
    has_chats: bool,
    lines: Vec<String>,
}

/// The memory of encoded rows, if it is not given and the machine does not say what it has.
const MEMORY: u64 = 1 << 30;

/// Reads the data of the settings, splits it into training and held-out data, and encodes rows of at
/// most `longest` tokens. Rows that are larger than `--data-memory` are in a file in `folder`.
pub(crate) fn read(
    settings: &Settings,
    tokenizer: Tokenizer,
    longest: usize,
    folder: &Path,
) -> Result<WholeData> {
    let input = &settings.input;
    let mut prepare = text::Prepare::new(input, tokenizer);
    let mut examples = Examples::read(input, settings.training.seed, |one| prepare.see(one))?;
    let has_chats = prepare.has_chats;
    let (tokenizer, prepared) = prepare.finish();
    let mut lines = std::mem::take(&mut examples.notes);
    lines.extend(prepared);

    let memory = match input.data_memory {
        0.0 => available_bytes().map_or(MEMORY, |bytes| bytes / 8),
        gib => (gib * f64::from(1 << 30)) as u64,
    };
    let store = RowStore::new(memory, folder);
    let options = input.encoding(longest);
    let mut train = Part::new(options, &store)?;
    let held_out = examples.has_held_out().then(|| Part::new(options, &store));
    let mut held_out = held_out.transpose()?;
    let mut scorer = Scorer::new(settings.output.metric, []);
    let (bar, all) = (Slow::items("tokenizing"), examples.len() as u64);
    let mut done = 0;
    examples.each(|kind, example| {
        example.answer.iter().for_each(|answer| scorer.see(answer));
        match (kind, &mut held_out) {
            (For::Evaluation, Some(part)) => part.push(example, &tokenizer)?,
            _ => train.push(example, &tokenizer)?,
        }
        done += 1;
        bar.set(done, all);
        Ok(())
    })?;
    for part in [Some(&mut train), held_out.as_mut()].into_iter().flatten() {
        part.end(&tokenizer)?;
    }
    if store.is_in_file() {
        lines.push(format!(
            "encoded rows: {} in a temporary file in `{}`, since they are more than {} \
             (--data-memory)",
            size(store.bytes()),
            folder.display(),
            size(memory)
        ));
    }
    Ok(WholeData {
        examples,
        train,
        held_out,
        scorer,
        tokenizer,
        has_chats,
        lines,
    })
}

impl WholeData {
    /// What the data has, before pairs are rendered as chats.
    pub(crate) fn contents(&self) -> Contents {
        self.examples.contents
    }

    /// The number of tokens of each training row.
    pub(crate) fn lengths(&self) -> &[usize] {
        self.train.lengths()
    }

    /// The data with rows of at most the tokens of `--max-seq-length`.
    pub(crate) fn cut(
        self,
        settings: &Settings,
        checkpoint: &Checkpoint,
    ) -> Result<(Data, Tokenizer)> {
        let (tokenizer, mut lines) = (self.tokenizer, self.lines);
        let limit = settings.input.max_seq_length;
        let train = self.train.cut(limit)?;
        let held_out = self.held_out.map(|part| part.cut(limit)).transpose()?;
        let parts = [Some(&train), held_out.as_ref()];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        let vocab_size = vocabulary::rows(settings, &tokenizer, checkpoint, &parts, &mut lines)?;
        let held_out_rows = held_out.as_ref().map(|part| part.visited.rows);
        let fingerprints = [train.visited.rows, held_out_rows.unwrap_or_default()];
        let (held_out, held_out_sources, held_out_summary) = match held_out {
            Some(part) => (part.set.examples, part.set.sources, Some(part.summary)),
            None => (StoredRows::default(), Vec::new(), None),
        };
        let data = Data {
            train: train.set.examples,
            train_sources: train.set.sources,
            train_lengths: train.set.lengths,
            places: train.places,
            held_out,
            held_out_sources,
            examples: self.examples,
            scorer: self.scorer,
            fingerprints,
            vocab_size,
            lines,
            has_chats: self.has_chats,
            train_summary: train.summary,
            held_out_summary,
        };
        Ok((data, tokenizer))
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

/// How the source of the chat template begins.
fn beginning(tokenizer: &Tokenizer) -> String {
    let source = tokenizer.chat_template().source();
    let start: String = source.chars().take(200).collect();
    let start: String = one_line(&start).chars().take(60).collect();
    let checksum = crc32c::crc32c(source.as_bytes());
    format!(
        "{}, checksum {checksum:08x}, begins {start}",
        counted(source.len(), "byte")
    )
}

#[cfg(test)]
mod tests;
