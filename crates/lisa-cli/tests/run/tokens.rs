//! Runs whose tokenizer does not fit the model, or whose turns do not end a sequence.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use lisa_cli::bundled;
use lisa_cli::train::run::{Start, dry_run};
use lisa_lm::checkpoint::{SaveOptions, save};
use lisa_lm::{Checkpoint, ModelConfig, Tokenizer};
use serde_json::{Value, json};

use super::commands::lisa;
use super::{flags, go, go_in_parts, message, printed, refused, run, weights_of};

/// The bundled model with another `tokenizer_config.json`.
fn model(dir: &Path, config: &Value) -> PathBuf {
    let (from, to) = (bundled::model().unwrap(), dir.join("base"));
    fs::create_dir_all(&to).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    fs::write(to.join("tokenizer_config.json"), config.to_string()).unwrap();
    to
}

/// Ten chats, and a token `<tool>` in the one of this line.
fn data(dir: &Path, line: usize) -> PathBuf {
    let lines = (1..=10).map(|number| {
        let tool = if number == line { "<tool>" } else { "ring" };
        json!({"instruction": format!("a {tool} {number}"), "output": "red"}).to_string()
    });
    let path = dir.join("data.jsonl");
    fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    path
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_token_without_a_row_stops_the_run_before_it_starts_or_gets_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({
        "eos_token": "<|endoftext|>",
        "added_tokens_decoder": {"1024": {"content": "<tool>", "special": false}},
    });
    let (model, data) = (model(dir.path(), &config), data(dir.path(), 4));
    let base = format!("--model {} --data {}", model.display(), data.display());
    let with = |out: &str, more: &str| flags(&dir.path().join(out), &format!("{base} {more}"));

    let refused = message(with("refused", ""), Start::Fresh);
    for part in [
        "a token has no row in the model's embedding",
        "--> PATH:4",
        "the token \"<tool>\" has the id 1024, and the model's vocabulary has 1024 tokens",
        "add --resize-embeddings",
    ] {
        let part = part.replace("PATH", data.to_str().unwrap());
        assert!(refused.contains(&part), "{refused}");
    }
    assert!(!dir.path().join("refused/metrics.jsonl").exists());
    let dry = dry_run(with("dry", ""), Start::Fresh, &Device::flex()).unwrap_err();
    assert!(dry.to_string().contains("no row in the model's embedding"));

    let lora = "--method lora --dtype f32";
    let lost = format!("--resize-embeddings --no-merge {lora}");
    let refused = message(with("lost", &lost), Start::Fresh);
    let part = "--resize-embeddings adds 1 row to the embedding, and --no-merge would lose them";
    assert!(refused.contains(part), "{refused}");
    let int8 = "--quantize int8 --recompute";
    for (name, method) in [("lisa", ""), ("lora", lora), ("int8", int8)] {
        let more = format!("--resize-embeddings {method}");
        let (whole, parts) = (
            dir.path().join(format!("{name}-whole")),
            dir.path().join(name),
        );
        go(with(&format!("{name}-whole"), &more), Start::Fresh, false).unwrap();
        let saved = whole.join("model");
        assert_eq!(json_of(&saved.join("config.json"))["vocab_size"], 1025);
        let checkpoint = Checkpoint::open(&saved).unwrap();
        let trained = checkpoint.load(&Device::flex(), None).unwrap();
        let tokenizer = Tokenizer::from_dir(&saved).unwrap();
        assert_eq!(tokenizer.encode("<tool>").unwrap(), [1024]);
        assert_eq!(trained.model.embed_tokens.weight.dims(), [1025, 128]);
        // A resumed run gives the embedding its rows again.
        assert!(go_in_parts(with(name, &more), &parts) > 1);
        assert!(weights_of(&whole) == weights_of(&parts), "{name}");
    }
}

#[test]
fn a_tokenizer_with_far_more_tokens_than_the_model_is_not_to_be_given_rows() {
    let dir = tempfile::tempdir().unwrap();
    let token = |id: usize| {
        let content = match id {
            1024 => "<tool>".to_owned(),
            _ => format!("<{id}>"),
        };
        let token = json!({"content": content, "special": false});
        (id.to_string(), token)
    };
    let tokens: serde_json::Map<String, Value> = (1024..1324).map(token).collect();
    let config = json!({"eos_token": "<|endoftext|>", "added_tokens_decoder": tokens});
    let (model, data) = (model(dir.path(), &config), data(dir.path(), 4));
    let more = format!("--model {} --data {}", model.display(), data.display());
    let refused = message(flags(&dir.path().join("out"), &more), Start::Fresh);
    let help = "help: use the tokenizer of this model: this one has 1324 tokens, and the embedding \
                has 1024 rows";
    assert!(refused.contains(help), "{refused}");
}

#[test]
fn a_merged_adapter_has_the_rows_that_its_run_added_for_tokens_of_the_base() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({
        "eos_token": "<|endoftext|>",
        "added_tokens_decoder": {"1024": {"content": "<tool>", "special": false}},
    });
    let (model, data) = (model(dir.path(), &config), data(dir.path(), 4));
    let out = dir.path().join("out");
    let more = format!("--model {} --data {}", model.display(), data.display());
    let more = format!("{more} --method lora --resize-embeddings --no-eval");
    go(flags(&out, &more), Start::Fresh, false).unwrap();
    run(dir.path(), "export out --out alone");
    for adapter in ["out/adapter", "alone"] {
        let merged = dir.path().join("merged");
        run(
            dir.path(),
            &format!("export {adapter} --merge --overwrite --out merged"),
        );
        for name in ["config.json", "model.safetensors"] {
            let read = |folder: &Path| fs::read(folder.join(name)).unwrap();
            assert!(
                read(&merged) == read(&out.join("model")),
                "{adapter}: {name}"
            );
        }
        let checkpoint = Checkpoint::open(&merged).unwrap();
        assert_eq!(checkpoint.config().vocab_size(), 1025);
    }
}

#[test]
fn a_padding_token_needs_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"eos_token": "<|endoftext|>", "pad_token": "<pad>"});
    let (model, data) = (model(dir.path(), &config), data(dir.path(), 0));
    let (out, merged) = (dir.path().join("out"), dir.path().join("merged"));
    let more = format!("--model {} --data {}", model.display(), data.display());
    let more = format!("{more} --method lora");
    go(flags(&out, &more), Start::Fresh, false).unwrap();
    run(dir.path(), "export out/adapter --merge --out merged");
    for folder in [out.join("model"), merged] {
        let checkpoint = Checkpoint::open(&folder).unwrap();
        assert_eq!(checkpoint.config().vocab_size(), 1024);
        assert_eq!(Tokenizer::from_dir(&folder).unwrap().pad_id(), 1024);
    }
}

#[test]
fn a_padding_token_of_the_adapter_alone_needs_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"eos_token": "<|endoftext|>"});
    let (model, data) = (model(dir.path(), &config), data(dir.path(), 0));
    let out = dir.path().join("out");
    let more = format!("--model {} --data {}", model.display(), data.display());
    let more = format!("{more} --method lora");
    go(flags(&out, &more), Start::Fresh, false).unwrap();
    let tokenizer = out.join("adapter/tokenizer_config.json");
    let special = json!({"eos_token": "<|endoftext|>", "pad_token": "<pad>"});
    fs::write(&tokenizer, special.to_string()).unwrap();
    run(dir.path(), "export out/adapter --merge --out merged");
    let merged = dir.path().join("merged");
    let checkpoint = Checkpoint::open(&merged).unwrap();
    assert_eq!(checkpoint.config().vocab_size(), 1024);
    assert_eq!(Tokenizer::from_dir(&merged).unwrap().pad_id(), 1024);
    // A token that a model reads or writes needs one.
    let special = json!({"eos_token": "<pad>", "pad_token": "<pad>"});
    fs::write(&tokenizer, special.to_string()).unwrap();
    let error = refused(dir.path(), "export out/adapter --merge --out ends");
    assert!(
        error.contains("has 1025 tokens, and the embedding of"),
        "{error}"
    );
}

#[test]
fn the_template_and_the_end_of_its_turns_are_in_the_trained_model() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"eos_token": "<|endoftext|>"});
    let (model, data) = (model(dir.path(), &config), data(dir.path(), 0));
    let out = dir.path().join("out");
    let base = format!("--model {} --data {}", model.display(), data.display());
    let more = format!("{base} --chat-template chatml --resize-embeddings");
    go_in_parts(flags(&out, &more), &out);
    let saved = out.join("model");
    let generation = json_of(&saved.join("generation_config.json"));
    assert_eq!(generation["eos_token_id"], json!([0, 1025]));
    let tokenizer = Tokenizer::from_dir(&saved).unwrap();
    assert_eq!(tokenizer.eos_ids(), [0, 1025]);
    assert_eq!(tokenizer.encode("<|im_start|>").unwrap(), [1024]);
    assert_eq!(tokenizer.chat_template().name(), "chat_template.jinja");
    assert!(tokenizer.chat_template().source().contains("<|im_end|>"));

    // A checkpoint is exported as it is saved.
    let checkpoints = fs::read_dir(out.join("checkpoints")).unwrap();
    let names = checkpoints.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let step = names
        .map(|name| name["step-".len()..].parse::<u64>().unwrap())
        .min()
        .unwrap();
    let copy = dir.path().join("copy");
    run(dir.path(), &format!("export out --step {step} --out copy"));
    for name in [
        "generation_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "config.json",
    ] {
        let read = |folder: &Path| fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(read(&copy), read(&saved), "{name}");
    }
    let generate = "generate --chat a --max-new-tokens 2 --model";
    let (_, warnings) = printed(dir.path(), &format!("{generate} copy"));
    assert_eq!(warnings, "");
    let (_, warning) = printed(dir.path(), &format!("{generate} base"));
    assert!(
        warning.contains("the model has no chat template, and `plain` is used"),
        "{warning}"
    );
    let empty = ["generate", "--model", "base", "--prompt", ""];
    let empty = lisa(dir.path(), &empty).output().unwrap();
    let error = String::from_utf8(empty.stderr).unwrap();
    assert!(error.contains("--prompt is empty"), "{error}");

    // Another template does not continue the run.
    let other = flags(&out, "--chat-template plain");
    let refused = message(other, Start::Resume);
    assert!(
        refused.contains("--chat-template is plain, and the checkpoint was made with chatml"),
        "{refused}"
    );
}

#[test]
fn a_template_whose_tokens_have_no_row_is_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let error = refused(dir.path(), "generate --chat a --chat-template chatml");
    for part in [
        "the token \"<|im_start|>\" has the id ",
        "if it is of the chat template chatml, leave --chat-template out",
    ] {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn a_tokenizer_with_far_fewer_tokens_than_the_model_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let base = Checkpoint::open(bundled::model().unwrap()).unwrap();
    let mut config = json_of(&base.dir().join("config.json"));
    (config["vocab_size"], config["num_hidden_layers"]) = (4096.into(), 1.into());
    let config = ModelConfig::from_json(&config.to_string()).unwrap();
    let model = dir.path().join("model");
    let options = SaveOptions {
        source: Some(&base),
        ..SaveOptions::default()
    };
    save(&config.init(&Device::flex()).unwrap(), &model, &options).unwrap();
    let data = data(dir.path(), 0);
    let warned = |model: &Path| {
        let (model, data) = (model.display(), data.display());
        let line = format!("train --dry-run --no-eval --data {data} --model {model} --out r");
        let (_, warnings) = printed(dir.path(), &line);
        warnings.contains("the tokenizer has 1024 tokens, and the model's embedding has 4096 rows")
    };
    assert!(warned(&model));
    assert!(!warned(base.dir()));
}
