//! [`Tokenizer`]: a checkpoint's `tokenizer.json` with its special tokens and chat template.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, ErrorKind};
use crate::files::{TOKENIZER_BYTES, read, shown};
use crate::text::template::{self, ChatTemplate};

mod added;
mod bpe;
mod files;
mod folder;
mod templates;

use files::{caught, parse, read_json, special_tokens, unreadable};
use folder::Folder;
use templates::{DEFAULT, TOOL_USE};

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
    /// Reads a checkpoint's folder, as transformers does.
    ///
    /// | file | what is read |
    /// |---|---|
    /// | `tokenizer.json` | the tokenizer |
    /// | `vocab.json` and `merges.txt` | without `tokenizer.json`, the byte-level tokenizer of GPT-2 or Qwen2, by `tokenizer_class` or the model's type |
    /// | `tokenizer_config.json` | special tokens, and in `added_tokens_decoder` further tokens |
    /// | `special_tokens_map.json`, `added_tokens.json` | the same in old folders; not read if there is an `added_tokens_decoder` |
    /// | `generation_config.json`, `config.json` | more end-of-sequence tokens, as an id or a list |
    /// | `chat_template.jinja` and `additional_chat_templates`, else `chat_template` in `tokenizer_config.json`, else in `chat_template.json` | the chat template: the one named `default`; the one named `tool_use` for chats with tools |
    ///
    /// Special tokens and further tokens that the vocabulary does not have are added to it, with
    /// the next free ids: check ids against [`ModelConfig::vocab_size`](crate::ModelConfig). If no
    /// `eos_token` is named, the token of the first end-of-sequence id is the `eos_token`. If there
    /// is no chat template, the [default one](crate::text::DEFAULT_TEMPLATE) is used.
    ///
    /// Reads at most 256 MiB of a vocabulary, 1 MiB of a template and 16 MiB of each other file.
    ///
    /// # Errors
    ///
    /// There is no tokenizer; a file has another format than its name says, is larger than these
    /// limits, is a pipe or device, or is a link out of the folder; the template does not parse.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref();
        let (mut folder, model) = Folder::read(dir)?;
        let mut config = folder.config.clone();
        if config["added_tokens_decoder"].is_null() {
            merge(&mut config, read_json(dir, "special_tokens_map.json")?);
        }
        let path = dir.join("tokenizer.json");
        let bytes = read(dir, "tokenizer.json", TOKENIZER_BYTES);
        let mut inner = if let Some(bytes) = bytes.map_err(|e| unreadable(&path, e))? {
            folder.has_vocabulary = true;
            parse(&bytes, &path)?
        } else {
            bpe::build(dir, &mut config, &model)?.ok_or_else(|| files::missing(dir))?
        };
        added::add(&mut inner, dir, &config)?;
        if !folder.has_vocabulary {
            bpe::add_ends(&mut inner, &config)
                .map_err(|e| Error::new(ErrorKind::Tokenizer, e.to_string()))?;
        }
        let mut special = special_tokens(&config);
        let by_id = (folder.eos.iter()).find_map(|(id, _)| inner.id_to_token(*id));
        if let (None, Some(token)) = (special.get("eos_token"), by_id) {
            special.insert("eos_token".to_owned(), token);
            folder.eos_by_id = true;
        }
        let template = template_of(&folder, &special)?;
        let eos: Vec<u32> = folder.eos.iter().map(|(id, _)| *id).collect();
        let tokenizer = Self::from_parts(inner, special, eos, template)?;
        Ok(Self {
            folder,
            ..tokenizer
        })
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

    /// Uses another chat template than the folder's.
    #[must_use]
    pub fn with_chat_template(mut self, template: ChatTemplate) -> Self {
        self.folder.chosen = Some(template.source().to_owned());
        self.template = template;
        self
    }

    /// Uses the chat template with this name: one of the checkpoint's own, such as `tool_use`, else
    /// one of [`ChatTemplate::named`]. Special tokens of the latter that the vocabulary does not
    /// have are added, with the next free ids.
    ///
    /// # Errors
    ///
    /// The checkpoint's template does not parse, or there is no template with this name.
    ///
    /// # Example
    ///
    /// ```
    /// use lisa_lm::Tokenizer;
    ///
    /// let tokenizer = Tokenizer::from_dir("../../tests/fixtures/tokenizer")?;
    /// assert_eq!((tokenizer.has_chat_template(), tokenizer.id_count()), (false, 768));
    /// let tokenizer = tokenizer.with_named_template("chatml")?;
    /// assert_eq!(tokenizer.chat_template().name(), "chatml");
    /// assert_eq!(tokenizer.encode("<|im_end|>")?, [769]);
    /// assert_eq!(tokenizer.id_count(), 770);
    /// # Ok::<(), lisa_lm::Error>(())
    /// ```
    pub fn with_named_template(mut self, name: &str) -> Result<Self, Error> {
        if let Some(source) = self.folder.templates.get(name) {
            let template = ChatTemplate::new(source, &self.special)?.with_name(name);
            return Ok(self.with_chat_template(template));
        }
        let known = template::named(name).zip(ChatTemplate::named(name, &self.special));
        let Some((named, template)) = known else {
            let names = template::NAMED.iter().map(|named| named.name);
            let message = format!("there is no chat template named {:?}", shown(&name));
            let names: Vec<&str> = names.collect();
            let mut help = format!("give one of {}", names.join(", "));
            if !self.folder.templates.named.is_empty() {
                help += &format!(", or of the model's own: {}", self.folder.templates.names());
            }
            return Err(Error::new(ErrorKind::Template, message).with_help(help));
        };
        for token in named.tokens {
            if !added::is_added(&self.inner, token) {
                let added = tokenizers::AddedToken::from(*token, true);
                self.inner.add_tokens(&[added]);
                self.folder.added.push((*token).to_owned());
            }
        }
        Ok(self.with_chat_template(template))
    }

    /// Adds an id that ends a sequence, in generation and in the saved `generation_config.json`.
    pub fn add_eos(&mut self, id: u32) {
        if !self.eos_ids.contains(&id) {
            self.eos_ids.push(id);
        }
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
    /// end-of-sequence tokens that some tokenizers append. At least one id is kept. An empty text is
    /// the id that begins a sequence, if the tokenizer or the model has one.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, Error> {
        let mut ids = self.encode(text)?;
        while ids.len() > 1 && ids.last().is_some_and(|id| self.is_eos(*id)) {
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
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_with_offsets(&self, text: &str, add_special: bool) -> Result<Tokens, Error> {
        let encoding = caught(|| self.inner.encode(text, add_special)).map_err(|e| {
            let start: String = text.chars().take(40).collect();
            let message = format!("a text that begins with {start:?} cannot be encoded: {e}");
            Error::new(ErrorKind::Tokenizer, message)
        })?;
        let (mut ids, mut offsets) = (encoding.get_ids().to_vec(), encoding.get_offsets().to_vec());
        // 1 for a token that the tokenizer added.
        let mask = encoding.get_special_tokens_mask();
        let before = mask.iter().take_while(|added| **added == 1).count();
        let after = mask.iter().rev().take_while(|added| **added == 1).count();
        let own = before..ids.len() - after.min(ids.len() - before);
        let doubled = |a: usize, b: usize| ids[a] == ids[b];
        let at_end = after > 0 && !own.is_empty() && doubled(own.end, own.end - 1);
        let at_start = before > 0 && !own.is_empty() && doubled(own.start - 1, own.start);
        let added = [at_end.then_some(own.end), at_start.then(|| own.start - 1)];
        for index in added.into_iter().flatten() {
            ids.remove(index);
            offsets.remove(index);
        }
        Ok(Tokens { ids, offsets })
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

    /// The largest id of a token, plus 1: how many rows an embedding needs for every token. It is
    /// more than [`vocab_size`](Self::vocab_size) if ids are left out. Visits every token.
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

    /// Whether the checkpoint has a chat template, or one was chosen.
    #[must_use]
    pub fn has_chat_template(&self) -> bool {
        self.folder.chosen.is_some() || !self.folder.templates.named.is_empty()
    }

    /// The source of the chat template, if it is not the one that the checkpoint uses by itself.
    #[must_use]
    pub fn chosen_template(&self) -> Option<&str> {
        self.folder.chosen.as_deref()
    }

    /// The end-of-sequence tokens, with ids and the files that state them, for a message; empty if
    /// there is none.
    #[must_use]
    pub fn describe_eos(&self) -> String {
        let named = self
            .special
            .get("eos_token")
            .filter(|_| !self.folder.eos_by_id);
        let named = named.and_then(|token| self.token_to_id(token));
        let described = self.eos_ids.iter().map(|id| {
            let stated = self.folder.eos.iter().find(|(known, _)| known == id);
            let file = match stated {
                _ if named == Some(*id) => "eos_token of the tokenizer",
                Some((_, file)) => *file,
                None => "end of a turn",
            };
            let token = self.id_to_token(*id).unwrap_or_default();
            format!("{token} ({id}, {file})")
        });
        Vec::from_iter(described).join(", ")
    }

    /// The files of a folder with this tokenizer that differ from the files that it was read from,
    /// as names and contents: for example `tokenizer.json` if the tokenizer was built from
    /// `vocab.json`, `chat_template.jinja` if another template is used, `generation_config.json`
    /// with all end-of-sequence ids and its other keys.
    ///
    /// # Errors
    ///
    /// The tokenizer cannot be written as JSON.
    pub fn changed_files(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let eos = self.special.get("eos_token").map(String::as_str);
        let files = self.folder.changed(&self.inner, eos, &self.eos_ids);
        files.map_err(|e| {
            let message = format!("the tokenizer cannot be written as JSON: {e}");
            Error::new(ErrorKind::Tokenizer, message)
        })
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

/// Sets the keys of `from` in `config`.
fn merge(config: &mut Value, from: Value) {
    match (config, from) {
        (Value::Object(config), Value::Object(from)) => config.extend(from),
        (config @ Value::Null, from) => *config = from,
        _ => {}
    }
}

/// The folder's chat template, or the default one.
fn template_of(folder: &Folder, special: &BTreeMap<String, String>) -> Result<ChatTemplate, Error> {
    let templates = &folder.templates;
    let new = |source: &str| Ok(ChatTemplate::new(source, special)?.with_name(templates.file));
    let tools = templates.get(TOOL_USE).map(new).transpose()?;
    let template = match templates.get(DEFAULT) {
        Some(source) => new(source)?,
        None if templates.named.is_empty() => ChatTemplate::default_for(special),
        // transformers, too, refuses when the template is used.
        None => new(&format!(
            "{{{{ raise_exception({}) }}}}",
            json!(format!(
                "the model has the chat templates {} and none is the default: choose one by its name",
                templates.names()
            ))
        ))?,
    };
    Ok(match tools {
        Some(tools) => template.with_tool_template(tools),
        None => template,
    })
}

#[cfg(test)]
mod tests;
