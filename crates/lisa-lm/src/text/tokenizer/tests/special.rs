//! Special tokens by name, and in texts.

use super::*;

#[test]
fn special_tokens_are_strings_or_objects_and_an_old_map_wins() {
    let dir = folder(&[
        ("tokenizer.json", TOKENIZER),
        ("special_tokens_map.json", r#"{"bos_token": "<|user|>"}"#),
        (
            "tokenizer_config.json",
            r#"{"eos_token": {"content": "<|endoftext|>", "lstrip": false}, "pad_token": null}"#,
        ),
        ("generation_config.json", r#"{"eos_token_id": [0, 2]}"#),
        ("config.json", r#"{"eos_token_id": 1}"#),
    ]);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(tokenizer.bos_id(), Some(1));
    assert_eq!(tokenizer.eos_ids(), [0, 2, 1]);
    assert_eq!(tokenizer.pad_id(), 0);
}

#[test]
fn a_padding_token_that_is_nothing_else_only_pads() {
    let only_pads = |more: &str| {
        let config = format!(r#"{{"eos_token": "<|endoftext|>"{more}}}"#);
        let files = [
            ("tokenizer.json", TOKENIZER),
            ("tokenizer_config.json", &config),
        ];
        let tokenizer = Tokenizer::from_dir(folder(&files).path()).unwrap();
        let ids = 0..tokenizer.id_count() as u32;
        ids.filter(|id| tokenizer.only_pads(*id))
            .collect::<Vec<_>>()
    };
    assert_eq!(only_pads(r#", "pad_token": "<pad>""#), [768]);
    for more in [
        "",
        r#", "pad_token": "<|endoftext|>""#,
        r#", "pad_token": "<|user|>", "bos_token": "<|user|>""#,
        r#", "pad_token": "<pad>", "unk_token": "<pad>""#,
    ] {
        assert_eq!(only_pads(more), [0; 0], "{more}");
    }
}

// The ids of the Python library tokenizers 0.23 for this file. `LlamaTokenizer` of transformers 5.23 has
// [1, 6, 2, 6] for the first text, and [7] for the second.
#[test]
fn a_tokenizer_of_llama_splits_texts_as_its_file_says() {
    let special = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    let file = json!({
        "version": "1.0",
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "model": {
            "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": {
                "<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "h": 4, "i": 5, "hi": 6, "▁hi": 7,
            },
            "merges": [["h", "i"], ["▁", "hi"]],
        },
    });
    let dir = folder(&[
        ("tokenizer.json", &file.to_string()),
        (
            "tokenizer_config.json",
            r#"{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}"#,
        ),
        ("config.json", r#"{"model_type": "llama"}"#),
    ]);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(tokenizer.encode("<s>hi</s>hi").unwrap(), [1, 7, 2, 7]);
    assert_eq!(tokenizer.encode(" hi").unwrap(), [3, 7]);
}
