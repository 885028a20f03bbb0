//! Which files belong to a checkpoint, by their names.

use super::shards::{INDEX, SINGLE};

/// The configuration of an adapter in its folder.
pub(super) const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The matrices of an adapter.
pub(super) const ADAPTER: &str = "adapter_model.safetensors";

/// The files that a checkpoint has besides its weights and its configuration, apart from those of
/// [`FURTHER`].
pub(super) const COPIED: [&str; 13] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    TEKKEN,
    TEMPLATE,
    OLD_TEMPLATE,
];

/// The tokenizer of Mistral's own library.
pub(super) const TEKKEN: &str = "tekken.json";

/// The chat template, and an older file for it.
pub(super) const TEMPLATE: &str = "chat_template.jinja";
pub(super) const OLD_TEMPLATE: &str = "chat_template.json";

/// How the names of licences begin, and those of further versions of `tokenizer.model`.
const FURTHER: [&str; 5] = [
    "LICENSE",
    "LICENCE",
    "NOTICE",
    "USE_POLICY",
    "tokenizer.model.",
];

/// The folder of the named chat templates.
pub(super) const TEMPLATES: &str = "additional_chat_templates";

/// The model card.
const CARD: &str = "README.md";

/// Whether this is the name of a licence, or of a further version of `tokenizer.model`.
pub(super) fn is_further(name: &str) -> bool {
    FURTHER.iter().any(|start| name.starts_with(start))
}

/// Whether this is the name of a file that a save copies from the source: the tokenizer or the licence.
pub(super) fn is_copied(name: &str) -> bool {
    COPIED.contains(&name) || is_further(name)
}

/// Whether this is the name of a file that a saved model has besides its weights and its
/// configuration: the tokenizer, the licence, or the model card.
pub(super) fn is_companion(name: &str) -> bool {
    is_copied(name) || name == CARD
}

/// Whether a file or folder of this name is part of a saved model or adapter: weights, configuration,
/// tokenizer, licence, or model card.
///
/// # Example
///
/// ```
/// use lisa_lm::checkpoint::is_model_file;
///
/// assert!(is_model_file("model-00001-of-00002.safetensors") && is_model_file("config.json"));
/// assert!(!is_model_file("notes.txt") && !is_model_file("model.gguf"));
/// ```
#[must_use]
pub fn is_model_file(name: &str) -> bool {
    is_companion(name) || is_weights(name) || name == "config.json" || name == TEMPLATES
}

/// Whether this is the name of weights that a save writes. The files of an adapter are among them:
/// transformers loads an adapter with the model in its folder.
pub(super) fn is_weights(name: &str) -> bool {
    let is_adapter = [ADAPTER_CONFIG, ADAPTER].contains(&name);
    name == SINGLE || name == INDEX || is_shard(name) || is_adapter
}

/// `model-00001-of-00002.safetensors`, with any number of digits.
fn is_shard(name: &str) -> bool {
    let indices = name
        .strip_prefix("model-")
        .and_then(|rest| rest.strip_suffix(".safetensors"));
    indices
        .and_then(|indices| indices.split_once("-of-"))
        .is_some_and(|(number, count)| {
            [number, count]
                .iter()
                .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        })
}
