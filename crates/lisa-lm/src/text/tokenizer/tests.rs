use super::*;
use crate::test_support::{TOKENIZER, folder};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    decoded: String,
}

#[test]
fn texts_encode_and_decode_as_in_python() {
    let dir = folder(&[("tokenizer.json", TOKENIZER)]);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let cases: Vec<Case> = serde_json::from_str(include_str!(
        "../../../../../tests/fixtures/tokenizer/cases.json"
    ))
    .unwrap();
    assert_eq!(cases.len(), 11);
    for case in cases {
        assert_eq!(
            tokenizer.encode(&case.text).unwrap(),
            case.ids,
            "{:?}",
            case.text
        );
        assert_eq!(tokenizer.decode(&case.ids, false).unwrap(), case.decoded);
    }
}

/// Without the library's care one of these decoders overflows; that shows where overflow is
/// checked, as in a debug build and under cargo-fuzz.
#[test]
fn no_tokens_are_no_text_whatever_the_decoder() {
    for decoder in ["BPEDecoder", "ByteLevel", "WordPiece", "Metaspace", "CTC"] {
        let mut json: Value = serde_json::from_str(TOKENIZER).unwrap();
        json["decoder"] = serde_json::json!({
            "type": decoder, "suffix": "</w>", "prefix": "##", "cleanup": true,
            "add_prefix_space": false, "trim_offsets": false, "use_regex": false,
            "replacement": "_", "prepend_scheme": "never", "split": false,
            "pad_token": "<pad>", "word_delimiter_token": "|",
        });
        let dir = folder(&[("tokenizer.json", &json.to_string())]);
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        for ids in [&[][..], &[0, 1], &[1_000_000]] {
            assert_eq!(
                tokenizer.decode(ids, true).unwrap(),
                "",
                "{decoder} {ids:?}"
            );
        }
    }
}

#[test]
fn a_tokenizer_alone_has_no_ends_and_the_default_template() {
    let dir = folder(&[("tokenizer.json", TOKENIZER)]);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(
        (tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.pad_id()),
        (None, None, 0)
    );
    assert_eq!(
        tokenizer.chat_template().source(),
        crate::text::DEFAULT_TEMPLATE
    );
    assert_eq!(tokenizer.token_to_id("<|assistant|>"), Some(2));
}

#[test]
fn a_template_comes_from_its_file_then_from_the_config_by_name() {
    let named = r#"{"chat_template": [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]}"#;
    let files = [
        ("tokenizer.json", TOKENIZER),
        ("tokenizer_config.json", named),
    ];
    let source = |files: &[(&str, &str)]| {
        let tokenizer = Tokenizer::from_dir(folder(files).path()).unwrap();
        tokenizer.chat_template().source().to_owned()
    };
    assert_eq!(source(&files), "D");
    let string = [
        files[0],
        ("tokenizer_config.json", r#"{"chat_template": "S"}"#),
    ];
    assert_eq!(source(&string), "S");
    let file = [files[0], files[1], ("chat_template.jinja", "F")];
    assert_eq!(source(&file), "F");
}

#[test]
fn what_is_wrong_with_a_folder_is_named() {
    let good = ("tokenizer.json", TOKENIZER);
    #[allow(clippy::items_after_statements)]
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 10] = [
        ("none", &[], "tokenizer.json: this file is missing"),
        (
            "cut",
            &[("tokenizer.json", "{\"version\": ")],
            "tokenizer.json: this is not a tokenizer",
        ),
        (
            "json",
            &[good, ("tokenizer_config.json", "{")],
            "tokenizer_config.json:1: this is not JSON",
        ),
        (
            "token",
            &[
                good,
                (
                    "tokenizer_config.json",
                    r#"{"added_tokens_decoder": {"7": {}}}"#,
                ),
            ],
            "tokenizer_config.json: added_tokens_decoder has no token with a `content` for 7",
        ),
        (
            "id",
            &[
                good,
                (
                    "tokenizer_config.json",
                    r#"{"added_tokens_decoder": {"x": {}}}"#,
                ),
            ],
            "tokenizer_config.json: added_tokens_decoder has the id \"x\"",
        ),
        (
            "added",
            &[good, ("added_tokens.json", r#"{"<t>": -1}"#)],
            "added_tokens.json: \"<t>\" has the id -1",
        ),
        (
            "model",
            &[("tokenizer.model", "")],
            "tokenizer.json: this file is missing, and tokenizer.model is not read; convert it: python -c",
        ),
        (
            "eos",
            &[good, ("config.json", r#"{"eos_token_id": "x"}"#)],
            "config.json: eos_token_id is",
        ),
        (
            "parse",
            &[good, ("chat_template.jinja", "{% if %}")],
            "does not parse",
        ),
        (
            "kind",
            &[good, ("tokenizer_config.json", r#"{"chat_template": 3}"#)],
            "tokenizer_config.json: chat_template is",
        ),
    ];
    for (name, files, expected) in cases {
        let error = Tokenizer::from_dir(folder(files).path()).unwrap_err();
        let kind = match name {
            "parse" => ErrorKind::Template,
            _ => ErrorKind::Tokenizer,
        };
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
}

#[test]
fn parts_with_a_special_token_that_is_no_token_are_refused() {
    let inner: tokenizers::Tokenizer = TOKENIZER.parse().unwrap();
    let special = BTreeMap::from([("eos_token".to_owned(), "<e>".to_owned())]);
    let template = ChatTemplate::default_for(&special);
    let error = Tokenizer::from_parts(inner, special, [], template).unwrap_err();
    assert!(
        error.message().contains("the eos_token is \"<e>\""),
        "{error}"
    );
}

#[test]
fn stored_padding_and_truncation_are_turned_off() {
    let mut json: Value = serde_json::from_str(TOKENIZER).unwrap();
    json["truncation"] = serde_json::json!({
        "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0
    });
    let dir = folder(&[("tokenizer.json", &json.to_string())]);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(tokenizer.encode("Hello, world!").unwrap().len(), 9);
}

#[test]
fn a_prompt_has_no_end_that_the_tokenizer_appends() {
    let mut json: Value = serde_json::from_str(TOKENIZER).unwrap();
    json["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing",
        "single": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
        ],
        "pair": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}}
        ],
        "special_tokens": {
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}
        }
    });
    let config = r#"{"eos_token": "<|endoftext|>"}"#;
    let files = [
        ("tokenizer.json", json.to_string()),
        ("tokenizer_config.json", config.to_owned()),
    ];
    let dir = folder(&files.each_ref().map(|(name, text)| (*name, text.as_str())));
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(tokenizer.encode("hello").unwrap(), [273, 78, 350, 0]);
    assert_eq!(tokenizer.encode_prompt("hello").unwrap(), [273, 78, 350]);
}

/// A tokenizer that adds `<|user|>` at the start and `<|endoftext|>` at the end.
fn with_ends() -> Tokenizer {
    let mut json: Value = serde_json::from_str(TOKENIZER).unwrap();
    let special = |id: &str| serde_json::json!({"SpecialToken": {"id": id, "type_id": 0}});
    let sequence = |id: &str| serde_json::json!({"Sequence": {"id": id, "type_id": 0}});
    let token =
        |token: &str, id: u32| serde_json::json!({"id": token, "ids": [id], "tokens": [token]});
    json["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing",
        "single": [special("<|user|>"), sequence("A"), special("<|endoftext|>")],
        "pair": [sequence("A"), sequence("B")],
        "special_tokens": {
            "<|user|>": token("<|user|>", 1), "<|endoftext|>": token("<|endoftext|>", 0),
        },
    });
    let config = r#"{"bos_token": "<|user|>", "eos_token": "<|endoftext|>"}"#;
    let files = [
        ("tokenizer.json", json.to_string()),
        ("tokenizer_config.json", config.to_owned()),
    ];
    let dir = folder(&files.each_ref().map(|(name, text)| (*name, text.as_str())));
    Tokenizer::from_dir(dir.path()).unwrap()
}

#[test]
fn a_text_that_has_the_added_tokens_already_does_not_get_them_twice() {
    let tokenizer = with_ends();
    let cases: [(&str, &[u32]); 8] = [
        ("a", &[1, 67, 0]),
        ("<|user|>a", &[1, 67, 0]),
        ("a<|endoftext|>", &[1, 67, 0]),
        ("<|user|>a<|endoftext|>", &[1, 67, 0]),
        // What the text itself has twice stays.
        ("<|user|><|user|>a", &[1, 1, 67, 0]),
        ("<|endoftext|>a<|user|>", &[1, 0, 67, 1, 0]),
        ("<|user|>", &[1, 0]),
        ("", &[1, 0]),
    ];
    for (text, ids) in cases {
        let tokens = tokenizer.encode_with_offsets(text, true).unwrap();
        assert_eq!(tokens.ids, ids, "{text:?}");
        assert_eq!(tokens.ids.len(), tokens.offsets.len());
    }
    let tokens = tokenizer.encode_with_offsets("<|user|>a", true).unwrap();
    assert_eq!(tokens.offsets, [(0, 8), (8, 9), (0, 0)]);
    assert_eq!(tokenizer.encode_prompt("<|user|>a").unwrap(), [1, 67]);
    assert_eq!(
        tokenizer
            .encode_with_offsets("<|user|>a", false)
            .unwrap()
            .ids,
        [1, 67]
    );
}

// As in transformers, whose tokenizers keep the tokens of the text.
#[test]
fn a_prompt_keeps_the_ends_that_its_text_has() {
    let plain = crate::test_support::tokenizer("");
    for (text, ids) in [
        ("hello<|endoftext|>", &[273, 78, 350, 0][..]),
        ("<|endoftext|><|endoftext|>", &[0, 0]),
        ("<|endoftext|>", &[0]),
    ] {
        assert_eq!(plain.encode_prompt(text).unwrap(), ids, "{text}");
    }
    let ends = with_ends();
    for (text, ids) in [
        ("a<|endoftext|>", &[1, 67, 0][..]),
        ("<|user|>a<|endoftext|><|endoftext|>", &[1, 67, 0, 0]),
        ("<|endoftext|>", &[1, 0]),
        ("<|user|>", &[1]),
    ] {
        assert_eq!(ends.encode_prompt(text).unwrap(), ids, "{text}");
    }
}

#[test]
fn rows_begin_and_end_once() {
    use crate::text::{EncodeOptions, Example, IGNORED, encode_examples, encode_prompt};

    let tokenizer = with_ends();
    let encoded = |line: &str| {
        let example = Example::from_json(line).unwrap();
        let prompt = encode_prompt(&example, &tokenizer).unwrap();
        let options = EncodeOptions::default();
        let mut set = encode_examples(&[example], &tokenizer, options).unwrap();
        let row = set.examples.remove(0);
        (row.ids, row.labels, prompt)
    };
    let expected = (
        vec![1, 67, 68, 0],
        vec![IGNORED, IGNORED, 68, 0],
        Some(vec![1, 67]),
    );
    for prompt in ["a", "<|user|>a"] {
        for completion in ["b", "b<|endoftext|>"] {
            let line = serde_json::json!({"prompt": prompt, "completion": completion});
            assert_eq!(encoded(&line.to_string()), expected, "{line}");
        }
    }
    for text in [
        "ab",
        "<|user|>ab",
        "ab<|endoftext|>",
        "<|user|>ab<|endoftext|>",
    ] {
        let (ids, labels, _) = encoded(&serde_json::json!({"text": text}).to_string());
        assert_eq!(
            ids,
            [
                &[1],
                &tokenizer.encode_with_offsets("ab", false).unwrap().ids[..],
                &[0]
            ]
            .concat()
        );
        assert_eq!(
            labels,
            ids.iter().map(|id| i64::from(*id)).collect::<Vec<_>>()
        );
    }
    // An end inside of a row stays, as between the turns of DialoGPT.
    let (ids, labels, prompt) =
        encoded(r#"{"prompt": "a<|endoftext|>", "completion": "b<|endoftext|>"}"#);
    assert_eq!(ids, [1, 67, 0, 68, 0]);
    assert_eq!(labels, [IGNORED, IGNORED, IGNORED, 68, 0]);
    assert_eq!(prompt, Some(vec![1, 67, 0]));
    // A chat has what the template writes.
    let line = r#"{"instruction": "a", "output": "b"}"#;
    let (ids, ..) = encoded(line);
    assert_eq!(ids.iter().filter(|id| **id == 1).count(), 1);
    assert_eq!(ids.iter().filter(|id| **id == 0).count(), 1);
}

#[test]
fn an_empty_prompt_is_the_id_that_begins_a_sequence() {
    let named = [
        ("tokenizer.json", TOKENIZER),
        ("tokenizer_config.json", r#"{"bos_token": "<|user|>"}"#),
    ];
    let by_id = [
        ("tokenizer.json", TOKENIZER),
        ("config.json", r#"{"bos_token_id": 2}"#),
    ];
    let none = [("tokenizer.json", TOKENIZER)];
    let prompt = |files: &[(&str, &str)]| {
        let tokenizer = Tokenizer::from_dir(folder(files).path()).unwrap();
        tokenizer.encode_prompt("").unwrap()
    };
    assert_eq!(
        (prompt(&named), prompt(&by_id), prompt(&none)),
        (vec![1], vec![2], vec![])
    );
    assert_eq!(with_ends().encode_prompt("").unwrap(), [1]);
}

mod changes;
mod folders;
mod special;
