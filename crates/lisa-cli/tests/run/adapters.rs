//! Runs with LoRA: the adapter that is written, further training, merging.

use super::*;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The flags of a LoRA run without evaluation.
fn lora(out: &Path, more: &str) -> Flags {
    flags(out, &format!("--method lora --no-eval {more}"))
}

#[test]
fn a_run_writes_its_adapter_next_to_the_merged_model_and_goes_on_with_one() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let settings =
        "--lora-rank 4 --lora-dropout 0.1 --rslora --lora-target-modules q_proj,down_proj";
    go(lora(&first, settings), Start::Fresh, false).unwrap();
    let adapter = first.join("adapter");
    let config = json(&adapter.join("adapter_config.json"));
    assert_eq!(config["r"], 4);
    assert_eq!(config["lora_alpha"], 8);
    assert_eq!(config["lora_dropout"], 0.1);
    assert_eq!(config["use_rslora"], true);
    assert_eq!(
        config["target_modules"],
        serde_json::json!(["q_proj", "down_proj"])
    );
    assert_eq!(config["fan_in_fan_out"], false);
    let base = config["base_model_name_or_path"].as_str().unwrap();
    assert!(Path::new(base).join("config.json").is_file(), "{base}");
    assert!(adapter.join("tokenizer.json").is_file());
    let card = fs::read_to_string(adapter.join("README.md")).unwrap();
    assert!(card.contains("library_name: peft"), "{card}");
    assert!(first.join("model/model.safetensors").is_file());

    // Further training begins with it: the first losses go on where the last ones were.
    let more = format!("--adapter {} --no-merge --steps 2", adapter.display());
    let mut given = lora(&second, &more);
    given.method.method = None;
    go(given, Start::Fresh, false).unwrap();
    assert!(!second.join("model").exists());
    let again = json(&second.join("adapter/adapter_config.json"));
    assert_eq!(again, config);
    let losses = |out: &Path| -> Vec<f64> { lines(out).iter().filter_map(|l| l.loss).collect() };
    assert!(losses(&second)[0] < losses(&first)[0] - 0.05);
    let weights = |out: &Path| fs::read(out.join("adapter/adapter_model.safetensors")).unwrap();
    assert_ne!(weights(&second), weights(&first));

    let refused = |more: &str| {
        let out = dir.path().join("refused");
        let more = format!("--adapter {} {more}", adapter.display());
        message(lora(&out, &more), Start::Fresh)
    };
    let found = refused("--lora-rank 8");
    assert!(
        found.contains("--lora-rank is 8, and the adapter in"),
        "{found}"
    );
    assert!(found.contains("has 4"), "{found}");
    let found = message(
        lora(&dir.path().join("x"), "--lora-target-modules q"),
        Start::Fresh,
    );
    assert!(
        found.contains("no linear module of the model is named `q`"),
        "{found}"
    );
    assert!(found.contains("down_proj, gate_proj, k_proj"), "{found}");
}

#[test]
fn lora_is_resumed_and_recomputed_with_the_same_dropout() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let dropout = "--lora-dropout 0.3 --gradient-accumulation-steps 2";
    go(lora(&whole, dropout), Start::Fresh, false).unwrap();
    assert_eq!(go_in_parts(lora(&parts, dropout), &parts), 7);
    assert_eq!(weights_of(&whole), weights_of(&parts));
    let adapter = |out: &Path| fs::read(out.join("adapter/adapter_model.safetensors")).unwrap();
    assert_eq!(adapter(&whole), adapter(&parts));

    let losses = |out: &Path| -> Vec<f64> { lines(out).iter().filter_map(|l| l.loss).collect() };
    let plain = losses(&whole);
    let of = |more: &str| {
        let out = dir.path().join("other");
        go(lora(&out, more), Start::Overwrite, false).unwrap();
        losses(&out)
    };
    let same = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
    let recomputed = of(&format!("{dropout} --recompute"));
    assert!(same(&plain, &recomputed), "{plain:?} {recomputed:?}");
    let without = of("--gradient-accumulation-steps 2");
    assert!(!same(&plain, &without), "{plain:?} {without:?}");
    // Updates during the backward pass replay dropout too.
    let one = of("--lora-dropout 0.3 --max-grad-norm 0");
    let layered = of("--lora-dropout 0.3 --max-grad-norm 0 --recompute --update-in-backward");
    assert!(same(&one, &layered), "{one:?} {layered:?}");
}

#[test]
fn a_checkpoint_of_lora_has_the_adapter_its_optimizer_state_and_its_base() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    go(lora(&out, "--save-every 2 --steps 3"), Start::Fresh, false).unwrap();
    let checkpoint = out.join("checkpoints/step-00000002");
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(
        names(&checkpoint),
        ["adapter", "optimizer.bpk", "state.json"]
    );
    let adapter = checkpoint.join("adapter");
    assert_eq!(
        names(&adapter),
        ["adapter_config.json", "adapter_model.safetensors"]
    );
    let base = json(&adapter.join("adapter_config.json"))["base_model_name_or_path"].clone();
    let base = Path::new(base.as_str().unwrap());
    assert!(base.join("config.json").is_file(), "{}", base.display());
    let state = json(&checkpoint.join("state.json"));
    assert!(state["fingerprint"]["weights"].is_u64(), "{state}");
}

#[test]
fn export_writes_adapters_and_merges_them() {
    let dir = tempfile::tempdir().unwrap();
    let run = |line: &str| run(dir.path(), line);
    let refused = |line: &str| refused(dir.path(), line);
    let read = |path: &str| fs::read(dir.path().join(path)).unwrap();
    let said = run("train --method lora --steps 3 --no-eval --save-every 2 --out r --dtype bf16");
    let at_the_end = [
        "the adapter alone, in PEFT's format, is in",
        "r/adapter --merge --out DIR` merges it",
    ];
    assert!(at_the_end.iter().all(|part| said.contains(part)), "{said}");
    // The adapter of the newest checkpoint is that of the finished run.
    run("export r --out adapter");
    let weights = "adapter_model.safetensors";
    assert_eq!(
        read(&format!("adapter/{weights}")),
        read(&format!("r/adapter/{weights}"))
    );
    assert!(!dir.path().join("adapter/config.json").exists());
    run("export r --step 2 --out two");
    assert_ne!(
        read(&format!("two/{weights}")),
        read(&format!("adapter/{weights}"))
    );
    // Merged, it is the model of the run, in the dtype of the base.
    let model = read("r/model/model.safetensors");
    let said = run("export r --merge --step 3 --out merged");
    assert!(
        said.contains("the finished model of r is in merged"),
        "{said}"
    );
    assert_eq!(read("merged/model.safetensors"), model);
    let said = run("export adapter --merge --out whole");
    assert!(
        said.contains("the merged adapter of adapter is in whole"),
        "{said}"
    );
    let base = bundled::model().unwrap();
    let stored = lisa_lm::Checkpoint::open(&base)
        .unwrap()
        .config()
        .common()
        .dtype;
    let written = lisa_lm::Checkpoint::open(dir.path().join("whole")).unwrap();
    assert_eq!(written.config().common().dtype, stored);
    run("export adapter --merge --dtype bf16 --out half");
    assert_eq!(read("half/model.safetensors").len(), model.len());
    // In f32, nothing of the sum of weights and adapter is rounded to the dtype of the base.
    run("export adapter --merge --dtype f32 --out wide");
    let weight = |folder: &str| {
        let model = lisa_lm::Checkpoint::open(dir.path().join(folder)).unwrap();
        let model = model.load(&burn::tensor::Device::flex(), None).unwrap();
        let weight = model.model.layers[0].mlp.down_proj.weight.val();
        weight.into_data().iter::<f32>().collect::<Vec<_>>()
    };
    let (wide, whole) = (weight("wide"), weight("whole"));
    let apart = |a: &f32, b: &f32| (a - b).abs() <= a.abs() / 256.0;
    assert!(wide.iter().zip(&whole).all(|(a, b)| apart(a, b)));
    assert_ne!(wide, whole);

    // A refused command leaves no folder.
    let found = refused("export adapter --out no/x");
    assert!(!dir.path().join("no").exists());
    assert!(found.contains("`adapter` is an adapter already"), "{found}");
    let found = refused("export adapter --merge --model nowhere --out x");
    assert!(
        found.contains("the base model `nowhere` of the adapter"),
        "{found}"
    );
    let found = refused("export r --out adapter");
    assert!(
        found.contains("`adapter` contains an adapter already"),
        "{found}"
    );
    assert!(found.contains("--overwrite"), "{found}");
    let found = refused("export r --dtype f32 --out x2");
    assert!(
        found.contains("--dtype has no effect on an adapter"),
        "{found}"
    );
    run("train --steps 1 --no-eval --out lisa");
    let found = refused("export lisa --merge --out x3");
    assert!(found.contains("has no adapter"), "{found}");
}

#[test]
fn a_merged_model_of_an_earlier_step_is_named_if_a_resumed_run_merges_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let run = |line: &str| run(dir.path(), line);
    let step = |name: &str| json(&dir.path().join(format!("r/{name}/lisa.json")))["step"].clone();
    let part = "r/model is still that of step 1, because of --no-merge";
    let first = run("train --method lora --steps 1 --no-eval --out r");
    let second = run("train --resume r --no-merge --steps 2");
    assert!(!first.contains(part) && second.contains(part), "{second}");
    assert_eq!([step("model"), step("adapter")], [1, 2]);
    // Of the same step again, or without a merged model, there is nothing to say.
    let third = run("train --resume r --no-merge=false --steps 3");
    assert!(!third.contains("is still that of"), "{third}");
    assert_eq!([step("model"), step("adapter")], [3, 3]);
}

#[test]
fn an_adapter_is_used_with_the_tokenizer_that_it_was_trained_with() {
    let dir = tempfile::tempdir().unwrap();
    let run = |line: &str| said(dir.path(), line);
    let template =
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}";
    fs::write(dir.path().join("mine.jinja"), template).unwrap();
    let short = "--steps 2 --no-eval";
    run(&format!(
        "train --method lora {short} --chat-template mine.jinja --out first"
    ));
    let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
    assert_eq!(read("first/adapter/chat_template.jinja"), template);

    run("export first/adapter --merge --out merged");
    let names = [
        "chat_template.jinja",
        "tokenizer_config.json",
        "generation_config.json",
    ];
    for name in names.iter().chain(&["tokenizer.json"]) {
        assert_eq!(
            read(&format!("merged/{name}")),
            read(&format!("first/model/{name}"))
        );
    }
    let more = run(&format!(
        "train --adapter first/adapter {short} --out second"
    ));
    assert!(
        more.contains("chat template: chat_template.jinja"),
        "{more}"
    );
    assert!(!more.contains("was trained on"), "{more}");
    assert_eq!(read("second/model/chat_template.jinja"), template);
    run("train --resume --out second --steps 3");
    assert_eq!(read("second/model/chat_template.jinja"), template);
    // One that is given is used instead.
    let plain = run(&format!(
        "train --adapter first/adapter {short} --chat-template plain --out third"
    ));
    assert!(plain.contains("chat template: plain"), "{plain}");

    // The adapter's tokens need rows that the base does not have.
    let larger = "--chat-template chatml --resize-embeddings";
    run(&format!("train --method lora {short} {larger} --out large"));
    run("export large/adapter --merge --out whole");
    let weights = |folder: &str| fs::read(dir.path().join(folder).join("model.safetensors"));
    assert!(weights("whole").unwrap() == weights("large/model").unwrap());
    // An adapter of PEFT does not say how many.
    fs::remove_file(dir.path().join("large/adapter/lisa.json")).unwrap();
    let found = refused(dir.path(), "export large/adapter --merge --out none");
    assert!(
        found.contains("has 1026 tokens, and the embedding of"),
        "{found}"
    );
    assert!(found.contains("has 1024 rows"), "{found}");
    let line = format!("train --adapter large/adapter {short} --out x");
    let found = refused(dir.path(), &line);
    assert!(found.contains("--resize-embeddings"), "{found}");
    run(&format!(
        "train --adapter large/adapter {short} --resize-embeddings --out larger"
    ));
    run("train --resume --out larger --steps 3");
    assert_eq!(
        read("larger/model/tokenizer.json"),
        read("large/model/tokenizer.json")
    );

    // Another base model.
    copy_model(&dir.path().join("other"));
    let warned = run("export first/adapter --merge --model other --out on-other");
    assert!(warned.contains("was trained on `"), "{warned}");
}

#[test]
fn an_adapter_is_trained_further_on_the_base_model_that_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    copy_model(&base);
    let short = "--steps 1 --no-eval";
    let first = run(
        dir.path(),
        &format!("train --model base --method lora {short} --out r"),
    );
    assert!(first.contains("`lisa train --model /"), "{first}");
    assert!(first.contains("/base --adapter /"), "{first}");

    run(
        dir.path(),
        &format!("train --adapter r/adapter {short} --out s"),
    );
    let named = |run: &str| {
        let config = dir.path().join(run).join("adapter/adapter_config.json");
        json(&config)["base_model_name_or_path"].clone()
    };
    assert_eq!(named("s"), named("r"));

    fs::rename(&base, dir.path().join("moved")).unwrap();
    let error = refused(
        dir.path(),
        &format!("train --adapter r/adapter {short} --out t"),
    );
    assert!(error.contains("and there is no such folder"), "{error}");
    assert!(error.contains("with --model"), "{error}");
}

#[test]
fn an_adapter_of_the_bundled_model_is_used_with_another_cache() {
    let dir = tempfile::tempdir().unwrap();
    run(
        dir.path(),
        "train --method lora --steps 1 --no-eval --out r",
    );
    let config = dir.path().join("r/adapter/adapter_config.json");
    let base = json(&config)["base_model_name_or_path"].clone();
    let base = base.as_str().unwrap();
    assert!(base.ends_with("/base"), "{base}");

    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("t.jsonl"), "{\"text\": \"one two\"}\n").unwrap();
    let adapter = dir.path().join("r/adapter");
    let adapter = adapter.display();
    // While both caches are there.
    let line = format!("evaluate --adapter {adapter} --data t.jsonl");
    let both = said(other.path(), &line);
    assert!(!both.contains("was trained on `"), "{both}");

    fs::remove_dir_all(Path::new(base).parent().unwrap()).unwrap();
    for line in [
        format!("train --adapter {adapter} --steps 1 --no-eval --out s"),
        format!("evaluate --adapter {adapter} --data t.jsonl"),
        format!("export {adapter} --merge --out merged"),
    ] {
        let said = said(other.path(), &line);
        assert!(!said.contains("was trained on `"), "{line}: {said}");
    }

    // The bundled model of another version.
    let text = fs::read_to_string(&config).unwrap();
    let version = concat!("lisa-", env!("CARGO_PKG_VERSION"), "/base");
    assert!(text.contains(version), "{text}");
    fs::write(&config, text.replace(version, "lisa-0.0.9/base")).unwrap();
    let said = said(
        other.path(),
        &format!("evaluate --adapter {adapter} --data t.jsonl"),
    );
    assert!(said.contains("was trained on `"), "{said}");
}
