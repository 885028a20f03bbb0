//! [`Tokenizer`]: a checkpoint's `tokenizer.json` with its special tokens and chat template.

use std::collections::BTreeMap;

use serde_json::json;

use crate::error::{Error, ErrorKind};
use crate::text::template::ChatTemplate;

mod added;
mod bpe;
mod change;
mod files;
mod folder;
mod open;
mod pieces;
mod templates;

use files::caught;
use folder::Folder;
use pieces::{PIECE, Pieces};

/// The special tokens that must be in the vocabulary.
const REQUIRED: [&str; 3] = ["bos_token", "eos_token", "pad_token"];

/// A text as tokens, with the place of each token in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// The ids, in order.
    pub ids: Vec<u32>,
    /// The bytes `start..end` of the text that each id came from; `(0, 0)` for an id that the
    /// tokenizer added.
    pub offsets: Vec<(usize, usize)>,
}

/// A tokenizer with its special tokens and chat template.
///
/// # Example
///
/// ```
/// use lisa_lm::Tokenizer;
///
/// let tokenizer = Tokenizer::from_dir("../../tests/fixtures/tokenizer")?;
/// let text = "Hello, world!";
/// let ids = tokenizer.encode(text)?;
/// assert_eq!(ids, [42, 71, 78, 350, 14, 309, 275, 401, 3]);
/// assert_eq!(tokenizer.decode(&ids, true)?, text);
///
/// // The fourth token is `lo`.
/// let tokens = tokenizer.encode_with_offsets(text, true)?;
/// assert_eq!((tokens.ids[3], tokens.offsets[3]), (350, (3, 5)));
/// assert_eq!(tokenizer.token_to_id("lo"), Some(350));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: BTreeMap<String, String>,
    eos_ids: Vec<u32>,
    template: ChatTemplate,
    folder: Folder,
}

impl Tokenizer {
    /// Assembles a tokenizer.
    ///
    /// `special` maps names such as `eos_token` to tokens; `eos_ids` are end-of-sequence ids in
    /// addition to the `eos_token`. Truncation and padding stored in `tokenizer.json` are turned
    /// off, as in transformers.
    ///
    /// # Errors
    ///
    /// The `bos_token`, `eos_token` or `pad_token` is not in the vocabulary.
    ///
    /// # Example
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use lisa_lm::{ChatTemplate, Tokenizer};
    ///
    /// let inner = tokenizers::Tokenizer::from_file("../../tests/fixtures/tokenizer/tokenizer.json")?;
    /// let special = BTreeMap::from([("bos_token".to_owned(), "<|user|>".to_owned())]);
    /// let template = ChatTemplate::default_for(&special);
    /// let tokenizer = Tokenizer::from_parts(inner, special, [0, 2], template)?;
    /// assert_eq!((tokenizer.bos_id(), tokenizer.eos_ids()), (Some(1), [0, 2].as_slice()));
    /// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    /// ```
    pub fn from_parts(
        mut inner: tokenizers::Tokenizer,
        special: BTreeMap<String, String>,
        eos_ids: impl IntoIterator<Item = u32>,
        template: ChatTemplate,
    ) -> Result<Self, Error> {
        inner
            .with_truncation(None)
            .map_err(|e| Error::new(ErrorKind::Tokenizer, e.to_string()))?
            .with_padding(None);
        for (name, token) in &special {
            check_special(&inner, name, token)?;
        }
        let mut all = Vec::new();
        let first = special.get("eos_token").and_then(|t| inner.token_to_id(t));
        for id in first.into_iter().chain(eos_ids) {
            if !all.contains(&id) {
                all.push(id);
            }
        }
        let is_default = template.source() == crate::text::DEFAULT_TEMPLATE;
        let folder = Folder {
            config: json!(special),
            chosen: (!is_default).then(|| template.source().to_owned()),
            ..Folder::default()
        };
        Ok(Self {
            inner,
            special,
            eos_ids: all,
            template,
            folder,
        })
    }

    /// The ids of a text, with the special tokens that the tokenizer adds, such as a
    /// beginning-of-sequence token.
    ///
    /// # Errors
    ///
    /// The tokenizer cannot encode the text. A byte-level tokenizer can encode every text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(self.encode_with_offsets(text, true)?.ids)
    }

    /// The ids of a text that a model continues: as [`encode`](Self::encode), without the
    /// end-of-sequence tokens that some tokenizers append. Such tokens in the text itself stay. At
    /// least one id is kept. For an empty text, the result is the id that begins a sequence, if the
    /// tokenizer or the model has one.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, Error> {
        let Pieces { mut ids, own, .. } = self.pieces(text, true)?;
        // Without a token of the text, every token is the tokenizer's.
        let kept = if own.is_empty() { 1 } else { own.end };
        while ids.len() > kept && ids.last().is_some_and(|id| self.is_eos(*id)) {
            ids.pop();
        }
        if ids.is_empty() {
            ids.extend(self.bos_id().or_else(|| self.folder.bos()));
        }
        Ok(ids)
    }

    /// The ids of a text and their places in it. A rendered chat already has its special tokens:
    /// encode it with `add_special` set to false.
    ///
    /// A special token that the tokenizer adds at the start or at the end is not added if the text
    /// has it there already.
    ///
    /// A text of more than 256 KiB is encoded in overlapping pieces, so that the cost in memory is
    /// about 20 bytes for each token. The result is the same as for the whole text.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_with_offsets(&self, text: &str, add_special: bool) -> Result<Tokens, Error> {
        let Pieces { ids, offsets, .. } = self.pieces(text, add_special)?;
        Ok(Tokens { ids, offsets })
    }

    /// The tokens of a text, without those that the tokenizer adds next to the same token of the text.
    fn pieces(&self, text: &str, add_special: bool) -> Result<Pieces, Error> {
        let mut all = pieces::of(text, PIECE, |text| {
            caught(|| self.inner.encode(text, add_special))
        })
        .map_err(|e| {
            let start: String = text.chars().take(40).collect();
            let message = format!("a text that begins with {start:?} cannot be encoded: {e}");
            Error::new(ErrorKind::Tokenizer, message)
                .with_help("remove the text, or check that tokenizer.json is whole")
        })?;
        if all.own.is_empty() {
            return Ok(all);
        }
        let (start, end) = (all.own.start, all.own.end);
        if all.ids.get(end) == Some(&all.ids[end - 1]) {
            all.remove(end);
        }
        if start > 0 && all.ids[start - 1] == all.ids[start] {
            all.remove(start - 1);
            all.own = start - 1..end - 1;
        }
        Ok(all)
    }

    /// The text of these ids, without special tokens if `skip_special`. Unknown ids are skipped;
    /// bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    ///
    /// The tokenizer's decoder refuses the ids.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, Error> {
        let added = self.inner.get_added_vocabulary();
        let mut tokens = ids.iter().filter_map(|&id| self.inner.id_to_token(id));
        if tokens.all(|token| skip_special && added.is_special_token(&token)) {
            // Some decoders subtract 1 from the number of tokens.
            return Ok(String::new());
        }
        caught(|| self.inner.decode(ids, skip_special)).map_err(|e| {
            let message = format!("{} ids cannot be decoded: {e}", ids.len());
            Error::new(ErrorKind::Tokenizer, message)
        })
    }

    /// The token with this id.
    #[must_use]
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token, if it is in the vocabulary.
    #[must_use]
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The id of the `bos_token`, which begins a sequence.
    #[must_use]
    pub fn bos_id(&self) -> Option<u32> {
        self.id_of("bos_token")
    }

    /// The id that ends a sequence: the id of the `eos_token`, else the first one in the
    /// configuration.
    #[must_use]
    pub fn eos_id(&self) -> Option<u32> {
        self.eos_ids.first().copied()
    }

    /// Every id that ends a sequence, [`eos_id`](Self::eos_id) first.
    #[must_use]
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// Whether this id ends a sequence.
    #[must_use]
    pub fn is_eos(&self, id: u32) -> bool {
        self.eos_ids.contains(&id)
    }

    /// The id to pad with: the id of the `pad_token`, else the id that ends a sequence, else 0.
    /// Padding is masked in the loss and in attention, so any id can be used. If a model's embedding has
    /// no row for it, [`Batches`](crate::text::Batches) pads with 0.
    #[must_use]
    pub fn pad_id(&self) -> u32 {
        self.id_of("pad_token").or(self.eos_id()).unwrap_or(0)
    }

    /// Whether this is the id of the `pad_token`, and of no other special token. Padding is masked, so a
    /// model's embedding needs no row for it.
    #[must_use]
    pub fn only_pads(&self, id: u32) -> bool {
        let is_it = |token: &String| self.inner.token_to_id(token) == Some(id);
        let mut names = self.special.iter().filter(|(_, token)| is_it(token));
        !self.is_eos(id)
            && names.next().is_some_and(|(name, _)| name == "pad_token")
            && names.next().is_none()
    }

    /// The number of tokens, including added tokens. A model's embedding may have more rows.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The largest id of a token, plus 1: how many rows an embedding needs to have one for every
    /// token. It is more than [`vocab_size`](Self::vocab_size) if some ids are not used. Visits
    /// every token.
    #[must_use]
    pub fn id_count(&self) -> usize {
        let largest = self.inner.get_vocab(true).into_values().max();
        largest.map_or(0, |id| id as usize + 1)
    }

    /// The special tokens by name (`bos_token`, ..), as chat templates see them.
    #[must_use]
    pub fn special_tokens(&self) -> &BTreeMap<String, String> {
        &self.special
    }

    /// The chat template: the checkpoint's, or the default one.
    #[must_use]
    pub fn chat_template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The inner tokenizer from the `tokenizers` crate.
    #[must_use]
    pub fn get_ref(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    fn id_of(&self, name: &str) -> Option<u32> {
        self.special
            .get(name)
            .and_then(|t| self.inner.token_to_id(t))
    }
}

/// Returns an error if a special token that must be in the vocabulary is not.
fn check_special(inner: &tokenizers::Tokenizer, name: &str, token: &str) -> Result<(), Error> {
    if !REQUIRED.contains(&name) || inner.token_to_id(token).is_some() {
        return Ok(());
    }
    let count = inner.get_vocab_size(true);
    let message =
        format!("the {name} is {token:?}, which is not among the {count} tokens of tokenizer.json");
    Err(Error::new(ErrorKind::Tokenizer, message)
        .with_help("the files belong to different checkpoints: fetch them again"))
}

#[cfg(test)]
mod tests;
