//! What the tests of several files share: folders with given files, and the fixture's tokenizer.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use minijinja::value::Value;
use serde::Deserialize;
use tempfile::TempDir;

use crate::Tokenizer;
use crate::text::Message;

/// The small byte-level tokenizer of the fixtures: `<|endoftext|>` 0, `<|user|>` 1,
/// `<|assistant|>` 2.
pub(crate) const TOKENIZER: &str = include_str!("../../../tests/fixtures/tokenizer/tokenizer.json");

/// The fixtures that are small checkpoints of transformers.
pub(crate) const MODELS: [&str; 9] = [
    "llama",
    "gpt2",
    "mistral",
    "qwen2",
    "qwen3",
    "llama_tied",
    "qwen3_yarn",
    "ministral",
    "gpt2_scaled",
];

/// A fixture of the workspace's tests, such as a small checkpoint.
pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name)
}

/// A new folder with these files, removed when it is dropped.
pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in files {
        fs::write(dir.path().join(file), text).unwrap();
    }
    dir
}

/// The fixture's tokenizer with an end of sequence and this chat template.
pub(crate) fn tokenizer(template: &str) -> Tokenizer {
    let special = BTreeMap::from([("eos_token".to_owned(), "<|endoftext|>".to_owned())]);
    tokenizer_with(template, &special)
}

/// The fixture's tokenizer with these special tokens and this chat template.
pub(crate) fn tokenizer_with(template: &str, special: &BTreeMap<String, String>) -> Tokenizer {
    let mut config = serde_json::json!(special);
    config["chat_template"] = template.into();
    let files = [
        ("tokenizer.json", TOKENIZER),
        ("tokenizer_config.json", &config.to_string()),
    ];
    Tokenizer::from_dir(folder(&files).path()).unwrap()
}

/// A chat template, and how transformers renders chats with it.
#[derive(Deserialize)]
pub(crate) struct Rendering {
    pub(crate) name: String,
    pub(crate) template: String,
    pub(crate) special: BTreeMap<String, String>,
    pub(crate) renders: Vec<Render>,
}

/// A chat as text.
#[derive(Deserialize)]
pub(crate) struct Render {
    pub(crate) messages: Vec<Message>,
    #[serde(default)]
    pub(crate) tools: Value,
    /// Whether a generation prompt follows.
    pub(crate) prompt: bool,
    /// None: the template refuses the chat.
    pub(crate) text: Option<String>,
    /// Characters that are marked as generated.
    #[serde(default)]
    pub(crate) spans: Option<Vec<(usize, usize)>>,
}

/// The templates in the file that `LISA_TEMPLATES` names.
pub(crate) fn given_templates() -> Vec<Rendering> {
    let path = std::env::var("LISA_TEMPLATES").unwrap();
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}
