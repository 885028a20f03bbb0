use std::cell::Cell;
use std::convert::Infallible;

use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::*;
use crate::test_support::TOKENIZER;

/// The tokenizer of the fixtures with these entries of its file replaced.
fn tokenizer(changes: &[(&str, Value)]) -> Tokenizer {
    let mut file: Value = serde_json::from_str(TOKENIZER).unwrap();
    for (key, value) in changes {
        file[*key] = value.clone();
    }
    file.to_string().parse().unwrap()
}

/// Tokenizers of several kinds: those that split words or none, that change the text, and that add
/// tokens at its ends.
fn tokenizers() -> Vec<(&'static str, Tokenizer)> {
    let gpt2 = |add_prefix_space: bool, trim: bool| {
        json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": trim,
            "use_regex": true})
    };
    let ends = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|user|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {
            "<|user|>": {"id": "<|user|>", "ids": [1], "tokens": ["<|user|>"]},
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    });
    // As SentencePiece: spaces become a character, and words are not split.
    let whole_words = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "\u{2581}"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]});
    let pieces = [
        "a", "b", "r", "e", "d", "n", "i", "g", "s", "t", "o", "\n", "\u{2581}",
    ];
    let merges = [
        "r e",
        "re d",
        "\u{2581} red",
        "i n",
        "in g",
        "r ing",
        "\u{2581} ring",
        "\u{2581} \u{2581}",
        "\u{2581}\u{2581} \u{2581}\u{2581}",
        "a a",
        "aa aa",
    ];
    let mut vocabulary = serde_json::Map::new();
    let joined = merges.iter().map(|merge| merge.replace(' ', ""));
    let special = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<unk>"].map(str::to_owned);
    for token in special
        .into_iter()
        .chain(pieces.map(str::to_owned))
        .chain(joined)
    {
        vocabulary.insert(token, json!(vocabulary.len()));
    }
    let bpe = json!({"type": "BPE", "vocab": vocabulary, "merges": merges, "unk_token": "<unk>",
        "dropout": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
        "fuse_unk": false, "byte_fallback": false, "ignore_merges": false});
    let scores: Vec<Value> = vocabulary
        .keys()
        .enumerate()
        .map(|(at, token)| json!([token, -((at % 7) as f64) - 1.0 / token.len() as f64]))
        .collect();
    let unigram = json!({"type": "Unigram", "unk_id": 3, "vocab": scores, "byte_fallback": false});
    let no_words = [
        ("pre_tokenizer", Value::Null),
        ("post_processor", Value::Null),
        ("normalizer", whole_words),
        ("decoder", Value::Null),
    ];
    let with = |model: Value| [&no_words[..], &[("model", model)]].concat();
    vec![
        ("bytes", tokenizer(&[])),
        (
            "prefix space",
            tokenizer(&[
                ("pre_tokenizer", gpt2(true, true)),
                ("post_processor", gpt2(true, true)),
            ]),
        ),
        ("ends", tokenizer(&[("post_processor", ends)])),
        ("NFC", tokenizer(&[("normalizer", json!({"type": "NFC"}))])),
        ("no words", tokenizer(&with(bpe))),
        ("unigram", tokenizer(&with(unigram))),
    ]
}

fn texts() -> Vec<(&'static str, String)> {
    let mut state = 7_u32;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as usize % below
    };
    let words = [
        "red",
        "ring",
        "a",
        "stone",
        "42",
        "  ",
        "\n",
        "it's",
        "\u{e9}t\u{e9}",
        "e\u{301}",
        "\u{65e5}\u{672c}\u{8a9e}",
        "\u{1f600}",
        "<|user|>",
        "<|user",
        "ABCdef",
        "!?...",
        "\t\t ",
    ];
    let mixed: Vec<&str> = (0..2000).map(|_| words[random(words.len())]).collect();
    let letters = (0..9000)
        .map(|_| char::from(b'a' + random(26) as u8))
        .collect();
    vec![
        ("words", mixed.join(" ")),
        ("no spaces", mixed.concat()),
        ("one word", letters),
        ("one letter", "a".repeat(9001)),
        ("spaces", format!("red{}ring", " ".repeat(9001))),
        ("other letters", "\u{65e5}\u{672c}\u{8a9e}".repeat(900)),
    ]
}

#[test]
fn pieces_have_the_tokens_of_the_whole_text() {
    for (name, tokenizer) in tokenizers() {
        for (what, text) in texts() {
            for add_special in [true, false] {
                let whole = tokenizer.encode(text.as_str(), add_special).unwrap();
                for length in [500, 1024, 3001] {
                    let found = of(&text, length, |text| tokenizer.encode(text, add_special));
                    let found = found.unwrap();
                    let of = format!("{name}, {what}, {length}");
                    assert!(found.ids == whole.get_ids(), "{of}: ids");
                    assert!(found.offsets == whole.get_offsets(), "{of}: offsets");
                    let ends = usize::from(name == "ends" && add_special);
                    assert_eq!(found.own, ends..found.ids.len() - ends, "{of}");
                }
            }
        }
    }
}

#[test]
fn a_text_of_words_is_never_encoded_whole() {
    let (_, text) = texts().swap_remove(0);
    for (name, tokenizer) in tokenizers() {
        let longest = Cell::new(0);
        let found = of(&text, 4000, |text| {
            longest.set(longest.get().max(text.len()));
            Ok::<_, Infallible>(tokenizer.encode(text, true).unwrap())
        });
        assert!(!found.unwrap_or_else(|never| match never {}).ids.is_empty());
        assert!(longest.get() <= 4000, "{name}: {}", longest.get());
    }
}
