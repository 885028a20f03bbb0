//! The data of a run: reads, splits and encodes examples, and makes batches. Tests: `tests/run/`.

use anyhow::Result;
use lisa_lm::text::{
    BatchOptions, Batches, Content, EncodeOptions, Encoded, EncodedSet, Example, Place,
    encode_examples_with,
};
use lisa_lm::{Checkpoint, Tokenizer};

use super::examples::{self, Given};
use super::shown_row::{Show, tokens};
use super::summary::{Lengths, Summary};
use super::{text, vocabulary};
use crate::settings::{Contents, Settings};
use crate::terminal::output::{has_colours, say, say_styled, warn};
use crate::terminal::progress::Slow;
use crate::terminal::text::{counted, counted_as, epochs_in_words, one_line};
use crate::user_error::UserError;

/// Training and held-out data.
pub(crate) struct Data {
    pub(crate) train: Vec<Encoded>,
    /// The origin of each training row.
    pub(crate) origins: Vec<Origin>,
    pub(crate) held_out: Vec<Encoded>,
    /// The held-out examples. One may have several rows, or none.
    pub(crate) held_out_examples: Vec<Example>,
    /// For each held-out row, the index of its example.
    pub(crate) held_out_sources: Vec<usize>,
    /// The rows that the model's embedding must have.
    pub(crate) vocab_size: usize,
    /// What was read, and how it became text. A line may be a warning.
    lines: Vec<String>,
    has_chats: bool,
    train_summary: Summary,
    held_out_summary: Option<Summary>,
}

/// Where a row comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) place: Option<Place>,
    /// Tokens before truncation.
    pub(crate) length: usize,
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
        let (encoded, origin) = (&self.train[row], &self.origins[row]);
        let place = origin.place.as_ref().map(|place| format!(" ({place})"));
        say(format_args!(
            "row {} of {}{}: {}, {} trained; each token is followed by its id",
            row + 1,
            self.train.len(),
            place.unwrap_or_default(),
            counted(encoded.ids.len(), "token"),
            encoded.trained()
        ))?;
        say_styled(tokens(encoded, tokenizer, show, has_colours())?)?;
        let cut = origin.length - encoded.ids.len();
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
        let longest = self.train.iter().map(|example| example.ids.len()).max();
        if settings.input.pack {
            settings.input.max_seq_length
        } else {
            longest.unwrap_or(settings.input.max_seq_length)
        }
    }
}

/// Encoded examples of one kind, whole.
struct Whole {
    examples: Vec<Example>,
    set: EncodedSet,
}

impl Whole {
    fn encode(
        examples: Vec<Example>,
        tokenizer: &Tokenizer,
        options: EncodeOptions,
    ) -> Result<Self> {
        let (bar, all) = (Slow::items("tokenizing"), examples.len() as u64);
        let set = encode_examples_with(&examples, tokenizer, options, |done| {
            bar.set(done as u64, all);
        });
        let set = set.map_err(|error| {
            let file = examples.first().and_then(|one| one.place.as_ref());
            match file.filter(|_| error.place().is_none()) {
                Some(place) => error.with_place(place.file(), None),
                None => examples::skippable(error),
            }
        })?;
        Ok(Self { examples, set })
    }

    /// Truncates the rows to `limit` tokens.
    fn cut(self, tokenizer: &Tokenizer, limit: usize) -> Result<Part> {
        let Self { examples, set } = self;
        let before = Lengths::of(&set);
        let set = set.cut(limit).map_err(|error| {
            let help = format!(
                "raise --max-seq-length: the longest row has {}",
                counted(before.longest(), "token")
            );
            let refused = UserError::new(error.message()).with_help(help);
            match examples.first().and_then(|one| one.place.as_ref()) {
                Some(place) => refused.with_place(place.file(), place.line()),
                None => refused,
            }
        })?;
        let summary = Summary::of(&examples, tokenizer, &before, &set, limit);
        Ok(Part {
            examples,
            set,
            summary,
        })
    }
}

/// Encoded examples of one kind, truncated.
struct Part {
    examples: Vec<Example>,
    set: EncodedSet,
    summary: Summary,
}

impl Part {
    fn origins(&self) -> Vec<Origin> {
        let rows = self.set.sources.iter().zip(&self.set.lengths);
        let origin = |(source, length): (&usize, &usize)| Origin {
            place: self.examples[*source].place.clone(),
            length: *length,
        };
        rows.map(origin).collect()
    }
}

/// Training and held-out data as tokens, whole.
pub(crate) struct WholeData {
    train: Whole,
    held_out: Option<Whole>,
    /// The tokenizer as the data needs it.
    pub(crate) tokenizer: Tokenizer,
    /// What the data has, before pairs are rendered as chats.
    pub(crate) contents: Contents,
    lines: Vec<String>,
}

/// Reads the data of the settings, splits it into training and held-out data, and encodes it.
pub(crate) fn read(settings: &Settings, tokenizer: Tokenizer) -> Result<WholeData> {
    let options = settings.input.encoding(usize::MAX);
    let Given {
        mut train,
        mut held_out,
        notes: mut lines,
        contents,
    } = examples::read(&settings.input, settings.training.seed)?;
    let sets = &mut [&mut train, &mut held_out];
    let (tokenizer, prepared) = text::prepare(&settings.input, tokenizer, sets)?;
    lines.extend(prepared);
    let encode = |examples| Whole::encode(examples, &tokenizer, options);
    let train = encode(train)?;
    let held_out = if held_out.is_empty() {
        None
    } else {
        Some(encode(held_out)?)
    };
    Ok(WholeData {
        train,
        held_out,
        tokenizer,
        contents,
        lines,
    })
}

impl WholeData {
    /// The number of tokens of each training row.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        self.train.set.lengths.clone()
    }

    /// The data with rows of at most the tokens of `--max-seq-length`.
    pub(crate) fn cut(
        self,
        settings: &Settings,
        checkpoint: &Checkpoint,
    ) -> Result<(Data, Tokenizer)> {
        let (tokenizer, mut lines) = (self.tokenizer, self.lines);
        let limit = settings.input.max_seq_length;
        let train = self.train.cut(&tokenizer, limit)?;
        let held_out = self.held_out.map(|whole| whole.cut(&tokenizer, limit));
        let held_out = held_out.transpose()?;
        let parts = [Some(&train), held_out.as_ref()];
        let sets: Vec<(&EncodedSet, &[Example])> = parts
            .into_iter()
            .flatten()
            .map(|part| (&part.set, &*part.examples))
            .collect();
        let vocab_size = vocabulary::rows(settings, &tokenizer, checkpoint, &sets, &mut lines)?;
        let is_chat = |example: &Example| matches!(example.content, Content::Chat(_));
        let has_chats = sets
            .iter()
            .any(|(_, examples)| examples.iter().any(is_chat));
        let origins = train.origins();
        let (held_out, held_out_examples, held_out_summary) = match held_out {
            Some(part) => (part.set, part.examples, Some(part.summary)),
            None => (EncodedSet::default(), Vec::new(), None),
        };
        let data = Data {
            vocab_size,
            lines,
            has_chats,
            origins,
            train: train.set.examples,
            train_summary: train.summary,
            held_out: held_out.examples,
            held_out_sources: held_out.sources,
            held_out_examples,
            held_out_summary,
        };
        Ok((data, tokenizer))
    }
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
