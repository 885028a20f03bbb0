//! [`Folder`]: what a tokenizer's folder says about it, and what a saved folder must have instead.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::added;
use super::files::{NAMES, eos_of, read_json};
use super::templates::{self, DEFAULT, FURTHER, JINJA, OLD, Templates};
use crate::error::Error;

/// A file of a saved folder: its name and content.
type File = (String, Vec<u8>);

/// The files of a folder, without the vocabulary.
#[derive(Clone, Debug, Default)]
pub(super) struct Folder {
    /// `tokenizer_config.json`.
    pub(super) config: Value,
    /// `special_tokens_map.json`.
    pub(super) special_map: Value,
    /// `added_tokens.json`.
    pub(super) added_tokens: Value,
    /// `generation_config.json`.
    pub(super) generation: Value,
    /// `bos_token_id`, `eos_token_id` and `pad_token_id` of `config.json`.
    pub(super) model: Value,
    pub(super) templates: Templates,
    /// End-of-sequence ids with the file that states each.
    pub(super) eos: Vec<(u32, &'static str)>,
    /// Whether the folder has this tokenizer as `tokenizer.json`.
    pub(super) has_vocabulary: bool,
    /// Whether the `eos_token` is known only by its id.
    pub(super) eos_by_id: bool,
    /// Special tokens that were added for a chat template.
    pub(super) added: Vec<String>,
    /// Special tokens by name that are not the folder's.
    pub(super) special: BTreeMap<String, String>,
    /// The source of a chat template that is not the folder's.
    pub(super) chosen: Option<String>,
}

impl Folder {
    /// Reads the small files of a folder. Returns also the type of the model, for a tokenizer that
    /// does not state its class.
    pub(super) fn read(dir: &Path) -> Result<(Self, Value), Error> {
        let config = read_json(dir, "tokenizer_config.json")?;
        let is_old = config["added_tokens_decoder"].is_null();
        // transformers reads the next two of old folders only: in others, they may be damaged.
        let old = |name: &str| match read_json(dir, name) {
            Err(error) if is_old => Err(error),
            found => Ok(found.unwrap_or_default()),
        };
        let special_map = old("special_tokens_map.json")?;
        let added_tokens = old("added_tokens.json")?;
        let templates = templates::find(dir, &config)?;
        let generation = read_json(dir, "generation_config.json")?;
        let all = read_json(dir, "config.json")?;
        let mut eos = Vec::new();
        for (file, value) in [
            ("generation_config.json", &generation),
            ("config.json", &all),
        ] {
            let ids = eos_of(value, &dir.join(file))?;
            eos.extend(ids.into_iter().map(|id| (id, file)));
        }
        let ids = ["bos_token_id", "eos_token_id", "pad_token_id"];
        let ids = ids.map(|key| (key.to_owned(), all[key].clone()));
        let folder = Self {
            config,
            special_map,
            added_tokens,
            generation,
            model: Map::from_iter(ids).into(),
            templates,
            eos,
            ..Self::default()
        };
        Ok((folder, all))
    }

    /// The id that begins a sequence, by the model's configuration.
    pub(super) fn bos(&self) -> Option<u32> {
        let id = |value: &Value| u32::try_from(value["bos_token_id"].as_u64()?).ok();
        id(&self.generation).or_else(|| id(&self.model))
    }

    /// The files that differ from those of the folder.
    pub(super) fn changed(
        &self,
        inner: &tokenizers::Tokenizer,
        special: &BTreeMap<String, String>,
        eos_ids: &[u32],
    ) -> Result<Vec<File>, String> {
        let mut files = Vec::new();
        if !self.has_vocabulary || !self.added.is_empty() {
            let text = inner.to_string(true).map_err(|e| e.to_string())?;
            files.push(("tokenizer.json".to_owned(), text.into_bytes()));
        }
        files.extend(self.config(inner, special));
        files.extend(self.special_map());
        files.extend(self.added_tokens(inner));
        files.extend(self.generation(eos_ids));
        let own = || self.only_for_processors();
        match self.chosen.as_deref().or_else(own) {
            Some(source) => {
                files.push((JINJA.to_owned(), source.as_bytes().to_vec()));
            }
            None if self.templates.file == JINJA => {
                let further = (self.templates.named.iter()).filter(|(name, _)| name != DEFAULT);
                files.extend(further.map(|(name, source)| {
                    (
                        format!("{FURTHER}/{name}.jinja"),
                        source.clone().into_bytes(),
                    )
                }));
            }
            None => {}
        }
        Ok(files)
    }

    /// The chat template, if the folder has one and has it in a file that transformers reads for a
    /// processor and not for a tokenizer.
    fn only_for_processors(&self) -> Option<&str> {
        let is_single = self.templates.file == OLD && self.templates.named.len() == 1;
        self.templates.get(DEFAULT).filter(|_| is_single)
    }

    /// `tokenizer_config.json`, if it must change. It gets the special tokens that are known by their
    /// ids or by the class of a tokenizer without `tokenizer.json`.
    fn config(
        &self,
        inner: &tokenizers::Tokenizer,
        special: &BTreeMap<String, String>,
    ) -> Option<File> {
        let mut map = self.config.as_object().cloned().unwrap_or_default();
        for (name, token) in special {
            let is_known = map.get(name).is_some_and(|value| !value.is_null());
            let is_missing = !self.has_vocabulary || self.eos_by_id && name == "eos_token";
            if !is_known && is_missing && NAMES.contains(&&name[..]) {
                map.insert(name.clone(), token.as_str().into());
            }
        }
        map.extend(self.special_entries());
        if let Some(Value::Object(decoder)) = map.get_mut("added_tokens_decoder") {
            for token in &self.added {
                if let Some(id) = inner.token_to_id(token) {
                    decoder.insert(id.to_string(), added::described(token));
                }
            }
        }
        if self.chosen.is_some() {
            map.remove("chat_template");
        }
        let is_same = match &self.config {
            Value::Object(old) => *old == map,
            _ => map.is_empty(),
        };
        (!is_same).then(|| pretty("tokenizer_config.json", map))
    }

    /// `special_tokens_map.json`, if the folder has it and a special token changes: in old folders it
    /// comes before `tokenizer_config.json`.
    fn special_map(&self) -> Option<File> {
        let mut map = self.special_map.as_object()?.clone();
        map.extend(self.special_entries());
        (!self.special.is_empty()).then(|| pretty("special_tokens_map.json", map))
    }

    /// The special tokens that are not the folder's, as entries of a JSON object.
    fn special_entries(&self) -> impl Iterator<Item = (String, Value)> {
        let tokens = self.special.iter();
        tokens.map(|(name, token)| (name.clone(), Value::from(token.as_str())))
    }

    /// `added_tokens.json`, if tokens were added and there is no `added_tokens_decoder`. llama.cpp reads
    /// the tokens that `tokenizer.model` does not have from one of the two. A new decoder would hide
    /// `special_tokens_map.json` from transformers.
    fn added_tokens(&self, inner: &tokenizers::Tokenizer) -> Option<File> {
        if self.added.is_empty() || !self.config["added_tokens_decoder"].is_null() {
            return None;
        }
        let mut map = self.added_tokens.as_object().cloned().unwrap_or_default();
        for token in &self.added {
            if let Some(id) = inner.token_to_id(token) {
                map.insert(token.clone(), id.into());
            }
        }
        Some(pretty("added_tokens.json", map))
    }

    /// `generation_config.json`, if it does not have every end-of-sequence id. Without this file
    /// transformers takes the ids of `config.json`.
    fn generation(&self, eos_ids: &[u32]) -> Option<File> {
        let old = match &self.generation {
            Value::Null => &self.model,
            found => found,
        };
        let mut ids = eos_of(old, Path::new("")).unwrap_or_default();
        let missing: Vec<u32> = (eos_ids.iter().copied())
            .filter(|id| !ids.contains(id))
            .collect();
        if missing.is_empty() {
            return None;
        }
        ids.extend(missing);
        let mut map = old.as_object().cloned().unwrap_or_default();
        let ids = match ids.as_slice() {
            [one] => json!(one),
            many => json!(many),
        };
        map.insert("eos_token_id".to_owned(), ids);
        map.retain(|_, value| !value.is_null() || self.generation.is_object());
        Some(pretty("generation_config.json", map))
    }
}

fn pretty(name: &str, map: Map<String, Value>) -> File {
    let text = format!("{:#}\n", Value::Object(map));
    (name.to_owned(), text.into_bytes())
}
