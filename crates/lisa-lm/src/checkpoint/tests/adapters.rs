//! Adapters in PEFT's format, compared with PEFT (`tests/fixtures/make_lora.py`).

use burn::store::burn_pack::Tensor as PackTensor;

use super::super::contents::{ADAPTER, ADAPTER_CONFIG};
use super::*;
use crate::files::disk::fault;
use crate::model::LoraConfig;

/// A tensor of the Llama fixture.
const Q: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

/// A change of a configuration, and what its refusal says.
type Case = (fn(&mut Value), &'static str);

const FAMILIES: [&str; 2] = ["llama", "gpt2"];

/// The fixture's adapter.
fn folder(family: &str) -> PathBuf {
    fixture(family).join("lora")
}

fn tensors(path: &Path) -> BTreeMap<String, TensorData> {
    let tensors: Vec<PackTensor> = shards::tensors(path).unwrap();
    let data = tensors
        .iter()
        .map(|t| (t.name.clone(), to_data(t).unwrap()));
    data.collect()
}

/// The logits of the last four positions of the reference's batch.
fn logits(family: &str, model: &CausalLm) -> Vec<f32> {
    let reference = tensors(&fixture(family).join("reference.safetensors"));
    let ids = Tensor::<2, Int>::from_data(reference["input_ids"].clone(), &Device::default());
    let [rows, length] = ids.dims();
    let logits = model.forward(&Input::new(ids));
    let vocab = logits.dims()[2];
    let last = logits.slice([0..rows, length - 4..length, 0..vocab]);
    last.into_data().iter().collect()
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A copy of a fixture's adapter, whose configuration is changed.
fn with(family: &str, change: impl FnOnce(&mut Value)) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(folder(family).join(ADAPTER_CONFIG)).unwrap();
    let mut config = serde_json::from_str(&text).unwrap();
    change(&mut config);
    fs::write(dir.path().join(ADAPTER_CONFIG), config.to_string()).unwrap();
    fs::copy(folder(family).join(ADAPTER), dir.path().join(ADAPTER)).unwrap();
    dir
}

#[test]
fn an_adapter_of_peft_has_its_logits_and_is_written_as_it_was() {
    for family in FAMILIES {
        let adapter = Adapter::open(folder(family)).unwrap();
        assert_eq!(adapter.base(), Some(family));
        let config = adapter.config();
        let (names, alpha, rslora): (&[&str], _, _) = match family {
            "llama" => (&["down_proj", "q_proj"], 3.0, true),
            _ => (&["c_attn", "c_fc", "c_proj"], 5.0, false),
        };
        let expected = LoraConfig::new(2).with_alpha(alpha).with_rslora(rslora);
        assert_eq!(*config, expected.with_modules(names.iter().copied()));

        let model = adapter.apply(load(fixture(family)).unwrap()).unwrap();
        let reference = tensors(&folder(family).join("reference.safetensors"));
        let expected: Vec<f32> = reference["start"].iter().collect();
        let found = logits(family, &model);
        assert!(apart(&found, &expected) < 1e-5, "{family}");
        let plain = logits(family, &load(fixture(family)).unwrap());
        assert!(apart(&plain, &expected) > 0.01, "{family}");
        let merged = model.clone().merge_lora();
        assert!(
            apart(&logits(family, &merged), &expected) < 1e-5,
            "{family}"
        );
        assert!(merged.lora().is_none());

        let dir = tempfile::tempdir().unwrap();
        let source = Checkpoint::open(fixture(family)).unwrap();
        let files = [("chat_template.jinja".to_owned(), b"{{ 1 }}".to_vec())];
        let options = AdapterOptions {
            revision: Some("v1"),
            source: Some(&source),
            files: &files,
            ..AdapterOptions::new(family)
        };
        save_adapter(&model, &dir, &options).unwrap();
        assert!(dir.path().join("chat_template.jinja").is_file());
        assert!(!dir.path().join("config.json").exists());
        let weights = |dir: &Path| tensors(&dir.join(ADAPTER));
        assert_eq!(weights(dir.path()), weights(&folder(family)));
        let config = |dir: &Path| -> Value {
            let text = fs::read_to_string(dir.join(ADAPTER_CONFIG)).unwrap();
            serde_json::from_str(&text).unwrap()
        };
        let (ours, theirs) = (config(dir.path()), config(&folder(family)));
        for (key, value) in ours.as_object().unwrap() {
            if key != "revision" {
                assert_eq!(*value, theirs[key], "{family}: {key}");
            }
        }
        assert_eq!(ours["fan_in_fan_out"], family == "gpt2");
        assert_eq!(ours["revision"], "v1");
        assert_eq!(Adapter::open(&dir).unwrap().config(), adapter.config());
    }
}

#[test]
fn adapters_of_half_precision_models_are_f32_and_merge_into_its_dtype() {
    let device = Device::default();
    let base = Checkpoint::open(fixture("llama")).unwrap();
    for dtype in [FloatDType::BF16, FloatDType::F16] {
        let model = base.load(&device, Some(dtype)).unwrap();
        let model = Adapter::open(folder("llama"))
            .unwrap()
            .apply(model)
            .unwrap();
        let down = &model.model.layers[0].mlp.down_proj;
        let lora = down.lora.as_ref().unwrap();
        assert_eq!(
            (lora.a.val().dtype(), lora.b.val().dtype()),
            (DType::F32, DType::F32)
        );
        assert_eq!(down.weight.val().dtype(), DType::from(dtype));
        // The sum is rounded once.
        let wide = |tensor: Tensor<2>| tensor.cast(FloatDType::F32);
        let scale = 3.0 / 2.0f64.sqrt();
        let product = lora.a.val().matmul(lora.b.val()) * scale;
        let exact = (wide(down.weight.val()) + product).cast(dtype);
        let merged = model.merge_lora();
        let weight = merged.model.layers[0].mlp.down_proj.weight.val();
        assert_eq!(weight.into_data(), exact.into_data());
        assert_eq!(merged.dtype(), DType::from(dtype));
    }
}

#[test]
fn modules_are_chosen_by_their_names_in_transformers() {
    let chosen = |family: &str, names: &[&str]| -> Result<Vec<String>, Error> {
        let config = LoraConfig::new(2).with_modules(names.iter().copied());
        let mut model = load(fixture(family))?.with_lora(&config)?;
        let with_lora = model.linear_mut().filter(|(_, _, p)| p.lora.is_some());
        Ok(with_lora.map(|(path, _, _)| path).collect())
    };
    assert_eq!(chosen("llama", &[]).unwrap().len(), 4 * 7);
    assert_eq!(
        chosen("llama", &["layers.1.self_attn.q_proj", "lm_head"]).unwrap(),
        ["model.layers.1.self_attn.q_proj", "lm_head"]
    );
    // The end of a path, not of a name.
    let error = chosen("llama", &["proj"]).unwrap_err();
    assert_eq!(
        error.message(),
        "no linear module of the model is named `proj`"
    );
    let known = "the modules that can have a LoRA adapter are down_proj, gate_proj, k_proj, lm_head, \
                 o_proj, q_proj, up_proj, v_proj";
    assert_eq!(error.help(), Some(known));
    assert_eq!(chosen("gpt2", &["c_proj"]).unwrap().len(), 8);
    assert_eq!(
        chosen("gpt2", &["0.attn.c_proj"]).unwrap(),
        ["transformer.h.0.attn.c_proj"]
    );
    let error = chosen("gpt2", &["q_proj"]).unwrap_err();
    assert!(
        error
            .help()
            .unwrap()
            .ends_with("are c_attn, c_fc, c_proj, lm_head"),
        "{error}"
    );
}

#[test]
fn a_tied_head_with_an_adapter_is_untied() {
    let base = load(fixture("gpt2")).unwrap();
    assert!(base.config().is_tied());
    let before = logits("gpt2", &base);
    let config = LoraConfig::new(2).with_modules(["lm_head"]);
    let mut model = base.clone().with_lora(&config).unwrap();
    assert_eq!(logits("gpt2", &model), before);
    let lora = model.lm_head.as_mut().unwrap().lora.as_mut().unwrap();
    lora.b = lora.b.clone().map(|b| b.ones_like());
    let expected = logits("gpt2", &model);
    assert!(apart(&expected, &before) > 0.01);
    let dir = tempfile::tempdir().unwrap();
    save_adapter(
        &model,
        dir.path().join("adapter"),
        &AdapterOptions::new("gpt2"),
    )
    .unwrap();
    let adapter = Adapter::open(dir.path().join("adapter")).unwrap();
    let again = adapter.apply(base.clone()).unwrap();
    assert_eq!(logits("gpt2", &again), expected);
    // The embedding keeps its values in the merged model.
    save(
        &again.merge_lora(),
        dir.path().join("merged"),
        &SaveOptions::default(),
    )
    .unwrap();
    let merged = load(dir.path().join("merged")).unwrap();
    assert!(!merged.config().is_tied());
    assert!(apart(&logits("gpt2", &merged), &expected) < 1e-5);
    let embedding = |model: &CausalLm| model.model.embed_tokens.weight.val().into_data();
    assert_eq!(embedding(&merged), embedding(&base));
}

/// PEFT writes the head's weight beside the head's adapter.
#[test]
fn a_weight_of_the_base_model_in_an_adapter_must_be_that_of_the_model() {
    let base = load(fixture("llama")).unwrap();
    let config = LoraConfig::new(2).with_modules(["lm_head"]);
    let model = base.clone().with_lora(&config).unwrap();
    let dir = tempfile::tempdir().unwrap();
    save_adapter(&model, dir.path(), &AdapterOptions::new("llama")).unwrap();
    let path = dir.path().join(ADAPTER);
    let matrices = tensors(&path);
    let head = model.lm_head.as_ref().unwrap();
    let weight = head.weight.val().transpose();
    let apply = |base: &CausalLm, matrices: &BTreeMap<_, _>, copy: TensorData, module: &str| {
        let mut all = matrices.clone();
        all.insert(format!("base_model.model.{module}.base_layer.weight"), copy);
        write_safetensors(&path, &all);
        let opened = Adapter::open(dir.path());
        let applied = opened.and_then(|adapter| adapter.apply(base.clone()));
        applied.map_err(|error| error.to_string())
    };
    let same = apply(&base, &matrices, weight.to_data(), "lm_head").unwrap();
    assert_eq!(logits("llama", &same), logits("llama", &base));
    // PEFT may have had the base model in another dtype.
    let half = weight.clone().cast(DType::BF16);
    apply(&base, &matrices, half.into_data(), "lm_head").unwrap();
    let options = (&Device::default(), FloatDType::BF16);
    let rounded = Checkpoint::open(fixture("llama")).unwrap();
    let rounded = rounded.load(options.0, Some(options.1)).unwrap();
    apply(&rounded, &matrices, weight.to_data(), "lm_head").unwrap();

    let error = |matrices, copy, module| apply(&base, matrices, copy, module).unwrap_err();
    let moved = weight.clone().add_scalar(1e-3).into_data();
    for (found, expected) in [
        (
            error(&matrices, moved, "lm_head"),
            "lm_head.base_layer.weight is not the weight of the model",
        ),
        (
            error(
                &matrices,
                weight.clone().narrow(0, 0, 4).into_data(),
                "lm_head",
            ),
            "has shape [4, ",
        ),
        (
            error(&matrices, weight.to_data(), "head"),
            "it has tensors of head, which is no linear module",
        ),
        (
            error(&BTreeMap::new(), weight.to_data(), "lm_head"),
            "it has no matrix of a LoRA adapter",
        ),
    ] {
        assert!(found.contains(expected), "`{expected}` is not in: {found}");
    }
}

#[test]
fn a_narrowed_adapter_has_the_modules_of_its_tensors() {
    let dir = with("llama", |config| {
        config["target_modules"] = "(q|down)_proj".into();
    });
    let adapter = Adapter::open(&dir).unwrap();
    assert_eq!(adapter.config().modules.len(), 8);
    assert_eq!(adapter.config().modules[0], "model.layers.0.mlp.down_proj");
    let model = adapter.apply(load(fixture("llama")).unwrap()).unwrap();
    let again = tempfile::tempdir().unwrap();
    save_adapter(&model, &again, &AdapterOptions::new("llama")).unwrap();
    assert_eq!(
        tensors(&again.path().join(ADAPTER)),
        tensors(&folder("llama").join(ADAPTER))
    );
    // Of a configuration that names all linear modules, the whole list is written.
    let model = load(fixture("gpt2"))
        .unwrap()
        .with_lora(&LoraConfig::new(1))
        .unwrap();
    save_adapter(&model, &again, &AdapterOptions::new("gpt2")).unwrap();
    let modules = Adapter::open(&again).unwrap().config().modules.clone();
    assert_eq!(modules, ["c_attn", "c_fc", "c_proj"]);
}

// PEFT, too, refuses only an adapter of which no module is found.
#[test]
fn target_modules_without_tensors_are_left_out() {
    let opened = |names: Value| {
        let dir = with("llama", |config| config["target_modules"] = names);
        Adapter::open(dir.path()).unwrap()
    };
    let adapter = opened(json!(["query_key_value", "down_proj", "q_proj", "lm_head"]));
    assert_eq!(adapter.config().modules, ["down_proj", "q_proj"]);
    let base = || load(fixture("llama")).unwrap();
    let dir = with("llama", |config| {
        let names = config["target_modules"].as_array_mut().unwrap();
        names.push("query_key_value".into());
    });
    let model = Adapter::open(&dir).unwrap().apply(base()).unwrap();
    let expected = Adapter::open(folder("llama")).unwrap();
    let expected = expected.apply(base()).unwrap();
    assert_eq!(logits("llama", &model), logits("llama", &expected));
    let again = tempfile::tempdir().unwrap();
    save_adapter(&model, &again, &AdapterOptions::new("llama")).unwrap();
    assert_eq!(
        tensors(&again.path().join(ADAPTER)),
        tensors(&folder("llama").join(ADAPTER))
    );

    let error = opened(json!(["query_key_value"])).apply(base());
    assert_eq!(
        error.unwrap_err().message(),
        "no linear module of the model is named `query_key_value`"
    );
}

#[test]
fn absent_keys_of_the_configuration_have_the_defaults_of_peft() {
    let opened = |change: fn(&mut Value)| {
        let dir = with("llama", change);
        Adapter::open(dir.path()).unwrap()
    };
    let without = opened(|config| {
        let map = config.as_object_mut().unwrap();
        for key in ["lora_alpha", "r", "lora_dropout", "use_rslora", "revision"] {
            map.remove(key);
        }
        config["base_model_name_or_path"] = "".into();
    });
    let config = LoraConfig::new(8).with_alpha(8.0);
    assert_eq!(
        *without.config(),
        config.with_modules(["down_proj", "q_proj"])
    );
    assert_eq!((without.base(), without.revision()), (None, None));
    let alone = opened(|config| drop(config.as_object_mut().unwrap().remove("lora_alpha")));
    assert_eq!((alone.config().alpha, alone.config().rank), (8.0, 2));

    // What narrows the modules is not read: they are those of the tensors.
    let changes: [fn(&mut Value); 2] = [
        |config| config["layers_to_transform"] = json!([0]),
        |config| config["exclude_modules"] = json!(["layers.1.mlp.down_proj"]),
    ];
    for change in changes {
        let modules = opened(change).config().modules.clone();
        assert_eq!(modules.len(), 8);
        assert_eq!(modules[0], "model.layers.0.mlp.down_proj");
        assert_eq!(modules[7], "model.layers.3.self_attn.q_proj");
    }
}

#[test]
fn an_adapter_that_would_be_computed_otherwise_is_refused() {
    let refusal = |change: fn(&mut Value)| {
        let dir = with("llama", change);
        Adapter::open(&dir).unwrap_err().to_string()
    };
    let cases: [Case; 10] = [
        (
            |c| c["peft_type"] = "LOHA".into(),
            "peft_type is LOHA, and only LORA",
        ),
        (|c| c["use_dora"] = true.into(), "use_dora is true"),
        (|c| c["bias"] = "all".into(), "bias is \"all\""),
        (
            |c| c["modules_to_save"] = json!(["lm_head"]),
            "modules_to_save is",
        ),
        (
            |c| c["rank_pattern"] = json!({"q_proj": 4}),
            "rank_pattern is",
        ),
        (|c| c["of_the_future"] = 1.into(), "of_the_future is 1"),
        (
            |c| c["init_lora_weights"] = "pissa".into(),
            "init_lora_weights is pissa",
        ),
        (|c| c["r"] = 0.into(), "the rank of the LoRA adapters is 0"),
        (|c| c["r"] = 100_000.into(), "adapters is 100000"),
        (|c| c["lora_alpha"] = "two".into(), "lora_alpha is \"two\""),
    ];
    for (change, expected) in cases {
        let found = refusal(change);
        assert!(found.contains(expected), "`{expected}` is not in: {found}");
        assert!(found.contains(ADAPTER_CONFIG), "{found}");
    }
}

#[test]
fn matrices_that_do_not_fit_are_refused() {
    let applied = |dir: &Path, base: &str| {
        let base = load(fixture(base)).unwrap();
        let opened = Adapter::open(dir);
        let applied = opened.and_then(|adapter| adapter.apply(base));
        applied.unwrap_err().to_string()
    };
    let changed = |change: fn(&mut BTreeMap<String, TensorData>)| {
        let dir = with("llama", |_| ());
        let path = dir.path().join(ADAPTER);
        let mut all = tensors(&path);
        change(&mut all);
        write_safetensors(&path, &all);
        applied(dir.path(), "llama")
    };
    let cases = [
        (
            changed(|all| drop(all.remove(Q))),
            "q_proj.lora_A.weight is missing",
        ),
        (
            changed(|all| drop(all.insert(Q.into(), TensorData::zeros::<f32, _>([4, 64])))),
            "q_proj.lora_A.weight has shape [4, 64], and the rank of adapter_config.json is 2",
        ),
        (
            changed(|all| drop(all.insert(Q.into(), TensorData::zeros::<f32, _>([2, 32])))),
            "q_proj.lora_A.weight has shape [2, 32], but the model and the rank ask for [2, 64]",
        ),
        (
            changed(|all| {
                let name = Q.replace("lora_A.weight", "lora_A.default.weight");
                all.insert(name, all[Q].clone());
            }),
            " are the same one",
        ),
        (
            changed(|all| {
                let whole = TensorData::zeros::<f32, _>([4, 4]);
                all.insert("base_model.model.lm_head.weight".into(), whole);
            }),
            "lm_head.weight is not a matrix of a LoRA adapter",
        ),
        (
            changed(|all| {
                for end in ["A", "B"] {
                    let name = |path: &str| format!("base_model.model.{path}.lora_{end}.weight");
                    let values = all[&name("model.layers.0.self_attn.q_proj")].clone();
                    all.insert(name("model.layers.9.self_attn.q_proj"), values);
                }
            }),
            "it has tensors of model.layers.9.self_attn.q_proj, which is no linear module",
        ),
        (
            changed(|all| {
                all.retain(|name, _| !name.contains("layers.3.mlp"));
            }),
            "there is no adapter of model.layers.3.mlp.down_proj",
        ),
        (
            applied(&folder("llama"), "gpt2"),
            "no linear module of the model is named `down_proj`",
        ),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "`{expected}` is not in: {found}");
    }
    let dir = with("llama", |_| ());
    fs::rename(
        dir.path().join(ADAPTER),
        dir.path().join("adapter_model.bin"),
    )
    .unwrap();
    let error = Adapter::open(&dir).unwrap_err();
    assert!(error.help().unwrap().contains("pickle"), "{error}");
}

#[test]
fn adapters_and_models_do_not_share_a_folder() {
    let model = load(fixture("llama")).unwrap();
    let adapted = model.clone().with_lora(&LoraConfig::new(1)).unwrap();
    let options = AdapterOptions::new("llama");
    let dir = tempfile::tempdir().unwrap();
    assert!(save_adapter(&model, &dir, &options).is_err());
    save_adapter(&adapted, &dir, &options).unwrap();
    save(&model, &dir, &SaveOptions::default()).unwrap();
    assert!(!dir.path().join(ADAPTER).exists() && !dir.path().join(ADAPTER_CONFIG).exists());
    let error = save_adapter(&adapted, &dir, &options).unwrap_err();
    assert!(error.message().contains("has a model"), "{error}");
    assert!(dir.path().join(shards::SINGLE).is_file());
}

#[test]
fn a_killed_save_leaves_the_old_adapter_or_the_new_one() {
    let base = load(fixture("llama")).unwrap();
    let of_rank = |rank: usize| base.clone().with_lora(&LoraConfig::new(rank)).unwrap();
    let (old, new) = (of_rank(1), of_rank(2));
    let options = AdapterOptions::new("llama");
    let rank = |dir: &Path| {
        let adapter = Adapter::open(dir).ok()?;
        let rank = adapter.config().rank;
        adapter.apply(base.clone()).ok().map(|_| rank)
    };
    let check = |always: bool| {
        let mut kills = 0;
        loop {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().join("adapter");
            save_adapter(&old, &dir, &options).unwrap();
            let killed = fault::killed_after(kills, || drop(save_adapter(&new, &dir, &options)));
            let found = rank(&dir);
            assert!(found.is_some() || !always, "after {kills} operations");
            assert!(found.is_none() || found == Some(1) || found == Some(2));
            save_adapter(&new, &dir, &options).unwrap();
            assert_eq!(rank(&dir), Some(2));
            if !killed {
                break;
            }
            kills += 1;
        }
        assert!(kills > 8, "{kills}");
    };
    #[cfg(target_os = "linux")]
    check(true);
    fault::without_exchange(|| check(false));
}

/// Writes the logits that `tests/check_peft.py` compares, into the folder of `LISA_CHECK_PEFT`.
#[test]
#[ignore = "writes files for tests/check_peft.py"]
fn logits_for_peft() {
    let root = PathBuf::from(std::env::var("LISA_CHECK_PEFT").unwrap());
    let ids = tensors(&root.join("input.safetensors"))["input_ids"].clone();
    let ids = Tensor::<2, Int>::from_data(ids, &Device::default());
    for family in ["llama", "gpt2", "head"] {
        for name in ["peft", "run/adapter", "further/adapter"] {
            let dir = root.join(family);
            let base = load(dir.join("base")).unwrap();
            let adapter = Adapter::open(dir.join(name)).unwrap();
            let model = adapter.apply(base).unwrap();
            let logits = model.forward(&Input::new(ids.clone())).into_data();
            let file = format!("{}.safetensors", name.replace('/', "-"));
            write_safetensors(
                &dir.join(file),
                &BTreeMap::from([("logits".into(), logits)]),
            );
        }
    }
}
