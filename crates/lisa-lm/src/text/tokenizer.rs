//! [`Tokenizer`]: a checkpoint's `tokenizer.json` with its special tokens and chat template.
//!
//! The tokenizer itself is the `tokenizers` crate's. Around it a checkpoint's folder holds small
//! files that say which tokens begin, end and pad a text, and how a chat is written down; this file
//! reads them, in the forms that versions 4 and 5 of transformers write. Tests: `tokenizer/tests.rs`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::error::{Error, ErrorKind};

use crate::files::{TOKENIZER_BYTES, read};
use crate::text::chat::ChatTemplate;

mod files;
mod growth;

use files::{eos_of, read_json, special_tokens, template_source, unreadable};

/// A text cut into tokens, with the place of each in the text.
///
/// # Example
///
/// ```
/// use lisa_lm::Tokenizer;
///
/// # let folder = "../../tests/fixtures/tokenizer";
/// let tokenizer = Tokenizer::from_dir(folder)?;
/// let text = "Hello, world!";
/// let tokens = tokenizer.encode_with_offsets(text, true)?;
/// assert_eq!(tokens.ids, [42, 71, 78, 350, 14, 309, 275, 401, 3]);
/// // The fourth token is `lo`.
/// assert_eq!(tokens.offsets[3], (3, 5));
/// assert_eq!(&text[3..5], "lo");
/// assert_eq!(tokenizer.token_to_id("lo"), Some(350));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// The ids, in order.
    pub ids: Vec<u32>,
    /// The bytes `start..end` of the text that each id came from; `(0, 0)` for an id that the
    /// tokenizer added itself.
    pub offsets: Vec<(usize, usize)>,
}

/// A tokenizer with its special tokens and chat template.
///
/// # Example
///
/// ```
/// use lisa_lm::{Message, Tokenizer};
///
/// # let folder = tempfile::tempdir()?;
/// # let fixture = "../../tests/fixtures/tokenizer/tokenizer.json";
/// # std::fs::copy(fixture, folder.path().join("tokenizer.json"))?;
/// # let config = r#"{"eos_token": "<|endoftext|>"}"#;
/// # std::fs::write(folder.path().join("tokenizer_config.json"), config)?;
/// let tokenizer = Tokenizer::from_dir(&folder)?;
/// let ids = tokenizer.encode("Hello, world!<|endoftext|>")?;
/// assert_eq!(ids, [42, 71, 78, 350, 14, 309, 275, 401, 3, 0]);
/// assert_eq!(tokenizer.decode(&ids, true)?, "Hello, world!");
/// assert_eq!(tokenizer.token_to_id("<|user|>"), Some(1));
/// assert_eq!((tokenizer.eos_id(), tokenizer.pad_id()), (Some(0), 0));
///
/// let text = tokenizer.chat_template().render(&[Message::user("Hello")], true)?;
/// let tokens = tokenizer.encode_with_offsets(&text, false)?;
/// assert_eq!(tokens.offsets.last(), Some(&(text.len() - 1, text.len())));
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
///
/// Or put together from parts:
///
/// ```
/// use std::collections::BTreeMap;
/// use lisa_lm::{ChatTemplate, Tokenizer};
///
/// # let file = "../../tests/fixtures/tokenizer/tokenizer.json";
/// let inner = tokenizers::Tokenizer::from_file(file)?;
/// let special = BTreeMap::from([("bos_token".to_owned(), "<|user|>".to_owned())]);
/// let template = ChatTemplate::default_for(&special);
/// let tokenizer = Tokenizer::from_parts(inner, special, [0, 2], template)?;
/// assert_eq!((tokenizer.bos_id(), tokenizer.eos_ids()), (Some(1), [0, 2].as_slice()));
/// assert_eq!(tokenizer.special_tokens()["bos_token"], "<|user|>");
/// assert_eq!(tokenizer.vocab_size(), 768);
/// assert_eq!(tokenizer.get_ref().id_to_token(350).as_deref(), Some("lo"));
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
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
    /// `tokenizer.json` must be there. These may be: `tokenizer_config.json` and
    /// `special_tokens_map.json` (special tokens; the former wins), `generation_config.json` and
    /// `config.json` (further ends of sequence, an id or a list), `chat_template.jinja` (wins over
    /// the `chat_template` of `tokenizer_config.json`, which is a string or a list of named
    /// templates, of which `default`, else the first, is taken). Without a chat template the
    /// [default one](crate::text::chat::DEFAULT_TEMPLATE) is used.
    ///
    /// At most 256 MiB of `tokenizer.json`, 1 MiB of a template and 16 MiB of each other file are
    /// read; the vocabulary in memory is some times larger than its file. A tokenizer that makes a
    /// text more than 1024 times as long, by replacements one behind the other, is refused.
    ///
    /// # Errors
    ///
    /// A missing `tokenizer.json`, a file that is not what its name says, is larger than that, is a
    /// pipe or device, or is a link out of the folder; a special token that is not in the vocabulary, a
    /// template that does not parse. Each names the file.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let path = dir.join("tokenizer.json");
        let bytes = read(dir, "tokenizer.json", TOKENIZER_BYTES);
        let Some(bytes) = bytes.map_err(|e| unreadable(&path, e))? else {
            return Err(Error::new(
                ErrorKind::Tokenizer,
                format!("{} is not there", path.display()),
            )
            .with_help(
                "a checkpoint's folder needs it; transformers' save_pretrained makes it of a \
                 tokenizer.model",
            ));
        };
        let inner = guarded(|| tokenizers::Tokenizer::from_bytes(bytes));
        let checked = inner.and_then(|inner| growth::check(&inner).map(|()| inner));
        let inner = checked.map_err(|e| {
            Error::new(
                ErrorKind::Tokenizer,
                format!("{} is not a tokenizer: {e}", path.display()),
            )
            .with_help("fetch it again")
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

    /// Puts a tokenizer together from its parts; [`from_dir`](Self::from_dir) ends here.
    ///
    /// `special` maps names such as `eos_token` to tokens. `eos_ids` are ends of sequence beside
    /// the `eos_token`. Truncation and padding that are stored in `tokenizer.json` are turned off,
    /// as transformers does: batches are padded, and examples cut, where they are made.
    ///
    /// # Errors
    ///
    /// A `bos_token`, `eos_token` or `pad_token` that is not in the vocabulary.
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
                return Err(Error::new(
                    ErrorKind::Tokenizer,
                    format!(
                        "the {name} is {token:?}, which is not among the {} tokens of \
                         tokenizer.json",
                        inner.get_vocab_size(true)
                    ),
                )
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

    /// The ids of a text, with the tokens that the tokenizer adds itself (such as a beginning of
    /// sequence).
    ///
    /// # Errors
    ///
    /// A text that the tokenizer cannot encode; byte-level tokenizers encode every text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(self.encode_with_offsets(text, true)?.ids)
    }

    /// The ids of a text and their places in it. `add_special` as in [`encode`](Self::encode); a
    /// rendered chat holds its special tokens already, so encode it with `false`.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_with_offsets(&self, text: &str, add_special: bool) -> Result<Tokens, Error> {
        let encoding = guarded(|| self.inner.encode(text, add_special)).map_err(|e| {
            let start: String = text.chars().take(40).collect();
            Error::new(
                ErrorKind::Tokenizer,
                format!("a text that begins {start:?} cannot be encoded: {e}"),
            )
        })?;
        Ok(Tokens {
            ids: encoding.get_ids().to_vec(),
            offsets: encoding.get_offsets().to_vec(),
        })
    }

    /// The text of these ids, without special tokens if `skip_special`. Unknown ids are left out;
    /// bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    ///
    /// Ids that the tokenizer's decoder refuses.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, Error> {
        let added = self.inner.get_added_vocabulary();
        let mut tokens = ids.iter().filter_map(|&id| self.inner.id_to_token(id));
        if tokens.all(|token| skip_special && added.is_special_token(&token)) {
            // Some decoders count from the last token, and there is none.
            return Ok(String::new());
        }
        guarded(|| self.inner.decode(ids, skip_special)).map_err(|e| {
            Error::new(
                ErrorKind::Tokenizer,
                format!("{} ids cannot be decoded: {e}", ids.len()),
            )
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

    /// The id that ends a sequence: the `eos_token`'s, else the first of the configuration's.
    #[must_use]
    pub fn eos_id(&self) -> Option<u32> {
        self.eos_ids.first().copied()
    }

    /// Every id that ends a sequence, the [first](Self::eos_id) first.
    #[must_use]
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// The id to pad with: the `pad_token`'s, else the end of sequence, else 0. Padding is masked
    /// from the loss and from attention, so any id will do.
    #[must_use]
    pub fn pad_id(&self) -> u32 {
        self.id_of("pad_token").or(self.eos_id()).unwrap_or(0)
    }

    /// How many tokens there are, added ones included. A model's embedding may have more rows.
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

    /// The tokenizer of the `tokenizers` crate underneath.
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

/// Runs the tokenizer. Its crate panics on some files that are no tokenizers and on some texts, which
/// is an error like others here: the value that was being made is thrown away.
fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("the tokenizer broke down on it".to_owned()),
    }
}

#[cfg(test)]
mod tests;
