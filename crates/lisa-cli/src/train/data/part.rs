//! [`Part`]: the training or the held-out examples, encoded while they are read.

use anyhow::Result;
use lisa_lm::Tokenizer;
use lisa_lm::text::{
    Content, EncodeOptions, EncodedSet, Example, Message, RowEncoder, RowStore, StoredRows,
};

use super::bad_line::skippable;
use super::measures::{Lengths, Roles};
use super::places::Places;
use super::prompt_ends::Prompts;
use super::summary::Summary;
use super::visited::Visited;
use crate::terminal::text::counted;
use crate::user_error::UserError;

/// Examples are encoded together, in all threads: this many, or fewer that have this many bytes of text.
const EXAMPLES: usize = 256;
const BYTES: usize = 4 << 20;

/// Examples of one kind as rows of any length.
pub(crate) struct Part {
    encoder: RowEncoder,
    places: Places,
    roles: Roles,
    prompts: Prompts,
    /// Examples that are not encoded yet, and the bytes of their texts.
    waiting: Vec<Example>,
    bytes: usize,
}

impl Part {
    pub(crate) fn new(options: EncodeOptions, store: &RowStore) -> Result<Self> {
        Ok(Self {
            encoder: RowEncoder::new(options, store)?,
            places: Places::default(),
            roles: Roles::default(),
            prompts: Prompts::default(),
            waiting: Vec::new(),
            bytes: 0,
        })
    }

    /// Adds the next example.
    pub(crate) fn push(&mut self, example: Example, tokenizer: &Tokenizer) -> Result<()> {
        let index = self.places.len();
        self.places.push(example.place.as_ref());
        self.roles.see(&example, tokenizer);
        self.prompts.see(index, &example, tokenizer);
        self.bytes += bytes_of(&example.content);
        self.waiting.push(example);
        if self.waiting.len() >= EXAMPLES || self.bytes >= BYTES {
            self.encode(tokenizer)?;
        }
        Ok(())
    }

    fn encode(&mut self, tokenizer: &Tokenizer) -> Result<()> {
        let examples = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        let encoded = self.encoder.push(&examples, tokenizer);
        encoded.map_err(|error| skippable(error).into())
    }

    /// Encodes what is left. Returns an error if there is no row.
    pub(crate) fn end(&mut self, tokenizer: &Tokenizer) -> Result<()> {
        self.encode(tokenizer)?;
        self.encoder.check().map_err(|error| {
            let error = match self.places.get(0) {
                Some(place) => error.with_place(place.file(), None),
                None => error,
            };
            error.into()
        })
    }

    /// The number of tokens of each row before truncation.
    pub(crate) fn lengths(&self) -> &[usize] {
        self.encoder.lengths()
    }

    /// The rows that have a token to train on within `limit` tokens, and those that have one at all.
    pub(crate) fn kept(&self, limit: usize) -> (usize, usize) {
        (self.encoder.kept(limit), self.encoder.lengths().len())
    }

    /// Truncates the rows to `limit` tokens.
    pub(crate) fn cut(self, limit: usize) -> Result<Cut> {
        let lengths = Lengths::new(self.encoder.lengths().to_vec(), self.encoder.untrained());
        let places = self.places;
        let set = self.encoder.finish(limit).map_err(|error| {
            let help = format!(
                "raise --max-seq-length: the longest row has {}",
                counted(lengths.longest(), "token")
            );
            let refused = UserError::new(error.message()).with_help(help);
            match places.get(0) {
                Some(place) => refused.with_place(place.file(), place.line()),
                None => refused,
            }
        })?;
        let visited = Visited::of(&set.examples)?;
        let summary = Summary::of(&places, self.roles, &lengths, &set, &visited, limit);
        Ok(Cut {
            set,
            places,
            prompts: self.prompts,
            visited,
            summary,
        })
    }
}

/// Examples of one kind as rows of at most the tokens of `--max-seq-length`.
#[derive(Default)]
pub(crate) struct Cut {
    pub(crate) set: EncodedSet<StoredRows>,
    /// The places of the examples.
    pub(crate) places: Places,
    pub(crate) prompts: Prompts,
    pub(crate) visited: Visited,
    pub(crate) summary: Summary,
}

/// The bytes of the texts of an example.
fn bytes_of(content: &Content) -> usize {
    match content {
        Content::Chat(chat) => {
            let texts = chat.messages.iter().filter_map(Message::content);
            texts.map(str::len).sum()
        }
        Content::Pair {
            prompt, completion, ..
        } => prompt.len() + completion.len(),
        Content::Text(text) => text.len(),
    }
}
