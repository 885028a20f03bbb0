//! [`Tokenizer::from_dir`]: reads a checkpoint's folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::files::{self, parse, special_tokens, unreadable};
use super::folder::Folder;
use super::templates::{DEFAULT, TOOL_USE};
use super::{Tokenizer, added, bpe};
use crate::error::{Error, ErrorKind};
use crate::files::{TOKENIZER_BYTES, read};
use crate::text::template::ChatTemplate;

impl Tokenizer {
    /// Reads a checkpoint's folder, as transformers does.
    ///
    /// | file | what is read |
    /// |---|---|
    /// | `tokenizer.json` | the tokenizer |
    /// | `vocab.json` and `merges.txt` | without `tokenizer.json`, the byte-level tokenizer of GPT-2 or Qwen2, by `tokenizer_class` or the model's type |
    /// | `tokenizer_config.json` | special tokens, in `added_tokens_decoder` further tokens, and `split_special_tokens` |
    /// | `special_tokens_map.json`, `added_tokens.json` | the same in old folders; not read if there is an `added_tokens_decoder` |
    /// | `generation_config.json`, `config.json` | more end-of-sequence tokens, as an id or a list |
    /// | `chat_template.jinja` and `additional_chat_templates`, else `chat_template` in `tokenizer_config.json`, else in `chat_template.json` | the chat template: the one named `default`; the one named `tool_use` for chats with tools |
    ///
    /// For a model of type llama whose `tokenizer_class` is `LlamaTokenizer`, transformers 5 uses
    /// only the vocabulary of `tokenizer.json`, and splits texts by its own rules. If the file has
    /// the normalizer `Prepend`, as that of Llama 2, the ids after a special token within a text
    /// differ: `<s>hi` is `<s>`, `▁hi` here, and `<s>`, `hi` in transformers. For a model of type
    /// qwen2, its `AutoTokenizer` splits texts by Qwen2's rules, whatever the file says.
    ///
    /// For a tokenizer of GPT-2 or Qwen2, a special token of its class that no file names is
    /// `<|endoftext|>`. Chat templates get all special tokens by name, also those that only this
    /// model has, such as `image_token`. Special tokens and further tokens that the vocabulary does
    /// not have are added to it, with the next free ids: check ids against
    /// [`ModelConfig::vocab_size`](crate::ModelConfig). If no `eos_token` is named, the token of
    /// the first end-of-sequence id is the `eos_token`. If there is no chat template, the [default
    /// one](crate::text::DEFAULT_TEMPLATE) is used.
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
            merge(&mut config, folder.special_map.clone());
        }
        let path = dir.join("tokenizer.json");
        let bytes = read(dir, "tokenizer.json", TOKENIZER_BYTES);
        let mut inner = if let Some(bytes) = bytes.map_err(|e| unreadable(&path, e))? {
            folder.has_vocabulary = true;
            bpe::set_defaults(&mut config, &model);
            parse(&bytes, &path)?
        } else {
            bpe::build(dir, &mut config, &model)?.ok_or_else(|| files::missing(dir))?
        };
        added::add(
            &mut inner,
            dir,
            &folder.config,
            &config,
            &folder.added_tokens,
        )?;
        if !folder.has_vocabulary {
            bpe::add_ends(&mut inner, &config)
                .map_err(|e| Error::new(ErrorKind::Tokenizer, e.to_string()))?;
        }
        let splits = folder.config["split_special_tokens"].as_bool();
        inner.set_encode_special_tokens(splits.unwrap_or(false));
        let mut special = special_tokens(&config);
        let by_id = (folder.eos.iter()).find_map(|(id, _)| inner.id_to_token(*id));
        if let (None, Some(token)) = (special.get("eos_token"), by_id) {
            special.insert("eos_token".to_owned(), token);
            folder.eos_by_id = true;
        }
        let template = template_of(&folder, &special).map_err(|e| {
            e.with_place(dir.join(folder.templates.file), None)
                .with_help("correct the template, or remove it and choose another one")
        })?;
        let eos: Vec<u32> = folder.eos.iter().map(|(id, _)| *id).collect();
        let tokenizer = Self::from_parts(inner, special, eos, template)?;
        Ok(Self {
            folder,
            ..tokenizer
        })
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
