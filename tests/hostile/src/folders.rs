//! Files of a checkpoint's folder, and training data.

use std::fs;
use std::path::Path;

use lisa_lm::checkpoint::{Adapter, SaveOptions, save};
use lisa_lm::text::{
    Chat, EncodeOptions, Message, OnBadLine, ReadOptions, encode_examples, read_examples, turn_end,
    untrained_prompt,
};
use lisa_lm::{Checkpoint, ModelConfig, Tokenizer};
use tempfile::TempDir;

use burn::tensor::Device;

/// The configuration of the small checkpoint in the corpus of `safetensors` and `index`.
pub const CONFIG: &str = r#"{"model_type": "llama", "vocab_size": 8, "hidden_size": 4,
"intermediate_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 2,
"rope_theta": 10000.0, "torch_dtype": "float32"}"#;

thread_local! {
    static SINGLE: TempDir = folder(&[("config.json", CONFIG)]);
    static SHARDED: TempDir = checkpoint(500);
    static CONFIGURED: TempDir = checkpoint(usize::MAX);
    static DATA: TempDir = folder(&[("tokenizer.json", TOKENIZER)]);
    static TOKENIZERS: TempDir = folder(&[]);
    static ADAPTERS: TempDir = folder(&[]);
}

/// The adapter in the corpus, for the small checkpoint.
const ADAPTER: &[u8] = include_bytes!("../corpus/adapter/small.safetensors");
const ADAPTER_CONFIG: &[u8] = include_bytes!("../corpus/adapter_config/small.json");

/// The tokenizer in the corpus.
const TOKENIZER: &str = include_str!("../corpus/tokenizer/small.json");

fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("no folder: {e}"));
    for (name, text) in files {
        write(dir.path(), name, text.as_bytes());
    }
    dir
}

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Writes the small checkpoint, in files of at most `max_shard_bytes`.
///
/// # Panics
///
/// If it cannot be written.
pub fn small_checkpoint(dir: &Path, max_shard_bytes: usize) {
    let model = ModelConfig::from_json(CONFIG).and_then(|config| config.init(&Device::flex()));
    let options = SaveOptions {
        source: None,
        max_shard_bytes,
        ..SaveOptions::default()
    };
    model.and_then(|model| save(&model, dir, &options)).unwrap();
}

fn checkpoint(max_shard_bytes: usize) -> TempDir {
    let dir = folder(&[]);
    small_checkpoint(dir.path(), max_shard_bytes);
    dir
}

fn load(dir: &Path) {
    if let Ok(checkpoint) = Checkpoint::open(dir) {
        let _ = checkpoint.load(&Device::flex(), None);
    }
}

/// `model.safetensors`, next to a configuration.
pub fn safetensors(bytes: &[u8]) {
    SINGLE.with(|dir| {
        write(dir.path(), "model.safetensors", bytes);
        load(dir.path());
    });
}

/// Opens an adapter, and merges it into the small checkpoint.
fn adapt(config: &[u8], weights: &[u8]) {
    ADAPTERS.with(|dir| {
        write(dir.path(), "adapter_config.json", config);
        write(dir.path(), "adapter_model.safetensors", weights);
        let model = ModelConfig::from_json(CONFIG).and_then(|config| config.init(&Device::flex()));
        if let Ok(adapted) = Adapter::open(dir).and_then(|adapter| adapter.apply(model?)) {
            let _ = adapted.merge_lora();
        }
    });
}

/// `adapter_model.safetensors`, next to a configuration.
pub fn adapter(bytes: &[u8]) {
    adapt(ADAPTER_CONFIG, bytes);
}

/// `adapter_config.json`, next to the matrices of an adapter.
pub fn adapter_config(bytes: &[u8]) {
    adapt(bytes, ADAPTER);
}

/// `model.safetensors.index.json`, next to shards.
pub fn index(bytes: &[u8]) {
    SHARDED.with(|dir| {
        write(dir.path(), "model.safetensors.index.json", bytes);
        load(dir.path());
    });
}

/// `config.json`, next to weights.
///
/// # Panics
///
/// If a configuration that was read is written and then refused.
pub fn model_config(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(config) = ModelConfig::from_json(text)
    {
        let again = ModelConfig::from_json(&config.to_json());
        assert!(again.is_ok(), "{text} was read, written, and refused");
    }
    CONFIGURED.with(|dir| {
        write(dir.path(), "config.json", bytes);
        load(dir.path());
    });
}

/// Training data, as lines, as a JSON file and as a table.
pub fn jsonl(bytes: &[u8]) {
    for name in ["data.jsonl", "data.json", "data.csv"] {
        data(name, bytes);
    }
}

fn data(name: &str, bytes: &[u8]) {
    DATA.with(|dir| {
        write(dir.path(), name, bytes);
        let path = dir.path().join(name);
        let _ = read_examples(&[&path], &ReadOptions::default());
        let skip = ReadOptions {
            on_bad: OnBadLine::Skip,
            ..ReadOptions::default()
        };
        let Ok(read) = read_examples(&[&path], &skip) else {
            return;
        };
        let Ok(tokenizer) = Tokenizer::from_dir(dir.path()) else {
            return;
        };
        let options = EncodeOptions {
            max_length: 64,
            ..EncodeOptions::default()
        };
        let _ = encode_examples(&read.examples, &tokenizer, options);
    });
}

/// `tokenizer.json`: reads it, and encodes and decodes with it.
pub fn tokenizer(bytes: &[u8]) {
    TOKENIZERS.with(|dir| {
        write(dir.path(), "tokenizer.json", bytes);
        use_tokenizer(dir.path());
        // As the two files of a byte-level tokenizer.
        let _ = fs::remove_file(dir.path().join("tokenizer.json"));
        write(dir.path(), "tokenizer_config.json", CLASS);
        for (vocabulary, merges) in [(bytes, &b"a b"[..]), (VOCABULARY, bytes)] {
            write(dir.path(), "vocab.json", vocabulary);
            write(dir.path(), "merges.txt", merges);
            use_tokenizer(dir.path());
        }
        write(dir.path(), "tokenizer_config.json", b"{}");
    });
}

/// Files of a byte-level tokenizer.
const CLASS: &[u8] = br#"{"tokenizer_class": "Qwen2Tokenizer"}"#;
const VOCABULARY: &[u8] = br#"{"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}"#;

/// `tokenizer_config.json`, alone and with the other small files of the same text.
pub fn tokenizer_config(bytes: &[u8]) {
    DATA.with(|dir| {
        for name in [
            "tokenizer_config.json",
            "special_tokens_map.json",
            "generation_config.json",
            "added_tokens.json",
        ] {
            write(dir.path(), name, bytes);
        }
        use_tokenizer(dir.path());
        for name in [
            "special_tokens_map.json",
            "generation_config.json",
            "added_tokens.json",
        ] {
            write(dir.path(), name, b"{}");
        }
        use_tokenizer(dir.path());
        write(dir.path(), "tokenizer_config.json", b"{}");
    });
}

fn use_tokenizer(dir: &Path) {
    let Ok(tokenizer) = Tokenizer::from_dir(dir) else {
        return;
    };
    for text in [
        "",
        "Hello, world! 12",
        "aaaaaaaaaaaaaaaaaaaaaaaa\u{1F600}\0e\u{301}",
    ] {
        if let Ok(ids) = tokenizer.encode(text) {
            let _ = tokenizer.decode(&ids, true);
        }
    }
    let _ = tokenizer.decode(&[0, 1, u32::MAX], false);
    let chat = Chat::from([Message::user("a"), Message::assistant("b")]);
    let _ = tokenizer.chat_template().render(&chat, true);
    let _ = turn_end(&chat, &tokenizer);
    let _ = untrained_prompt(&chat, tokenizer.chat_template());
    let _ = (tokenizer.pad_id(), tokenizer.vocab_size());
    let _ = (tokenizer.id_count(), tokenizer.changed_files());
    let _ = tokenizer.with_named_template("chatml");
}
