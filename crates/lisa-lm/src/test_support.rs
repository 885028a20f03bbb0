//! What the tests of several files share: folders with given files, and the fixture's tokenizer.

use std::fs;
use std::path::PathBuf;

use crate::Tokenizer;

/// The small byte-level tokenizer of the fixtures: `<|endoftext|>` 0, `<|user|>` 1,
/// `<|assistant|>` 2.
pub(crate) const TOKENIZER: &str = include_str!("../../../tests/fixtures/tokenizer/tokenizer.json");

/// A new folder of this name with these files.
pub(crate) fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("lisa-lm-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    for (file, text) in files {
        fs::write(dir.join(file), text).unwrap();
    }
    dir
}

/// The fixture's tokenizer with an end of sequence and this chat template.
pub(crate) fn tokenizer(name: &str, template: &str) -> Tokenizer {
    let config = serde_json::json!({"eos_token": "<|endoftext|>", "chat_template": template});
    let files = [
        ("tokenizer.json", TOKENIZER),
        ("tokenizer_config.json", &config.to_string()),
    ];
    Tokenizer::from_dir(folder(name, &files)).unwrap()
}
