//! A byte-level tokenizer from `vocab.json` and `merges.txt`, as transformers builds it for GPT-2
//! and Qwen2, and the special tokens that these classes have by default.

use std::path::Path;

use serde_json::{Value, json};
use tokenizers::PostProcessorWrapper;

use super::files::{parse, read_json, unreadable};
use crate::error::{Error, ErrorKind};
use crate::files::{TOKENIZER_BYTES, read_text, shown};

/// How Qwen2 splits a text before its merges: contractions, words, single digits, punctuation, line
/// breaks and spaces.
const QWEN2_SPLIT: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}\
    | ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/// The special token that both kinds have by default.
const END_OF_TEXT: &str = "<|endoftext|>";

/// A family of byte-level tokenizers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gpt2,
    Qwen2,
}

impl Kind {
    /// By `tokenizer_class` of the tokenizer or of the model, else by the model's type. A model of
    /// type qwen2 always has a Qwen2 tokenizer.
    fn of(config: &Value, model: &Value) -> Result<Self, String> {
        if model["model_type"] == "qwen2" {
            return Ok(Self::Qwen2);
        }
        let classes = [config, model].map(|json| json["tokenizer_class"].as_str());
        let class = classes.into_iter().flatten().next();
        match class.map(|class| class.trim_end_matches("Fast")) {
            Some("GPT2Tokenizer") => return Ok(Self::Gpt2),
            Some("Qwen2Tokenizer") => return Ok(Self::Qwen2),
            Some(_) => return Err(format!("tokenizer_class is {}", shown(&json!(class)))),
            None => {}
        }
        match model["model_type"].as_str() {
            Some("gpt2") => Ok(Self::Gpt2),
            Some("qwen3") => Ok(Self::Qwen2),
            _ => Err("tokenizer_config.json has no tokenizer_class".to_owned()),
        }
    }
}

/// Builds the tokenizer; `None` if the folder does not have both files. Sets the special tokens
/// that the class has by default in `config`, the JSON of `tokenizer_config.json`.
pub(super) fn build(
    dir: &Path,
    config: &mut Value,
    model: &Value,
) -> Result<Option<tokenizers::Tokenizer>, Error> {
    let text = |name: &str| {
        read_text(dir, name, TOKENIZER_BYTES).map_err(|e| unreadable(&dir.join(name), e))
    };
    let vocabulary = read_json(dir, "vocab.json")?;
    let (Value::Object(_), Some(merges)) = (&vocabulary, text("merges.txt")?) else {
        return Ok(None);
    };
    let kind = Kind::of(config, model).map_err(|found| {
        let message = format!(
            "vocab.json and merges.txt are read for GPT2Tokenizer and Qwen2Tokenizer, and {found}"
        );
        Error::new(ErrorKind::Tokenizer, message)
            .with_place(dir.join("tokenizer_config.json"), None)
            .with_help(super::files::conversion(dir))
    })?;
    let merges = pairs(&merges).map_err(|line| {
        Error::new(
            ErrorKind::Tokenizer,
            "this line is not two tokens with a space between them",
        )
        .with_place(dir.join("merges.txt"), Some(line))
        .with_help("fetch the file again")
    })?;
    let prefix = config["add_prefix_space"].as_bool().unwrap_or(false);
    let byte_level = |use_regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true,
            "use_regex": use_regex,
        })
    };
    let (normalizer, split) = match kind {
        Kind::Gpt2 => (Value::Null, byte_level(true)),
        Kind::Qwen2 => {
            let split = json!({
                "type": "Split", "pattern": {"Regex": QWEN2_SPLIT}, "behavior": "Isolated",
                "invert": false,
            });
            let all = json!([split, byte_level(false)]);
            (
                json!({"type": "NFC"}),
                json!({"type": "Sequence", "pretokenizers": all}),
            )
        }
    };
    let tokenizer = json!({
        "version": "1.0",
        "normalizer": normalizer,
        "pre_tokenizer": split,
        "decoder": byte_level(true),
        "model": {
            "type": "BPE", "vocab": vocabulary, "merges": merges, "fuse_unk": false,
            "continuing_subword_prefix": "", "end_of_word_suffix": "",
        },
    });
    defaults(kind, config);
    parse(tokenizer.to_string().as_bytes(), &dir.join("vocab.json")).map(Some)
}

/// The merges of the file, or the number of the line that is not a merge.
fn pairs(text: &str) -> Result<Vec<[&str; 2]>, usize> {
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.starts_with("#version"))
        .map(|(index, line)| match line.split_once(' ') {
            Some((a, b)) if !a.is_empty() && !b.is_empty() && !b.contains(' ') => Ok([a, b]),
            _ => Err(index + 1),
        })
        .collect()
}

/// Sets the special tokens of the class of a tokenizer that a folder has as `tokenizer.json`.
pub(super) fn set_defaults(config: &mut Value, model: &Value) {
    // For this type transformers does not use the class.
    let has_class = model["model_type"] != "mistral";
    if let (true, Ok(kind)) = (has_class, Kind::of(config, model)) {
        defaults(kind, config);
    }
}

/// Sets the special tokens of the class that are absent. A token that is null stays so.
fn defaults(kind: Kind, config: &mut Value) {
    let names = match kind {
        Kind::Gpt2 => ["unk_token", "bos_token", "eos_token"],
        Kind::Qwen2 => ["unk_token", "eos_token", "pad_token"],
    };
    if !config.is_object() {
        *config = json!({});
    }
    for name in names {
        if config.get(name).is_none() {
            config[name] = END_OF_TEXT.into();
        }
    }
}

/// Lets the tokenizer add the tokens that `add_bos_token` and `add_eos_token` ask for.
pub(super) fn add_ends(
    inner: &mut tokenizers::Tokenizer,
    config: &Value,
) -> Result<(), serde_json::Error> {
    let token = |flag: &str, name: &str| {
        let is_asked = config[flag].as_bool().unwrap_or(false);
        let token = &config[name];
        let token = token.as_str().or_else(|| token["content"].as_str());
        token.filter(|_| is_asked)
    };
    let (first, last) = (
        token("add_bos_token", "bos_token"),
        token("add_eos_token", "eos_token"),
    );
    if first.or(last).is_none() {
        return Ok(());
    }
    let special =
        |token: Option<&str>| token.map(|id| json!({"SpecialToken": {"id": id, "type_id": 0}}));
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let around = |id: &str| -> Vec<Value> {
        let parts = [special(first), Some(sequence(id)), special(last)];
        parts.into_iter().flatten().collect()
    };
    let used = [first, last].into_iter().flatten();
    let tokens: serde_json::Map<String, Value> = used
        .map(|token| {
            let id = inner.token_to_id(token);
            (
                token.to_owned(),
                json!({"id": token, "ids": [id], "tokens": [token]}),
            )
        })
        .collect();
    let pair = [around("A"), around("B")].concat();
    let template = json!({
        "type": "TemplateProcessing", "single": around("A"),
        "pair": pair, "special_tokens": tokens,
    });
    inner.with_post_processor(Some(serde_json::from_value::<PostProcessorWrapper>(
        template,
    )?));
    Ok(())
}
