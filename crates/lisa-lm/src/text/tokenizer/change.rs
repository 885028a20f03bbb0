//! What a run changes in a tokenizer, and which files of a saved folder differ because of it.

use std::collections::{BTreeMap, HashSet};

use tokenizers::AddedToken;

use super::{Tokenizer, added, check_special};
use crate::error::{Error, ErrorKind};
use crate::files::shown;
use crate::text::template::{self, ChatTemplate};

/// The special tokens that are taken over from the tokenizer of an adapter.
const TAKEN: [&str; 4] = ["bos_token", "eos_token", "pad_token", "unk_token"];

impl Tokenizer {
    /// Uses another chat template than the folder's.
    #[must_use]
    pub fn with_chat_template(mut self, template: ChatTemplate) -> Self {
        self.folder.chosen = Some(template.source().to_owned());
        self.template = template;
        self
    }

    /// Sets the time that the chat template writes as the current one
    /// ([`ChatTemplate::with_time`]).
    ///
    /// # Errors
    ///
    /// The text is not a time.
    pub fn with_template_time(mut self, time: &str) -> Result<Self, Error> {
        self.template = self.template.with_time(time)?;
        Ok(self)
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
    pub fn with_named_template(self, name: &str) -> Result<Self, Error> {
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
        let tokens = named.tokens.iter().copied();
        Ok(self.with_added_tokens(tokens)?.with_chat_template(template))
    }

    /// Adds these special tokens to the vocabulary, with the next free ids. Tokens that the
    /// tokenizer already has are skipped.
    ///
    /// # Errors
    ///
    /// A token cannot be added to the tokenizer.
    pub fn with_added_tokens<'a>(
        mut self,
        tokens: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Error> {
        let mut seen = HashSet::new();
        let new = tokens
            .into_iter()
            .filter(|token| !added::is_added(&self.inner, token) && seen.insert(*token));
        let new: Vec<&str> = new.collect();
        if new.is_empty() {
            return Ok(self);
        }
        // At once: with each addition, `tokenizers` builds its search for all added tokens again.
        let special = |token: &&str| AddedToken::from(*token, true);
        added::extend(
            &mut self.inner,
            &new.iter().map(special).collect::<Vec<_>>(),
        )?;
        self.folder.added.extend(new.into_iter().map(str::to_owned));
        Ok(self)
    }

    /// The tokens that were added after the folder was read.
    #[must_use]
    pub fn added_tokens(&self) -> &[String] {
        &self.folder.added
    }

    /// Uses other special tokens than the folder's, by name: pairs such as `eos_token` and
    /// `<|im_end|>`. A new `eos_token` becomes the first id that ends a sequence; the other ids
    /// stay.
    ///
    /// # Errors
    ///
    /// A `bos_token`, `eos_token` or `pad_token` is not in the vocabulary.
    ///
    /// # Example
    ///
    /// ```
    /// use lisa_lm::Tokenizer;
    ///
    /// let tokenizer = Tokenizer::from_dir("../../tests/fixtures/tokenizer")?;
    /// let tokenizer = tokenizer.with_special_tokens([("eos_token", "<|user|>")])?;
    /// assert_eq!(tokenizer.eos_id(), Some(1));
    /// assert_eq!(tokenizer.chosen_special_tokens()["eos_token"], "<|user|>");
    /// # Ok::<(), lisa_lm::Error>(())
    /// ```
    pub fn with_special_tokens<'a>(
        mut self,
        tokens: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Error> {
        for (name, token) in tokens {
            if self.special.get(name).is_some_and(|known| known == token) {
                continue;
            }
            check_special(&self.inner, name, token)?;
            self.special.insert(name.to_owned(), token.to_owned());
            self.folder
                .special
                .insert(name.to_owned(), token.to_owned());
            if name == "eos_token" {
                self.end_with_eos_token();
            }
        }
        self.template = self.template.with_special(&self.special);
        Ok(self)
    }

    /// Makes the id of a new `eos_token` the first one that ends a sequence.
    fn end_with_eos_token(&mut self) {
        self.folder.eos_by_id = false;
        let stated = &mut self.folder.eos;
        if let Some(old) = self.eos_ids.first()
            && !stated.iter().any(|(id, _)| id == old)
        {
            stated.push((*old, "eos_token of the base model"));
        }
        if let Some(id) = self.id_of("eos_token") {
            self.eos_ids.retain(|known| *known != id);
            self.eos_ids.insert(0, id);
        }
    }

    /// Special tokens by name that differ from the folder's.
    #[must_use]
    pub fn chosen_special_tokens(&self) -> &BTreeMap<String, String> {
        &self.folder.special
    }

    /// Takes over what training has changed in `other`, the tokenizer of an adapter: tokens that this
    /// vocabulary does not have, the tokens that begin, end and pad sequences or stand for unknown
    /// ones, the chat template, and further end-of-sequence ids.
    ///
    /// # Errors
    ///
    /// A token has another id here, or would get another one. The vocabularies are compared as a
    /// whole, with added tokens.
    ///
    /// # Example
    ///
    /// ```
    /// use lisa_lm::Tokenizer;
    ///
    /// let base = Tokenizer::from_dir("../../tests/fixtures/tokenizer")?;
    /// let trained = base.clone().with_named_template("chatml")?;
    /// let same = base.with_changes_of(&trained)?;
    /// assert_eq!(same.id_count(), 770);
    /// assert_eq!(same.chat_template().source(), trained.chat_template().source());
    /// # Ok::<(), lisa_lm::Error>(())
    /// ```
    pub fn with_changes_of(mut self, other: &Self) -> Result<Self, Error> {
        let mut theirs: Vec<(String, u32)> = other.inner.get_vocab(true).into_iter().collect();
        theirs.sort_unstable_by_key(|(_, id)| *id);
        let new = self.new_tokens(&theirs)?;
        self = self.with_added_tokens(new)?;
        let special = other.special.iter();
        let special = special.map(|(name, token)| (name.as_str(), token.as_str()));
        self = self.with_special_tokens(special.filter(|(name, _)| TAKEN.contains(name)))?;
        if other.has_chat_template() && other.template.source() != self.template.source() {
            let template = other.template.clone().with_special(&self.special);
            self = self.with_chat_template(template);
        }
        for id in &other.eos_ids {
            self.add_eos(*id);
        }
        Ok(self)
    }

    /// The tokens among `theirs` that this vocabulary does not have. Returns an error if a token has
    /// another id here, or would get another one as the next new token.
    fn new_tokens<'a>(&self, theirs: &'a [(String, u32)]) -> Result<Vec<&'a str>, Error> {
        let mut next = added::next_id(&self.inner);
        let mut new = Vec::new();
        for (token, id) in theirs.iter().filter(|(token, _)| !token.is_empty()) {
            let known = self.inner.token_to_id(token);
            let here = known.unwrap_or(next);
            if here != *id {
                let has = if known.is_some() { "has" } else { "would get" };
                let message = format!(
                    "the token {:?} {has} the id {here}, and {id} in the other tokenizer",
                    shown(token)
                );
                return Err(Error::new(ErrorKind::Tokenizer, message));
            }
            if known.is_none() {
                new.push(&token[..]);
                next = next.saturating_add(1);
            }
        }
        Ok(new)
    }

    /// Adds an id that ends a sequence, in generation and in the saved `generation_config.json`.
    pub fn add_eos(&mut self, id: u32) {
        if !self.eos_ids.contains(&id) {
            self.eos_ids.push(id);
        }
    }

    /// Whether the checkpoint has a chat template, or one was chosen.
    #[must_use]
    pub fn has_chat_template(&self) -> bool {
        self.folder.chosen.is_some() || !self.folder.templates.named.is_empty()
    }

    /// The source of the chat template, if another one than the checkpoint's default was chosen.
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
        described.collect::<Vec<_>>().join(", ")
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
        let files = self
            .folder
            .changed(&self.inner, &self.special, &self.eos_ids);
        files.map_err(|e| {
            let message = format!("the tokenizer cannot be written as JSON: {e}");
            Error::new(ErrorKind::Tokenizer, message)
        })
    }
}
