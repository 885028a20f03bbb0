//! Folders of every kind, read and saved, against transformers.

use std::fs;
use std::path::Path;

use super::*;
use crate::text::chat::{Chat, Message};

/// What `tests/fixtures/make_tokens.py` writes.
#[derive(Deserialize)]
struct Fixture {
    texts: Vec<String>,
    folders: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    files: BTreeMap<String, Value>,
    special: BTreeMap<String, String>,
    size: usize,
    ids: Vec<Vec<u32>>,
    /// The texts of the ids without special tokens.
    shown: Vec<String>,
    /// A chat, rendered without and with tools.
    chats: Option<[Option<String>; 2]>,
}

fn fixture() -> Fixture {
    let text = include_str!("../../../../../../tests/fixtures/tokens.json");
    serde_json::from_str(text).unwrap()
}

/// Writes the vocabulary of [`TOKENIZER`] as `vocab.json` and `merges.txt`.
fn write_vocabulary(dir: &Path) {
    let json: Value = serde_json::from_str(TOKENIZER).unwrap();
    fs::write(dir.join("vocab.json"), json["model"]["vocab"].to_string()).unwrap();
    let merges = json["model"]["merges"].as_array().unwrap().iter();
    let merges = merges.map(|pair| {
        format!(
            "{} {}\n",
            pair[0].as_str().unwrap(),
            pair[1].as_str().unwrap()
        )
    });
    let text = format!("#version: 0.2\n{}", merges.collect::<String>());
    fs::write(dir.join("merges.txt"), text).unwrap();
}

fn written(files: &BTreeMap<String, Value>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match (name.as_str(), content) {
            ("tokenizer.json", _) => fs::write(path, TOKENIZER).unwrap(),
            ("vocab.json", _) => write_vocabulary(dir.path()),
            (_, content) => fs::write(path, content.as_str().unwrap()).unwrap(),
        }
    }
    dir
}

fn check(tokenizer: &Tokenizer, case: &Case, texts: &[String]) {
    let name = &case.name;
    assert_eq!(tokenizer.vocab_size(), case.size, "{name}");
    assert_eq!(tokenizer.special_tokens(), &case.special, "{name}");
    for (text, (ids, shown)) in texts.iter().zip(case.ids.iter().zip(&case.shown)) {
        assert_eq!(&tokenizer.encode(text).unwrap(), ids, "{name}: {text:?}");
        assert_eq!(
            &tokenizer.decode(ids, true).unwrap(),
            shown,
            "{name}: {text:?}"
        );
    }
    let Some(chats) = &case.chats else {
        assert!(!tokenizer.has_chat_template());
        return;
    };
    let plain = Chat::from([Message::user("x")]);
    let tools = serde_json::json!([{"type": "function", "function": {"name": "f"}}]);
    for (chat, expected) in [plain.clone(), plain.with_tools(tools)].iter().zip(chats) {
        let text = tokenizer.chat_template().render(chat, false);
        assert_eq!(text.ok().map(|rendered| rendered.text), *expected, "{name}");
    }
}

#[test]
fn folders_of_every_kind_are_read_as_in_transformers() {
    let fixture = fixture();
    assert_eq!((fixture.texts.len(), fixture.folders.len()), (16, 22));
    for case in &fixture.folders {
        let dir = written(&case.files);
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        check(&tokenizer, case, &fixture.texts);
    }
}

/// The tokens are those that transformers 5 finds.
#[test]
fn the_class_of_qwen2_has_its_tokens_with_tokenizer_json_too() {
    let special = |files: &[(&str, &str)]| {
        let files = [&[("tokenizer.json", TOKENIZER)], files].concat();
        let dir = crate::test_support::folder(&files);
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        let all = tokenizer.special_tokens().clone().into_iter();
        all.map(|(name, token)| format!("{name} {token}"))
            .collect::<Vec<_>>()
    };
    let class =
        r#"{"tokenizer_class": "Qwen2Tokenizer", "pad_token": null, "bos_token": "<|user|>"}"#;
    let end = |name: &str| format!("{name}_token <|endoftext|>");
    assert_eq!(
        special(&[("tokenizer_config.json", class)]),
        ["bos_token <|user|>".to_owned(), end("eos"), end("unk")]
    );
    let all = ["eos", "pad", "unk"].map(end);
    let fast = r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#;
    let qwen2 = [
        ("tokenizer_config.json", fast),
        ("config.json", r#"{"model_type": "qwen2"}"#),
    ];
    assert_eq!(special(&qwen2), all);
    assert_eq!(
        special(&[("config.json", r#"{"model_type": "qwen3"}"#)]),
        all
    );
}

#[test]
fn a_saved_folder_has_the_same_tokenizer() {
    let fixture = fixture();
    for case in &fixture.folders {
        let dir = written(&case.files);
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        for (name, bytes) in tokenizer.changed_files().unwrap() {
            fs::create_dir_all(dir.path().join(&name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        assert!(dir.path().join("tokenizer.json").is_file(), "{}", case.name);
        let saved = Tokenizer::from_dir(dir.path()).unwrap();
        check(&saved, case, &fixture.texts);
        assert!(
            saved
                .changed_files()
                .unwrap()
                .iter()
                .all(|(name, _)| name.contains('/'))
        );
    }
}

#[test]
fn a_vocabulary_of_another_class_is_refused_with_the_conversion() {
    let class = r#"{"tokenizer_class": "RobertaTokenizer"}"#;
    for (config, found) in [
        (class, "tokenizer_class is \"RobertaTokenizer\""),
        ("{}", "has no tokenizer_class"),
    ] {
        let dir = folder(&[("tokenizer_config.json", config)]);
        write_vocabulary(dir.path());
        let error = Tokenizer::from_dir(dir.path()).unwrap_err();
        assert!(error.message().contains(found), "{error}");
        assert!(
            error.help().unwrap().contains(".save_pretrained("),
            "{error}"
        );
    }
    let dir = folder(&[(
        "tokenizer_config.json",
        r#"{"tokenizer_class": "GPT2Tokenizer"}"#,
    )]);
    write_vocabulary(dir.path());
    fs::write(dir.path().join("merges.txt"), "#version: 0.2\na b\nabc\n").unwrap();
    let error = Tokenizer::from_dir(dir.path()).unwrap_err();
    assert_eq!(error.place().unwrap().1, Some(3));
}

#[test]
fn the_error_about_templates_without_a_default_names_them() {
    let config = r#"{"chat_template": [{"name": "rag", "template": "R"}, {"name": "it's", "template": "T"}]}"#;
    let dir = folder(&[
        ("tokenizer.json", TOKENIZER),
        ("tokenizer_config.json", config),
    ]);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let chat = Chat::from([Message::user("x")]);
    let error = tokenizer.chat_template().render(&chat, false).unwrap_err();
    let expected = "the model has the chat templates rag, it's and none is the default";
    assert!(error.message().contains(expected), "{error}");
    let chosen = tokenizer.clone().with_named_template("rag").unwrap();
    assert_eq!(
        chosen.chat_template().render(&chat, false).unwrap().text,
        "R"
    );
    let error = tokenizer.with_named_template("chatm").unwrap_err();
    assert_eq!(
        error.help().unwrap(),
        "give one of chatml, llama3, plain, or of the model's own: rag, it's"
    );
}

#[test]
fn a_template_that_only_processors_read_is_saved_where_tokenizers_have_it() {
    let old = r#"{"chat_template": "{{ messages[0].content }}"}"#;
    let dir = folder(&[
        ("tokenizer.json", TOKENIZER),
        ("tokenizer_config.json", r#"{"eos_token": "<|endoftext|>"}"#),
        ("generation_config.json", r#"{"eos_token_id": 0}"#),
        ("chat_template.json", old),
    ]);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let source = "{{ messages[0].content }}";
    assert_eq!(tokenizer.chat_template().source(), source);
    let file = ("chat_template.jinja".to_owned(), source.as_bytes().to_vec());
    assert_eq!(tokenizer.changed_files().unwrap(), [file]);
    save(&tokenizer, dir.path());
    let saved = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(saved.chat_template().source(), source);
    assert_eq!(saved.changed_files().unwrap(), []);
    // A template that is chosen takes its place.
    let tokenizer = tokenizer.with_named_template("plain").unwrap();
    let files = tokenizer.changed_files().unwrap();
    let [(name, text)] = &files[..] else {
        panic!("{files:?}");
    };
    let chosen = tokenizer.chosen_template().unwrap();
    assert_eq!(
        (&name[..], &text[..]),
        ("chat_template.jinja", chosen.as_bytes())
    );
}

#[cfg(unix)]
#[test]
fn a_folder_of_templates_that_is_a_link_is_refused() {
    let outside = folder(&[("rag.jinja", "R")]);
    let dir = folder(&[("tokenizer.json", TOKENIZER)]);
    let link = dir.path().join("additional_chat_templates");
    std::os::unix::fs::symlink(outside.path(), &link).unwrap();
    let error = Tokenizer::from_dir(dir.path()).unwrap_err();
    assert_eq!(error.place().unwrap().0, link);
    assert!(error.message().contains("it is a link"), "{error}");
}

/// A changed file as JSON.
fn changed(tokenizer: &Tokenizer, name: &str) -> Option<Value> {
    let files = tokenizer.changed_files().unwrap();
    let (_, bytes) = files.into_iter().find(|(file, _)| file == name)?;
    Some(serde_json::from_slice(&bytes).unwrap())
}

#[test]
fn an_end_that_only_the_model_names_is_the_eos_token() {
    for file in ["config.json", "generation_config.json"] {
        let dir = folder(&[
            ("tokenizer.json", TOKENIZER),
            ("tokenizer_config.json", r#"{"model_max_length": 9}"#),
            (file, r#"{"eos_token_id": [2, 0], "bos_token_id": 1}"#),
        ]);
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        assert_eq!(tokenizer.eos_ids(), [2, 0]);
        let described = format!("<|assistant|> (2, {file}), <|endoftext|> (0, {file})");
        assert_eq!(tokenizer.describe_eos(), described);
        // A chat ends with it, and so does the saved folder's.
        let chat = Chat::from([Message::user("a"), Message::assistant("b")]);
        let text = tokenizer.chat_template().render(&chat, false).unwrap().text;
        assert_eq!(text, "User: a\nAssistant: b<|assistant|>\n");
        let config = changed(&tokenizer, "tokenizer_config.json").unwrap();
        assert_eq!(
            config,
            serde_json::json!({"model_max_length": 9, "eos_token": "<|assistant|>"})
        );
        assert_eq!(changed(&tokenizer, "generation_config.json"), None);
    }
}

#[test]
fn ids_that_no_token_has_end_nothing() {
    let dir = folder(&[
        ("tokenizer.json", TOKENIZER),
        ("config.json", r#"{"eos_token_id": -1, "bos_token_id": -1}"#),
        ("generation_config.json", r#"{"eos_token_id": [-1, 5000]}"#),
    ]);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(tokenizer.eos_ids(), [5000]);
    assert_eq!(tokenizer.special_tokens().get("eos_token"), None);
    assert!(tokenizer.encode_prompt("").unwrap().is_empty());
}

#[test]
fn an_added_end_is_saved_with_the_other_keys_of_the_generation() {
    let generation = r#"{"temperature": 0.6, "eos_token_id": 0, "pad_token_id": null}"#;
    let dir = folder(&[
        ("tokenizer.json", TOKENIZER),
        ("tokenizer_config.json", r#"{"eos_token": "<|endoftext|>"}"#),
        ("generation_config.json", generation),
        (
            "config.json",
            r#"{"eos_token_id": 0, "bos_token_id": 1, "hidden_size": 4}"#,
        ),
    ]);
    let mut tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(tokenizer.changed_files().unwrap(), []);
    tokenizer.add_eos(2);
    let saved = changed(&tokenizer, "generation_config.json").unwrap();
    let expected =
        serde_json::json!({"temperature": 0.6, "eos_token_id": [0, 2], "pad_token_id": null});
    assert_eq!(saved, expected);

    // Without the file, transformers would take the ids of config.json.
    fs::remove_file(dir.path().join("generation_config.json")).unwrap();
    let mut tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    tokenizer.add_eos(2);
    let saved = changed(&tokenizer, "generation_config.json").unwrap();
    assert_eq!(
        saved,
        serde_json::json!({"eos_token_id": [0, 2], "bos_token_id": 1})
    );
}

#[test]
fn a_named_template_is_saved_with_its_tokens() {
    let config = serde_json::json!({
        "eos_token": "<|endoftext|>", "chat_template": "old",
        "added_tokens_decoder": {"0": {"content": "<|endoftext|>", "special": true}},
    });
    let dir = folder(&[
        ("tokenizer.json", TOKENIZER),
        ("tokenizer_config.json", &config.to_string()),
    ]);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(tokenizer.chosen_template(), None);
    let tokenizer = tokenizer.with_named_template("chatml").unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.id_count()), (770, 770));
    let source = tokenizer.chosen_template().unwrap().to_owned();
    for (name, bytes) in tokenizer.changed_files().unwrap() {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let saved: Value = serde_json::from_str(
        &fs::read_to_string(dir.path().join("tokenizer_config.json")).unwrap(),
    )
    .unwrap();
    assert_eq!(saved["chat_template"], Value::Null);
    assert_eq!(
        saved["added_tokens_decoder"]["769"]["content"],
        "<|im_end|>"
    );
    assert!(!dir.path().join("added_tokens.json").exists());
    let read = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(read.chat_template().source(), source);
    assert_eq!(read.chat_template().name(), "chat_template.jinja");
    assert_eq!(
        read.encode("<|im_start|>a<|im_end|>").unwrap(),
        [768, 67, 769]
    );
}

/// Writes the changed files into a folder.
fn save(tokenizer: &Tokenizer, dir: &Path) {
    for (name, bytes) in tokenizer.changed_files().unwrap() {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

#[test]
fn added_tokens_of_a_folder_without_a_decoder_are_in_a_file_and_stay_special() {
    let dir = folder(&[
        ("tokenizer.json", TOKENIZER),
        ("tokenizer.model", ""),
        ("tokenizer_config.json", r#"{"eos_token": "<|endoftext|>"}"#),
        ("added_tokens.json", r#"{"<tool>": 768}"#),
    ]);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(changed(&tokenizer, "added_tokens.json"), None);
    let tokenizer = tokenizer.with_named_template("chatml").unwrap();
    assert_eq!(
        changed(&tokenizer, "added_tokens.json").unwrap(),
        serde_json::json!({"<tool>": 768, "<|im_start|>": 769, "<|im_end|>": 770})
    );
    save(&tokenizer, dir.path());

    let read = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(read.changed_files().unwrap(), []);
    assert_eq!(read.decode(&[67, 770], true).unwrap(), "a");
    let more = read.with_added_tokens(["<x>"]).unwrap();
    let json = changed(&more, "tokenizer.json").unwrap();
    let tokens = json["added_tokens"].as_array().unwrap().iter();
    let special = tokens.map(|token| (token["id"].as_u64(), token["special"].as_bool()));
    let special: Vec<_> = special.skip(3).collect();
    let of = |id: u64, special: bool| (Some(id), Some(special));
    assert_eq!(
        special,
        [of(768, false), of(769, true), of(770, true), of(771, true)]
    );
}

#[test]
fn the_special_tokens_of_an_adapter_are_those_of_the_merged_folder() {
    let base = folder(&[
        ("tokenizer.json", TOKENIZER),
        (
            "tokenizer_config.json",
            r#"{"bos_token": "<|user|>", "eos_token": "<|endoftext|>"}"#,
        ),
        (
            "special_tokens_map.json",
            r#"{"eos_token": {"content": "<|endoftext|>"}}"#,
        ),
        (
            "generation_config.json",
            r#"{"eos_token_id": 0, "temperature": 0.6}"#,
        ),
    ]);
    let adapter = r#"{"eos_token": "<|im_end|>", "pad_token": "<|assistant|>",
        "chat_template": "{{ messages[0].content }}{{ eos_token }}"}"#;
    let adapter = folder(&[
        ("tokenizer.json", TOKENIZER),
        ("tokenizer_config.json", adapter),
    ]);
    let adapter = Tokenizer::from_dir(adapter.path()).unwrap();
    let taken = Tokenizer::from_dir(base.path()).unwrap();
    let taken = taken.with_changes_of(&adapter).unwrap();
    save(&taken, base.path());
    let read = Tokenizer::from_dir(base.path()).unwrap();
    assert_eq!(read.changed_files().unwrap(), []);

    let chat = Chat::from([Message::user("x")]);
    for tokenizer in [&taken, &read] {
        assert_eq!(tokenizer.special_tokens()["eos_token"], "<|im_end|>");
        assert_eq!(tokenizer.eos_ids(), [768, 0]);
        assert_eq!((tokenizer.bos_id(), tokenizer.pad_id()), (Some(1), 2));
        let text = tokenizer.chat_template().render(&chat, false).unwrap().text;
        assert_eq!(text, "x<|im_end|>");
        assert_eq!(
            tokenizer.describe_eos(),
            "<|im_end|> (768, eos_token of the tokenizer), <|endoftext|> (0, generation_config.json)"
        );
    }
    let json = |name: &str| -> Value {
        let text = fs::read_to_string(base.path().join(name)).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    assert_eq!(
        json("generation_config.json"),
        serde_json::json!({"eos_token_id": [0, 768], "temperature": 0.6})
    );
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        assert_eq!(json(name)["eos_token"], "<|im_end|>", "{name}");
    }
}

#[test]
fn another_end_is_written_by_the_same_template_and_must_be_a_token() {
    let tokenizer = crate::test_support::tokenizer("{{ messages[0].content }}{{ eos_token }}");
    let other = tokenizer.clone();
    let other = other
        .with_special_tokens([("eos_token", "<|user|>")])
        .unwrap();
    let chat = Chat::from([Message::user("x")]);
    let text = other.chat_template().render(&chat, false).unwrap().text;
    assert_eq!(text, "x<|user|>");
    assert_eq!(other.chosen_template(), None);
    assert_eq!(
        other.describe_eos(),
        "<|user|> (1, eos_token of the tokenizer), <|endoftext|> (0, eos_token of the base model)"
    );
    let error = tokenizer.with_special_tokens([("pad_token", "<none>")]);
    let error = error.unwrap_err();
    let expected = "the pad_token is \"<none>\", which is not among the 768 tokens";
    assert!(error.message().starts_with(expected), "{error}");
}

// As in transformers 5.
#[test]
fn split_special_tokens_are_text_and_other_added_tokens_are_not() {
    for (splits, turn) in [
        ("false", &[67, 223, 1, 68, 0][..]),
        (
            "true",
            &[
                67, 507, 94, 87, 437, 94, 32, 68, 30, 94, 71, 302, 81, 72, 562, 94, 32,
            ],
        ),
    ] {
        let config = format!(
            r#"{{"eos_token": "<|endoftext|>", "split_special_tokens": {splits},
            "added_tokens_decoder": {{"768": {{"content": "<tool>", "special": false}}}}}}"#
        );
        let dir = folder(&[
            ("tokenizer.json", TOKENIZER),
            ("tokenizer_config.json", &config),
        ]);
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        let ids = tokenizer.encode("a <|user|>b<|endoftext|>").unwrap();
        assert_eq!(ids, turn, "{splits}");
        assert_eq!(tokenizer.encode("x <tool> y").unwrap(), [90, 223, 768, 486]);
        // The end of a text is a token in both.
        assert_eq!(tokenizer.eos_id(), Some(0));
    }
}

#[test]
fn a_tokenizer_takes_over_the_changes_of_another_one_with_the_same_ids() {
    let base = || Tokenizer::from_dir("../../tests/fixtures/tokenizer").unwrap();
    let with = |tokens: [&str; 2]| base().with_added_tokens(tokens).unwrap();
    let mut trained = with(["<a>", "<b>"]).with_named_template("chatml").unwrap();
    trained.add_eos(3);
    let taken = base().with_changes_of(&trained).unwrap();
    assert_eq!(taken.added_tokens(), trained.added_tokens());
    assert_eq!(taken.eos_ids(), trained.eos_ids());
    assert_eq!(
        taken.changed_files().unwrap(),
        trained.changed_files().unwrap()
    );
    // Nothing is taken from one that is the same, and tokens of its own stay.
    assert_eq!(base().with_changes_of(&base()).unwrap().id_count(), 768);
    let more = with(["<a>", "<b>"]).with_changes_of(&base()).unwrap();
    assert_eq!(more.added_tokens(), ["<a>", "<b>"]);

    let error = with(["<b>", "<a>"]).with_changes_of(&trained).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tokenizer: the token \"<a>\" has the id 769, and 768 in the other tokenizer"
    );
}
