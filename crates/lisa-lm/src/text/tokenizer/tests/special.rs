//! Special tokens by name.

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
