//! [`Tokenizer`]: a checkpoint's `tokenizer.json` with its special tokens and chat template.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::error::{Error, ErrorKind};
use crate::files::{TOKENIZER_BYTES, read};
use crate::text::template::ChatTemplate;

mod files;

use files::{eos_of, read_json, special_tokens, template_source, unreadable};

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
}

impl Tokenizer {
    /// Reads a checkpoint's folder.
    ///
    /// | file | what is read |
    /// |---|---|
    /// | `tokenizer.json` | the tokenizer; required |
    /// | `tokenizer_config.json`, else `special_tokens_map.json` | special tokens |
    /// | `generation_config.json`, `config.json` | more end-of-sequence tokens, as an id or a list |
    /// | `chat_template.jinja`, else `chat_template` in `tokenizer_config.json` | the chat template: a string, or a list of named templates, of which `default` or the first is used |
    ///
    /// If there is no chat template, the [default one](crate::text::DEFAULT_TEMPLATE) is used.
    /// Reads at most 256 MiB of `tokenizer.json`, 1 MiB of a template and 16 MiB of each other
    /// file.
    ///
    /// # Errors
    ///
    /// `tokenizer.json` is missing; a file has another format than its name says, is larger than
    /// these limits, is a pipe or device, or is a link out of the folder; a special token is not in
    /// the vocabulary; the template does not parse.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let path = dir.join("tokenizer.json");
        let bytes = read(dir, "tokenizer.json", TOKENIZER_BYTES);
        let Some(bytes) = bytes.map_err(|e| unreadable(&path, e))? else {
            return Err(Error::new(ErrorKind::Tokenizer, "this file is missing")
                .with_place(path, None)
                .with_help(
                    "a checkpoint's folder needs it; transformers' save_pretrained converts a \
                     tokenizer.model to it",
                ));
        };
        let inner = caught(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(|e| {
            Error::new(
                ErrorKind::Tokenizer,
                format!("this is not a tokenizer: {e}"),
            )
            .with_place(path, None)
            .with_help("fetch the file again")
        })?;
        let config = read_json(dir, "tokenizer_config.json")?;
        let mut special = special_tokens(&read_json(dir, "special_tokens_map.json")?);
        special.extend(special_tokens(&config));
        let mut eos_ids = Vec::new();
        for file in ["generation_config.json", "config.json"] {
            eos_ids.extend(eos_of(&read_json(dir, file)?, &dir.join(file))?);
        }
        let template = match template_source(dir, &config)? {
            Some(source) => ChatTemplate::new(&source, &special)?,
            None => ChatTemplate::default_for(&special),
        };
        Self::from_parts(inner, special, eos_ids, template)
    }

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
        for name in ["bos_token", "eos_token", "pad_token"] {
            let Some(token) = special.get(name) else {
                continue;
            };
            if inner.token_to_id(token).is_none() {
                let count = inner.get_vocab_size(true);
                let message = format!(
                    "the {name} is {token:?}, which is not among the {count} tokens of tokenizer.json"
                );
                return Err(Error::new(ErrorKind::Tokenizer, message)
                    .with_help("the files belong to different checkpoints: fetch them again"));
            }
        }
        let mut all = Vec::new();
        let first = special.get("eos_token").and_then(|t| inner.token_to_id(t));
        for id in first.into_iter().chain(eos_ids) {
            if !all.contains(&id) {
                all.push(id);
            }
        }
        Ok(Self {
            inner,
            special,
            eos_ids: all,
            template,
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
    /// end-of-sequence tokens that some tokenizers append. At least one id is kept.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, Error> {
        let mut ids = self.encode(text)?;
        while ids.len() > 1 && ids.last().is_some_and(|id| self.is_eos(*id)) {
            ids.pop();
        }
        Ok(ids)
    }

    /// The ids of a text and their places in it. A rendered chat already has its special tokens:
    /// encode it with `add_special` set to false.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_with_offsets(&self, text: &str, add_special: bool) -> Result<Tokens, Error> {
        let encoding = caught(|| self.inner.encode(text, add_special)).map_err(|e| {
            let start: String = text.chars().take(40).collect();
            let message = format!("a text that begins with {start:?} cannot be encoded: {e}");
            Error::new(ErrorKind::Tokenizer, message)
        })?;
        Ok(Tokens {
            ids: encoding.get_ids().to_vec(),
            offsets: encoding.get_offsets().to_vec(),
        })
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
    /// Padding is masked in the loss and in attention, so any id can be used.
    #[must_use]
    pub fn pad_id(&self) -> u32 {
        self.id_of("pad_token").or(self.eos_id()).unwrap_or(0)
    }

    /// The number of tokens, including added tokens. A model's embedding may have more rows.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
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

/// Runs the tokenizer and converts a panic to an error. Its crate panics on some files and some
/// texts.
fn caught<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("the tokenizer panicked".to_owned()),
    }
}

#[cfg(test)]
mod tests;
