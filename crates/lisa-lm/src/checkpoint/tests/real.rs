//! Checkpoints as people have them: what transformers 5.24 accepts is accepted, and computes the
//! same; what would be trained wrongly is refused.

use burn::tensor::Tolerance;

use super::*;

/// A fixture's tied models, with the name of the embedding.
const TIED: [(&str, &str); 3] = [
    ("llama_tied", "model.embed_tokens.weight"),
    ("qwen2", "model.embed_tokens.weight"),
    ("gpt2", "transformer.wte.weight"),
];

/// The input and the logits of transformers that a fixture has.
fn reference(name: &str) -> (Tensor<2, Int>, Tensor<3>) {
    let device = Device::default();
    let mut tensors = shards::find(&fixture(name), Some("reference.safetensors"))
        .unwrap()
        .read(&fixture(name))
        .unwrap()
        .tensors
        .into_iter();
    let mut data = |wanted: &str| {
        let tensor = tensors.find(|tensor| tensor.name == wanted).unwrap();
        to_data(&tensor).unwrap()
    };
    (
        Tensor::from_data(data("input_ids"), &device),
        Tensor::from_data(data("logits"), &device),
    )
}

fn assert_logits(model: &CausalLm, input: Tensor<2, Int>, expected: Tensor<3>, what: &str) {
    let found = model.forward(&Input::new(input));
    let largest = (found.clone() - expected.clone()).abs().max();
    let largest: f32 = largest.into_scalar();
    assert!(largest < 1e-4, "{what}: {largest}");
    found
        .into_data()
        .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-4));
}

/// The rows of a matrix, each moved down by one: the row of token 1 becomes that of token 0.
fn rolled(matrix: &TensorData) -> TensorData {
    let [rows, width] = matrix.shape().dims();
    let mut values: Vec<f32> = matrix.try_to_vec().unwrap();
    values.rotate_left(width);
    TensorData::new(values, [rows, width])
}

/// Splits a folder's single file into two, with an index.
fn split(dir: &Path, change: impl FnOnce(&mut Value)) {
    let mut first = stored(dir);
    let names: Vec<String> = first.keys().cloned().collect();
    let second = first.split_off(&names[names.len() / 2]);
    let mut map = serde_json::Map::new();
    for (number, tensors) in [first, second].iter().enumerate() {
        let file = format!("model-{:05}-of-00002.safetensors", number + 1);
        write_safetensors(&dir.join(&file), tensors);
        for name in tensors.keys() {
            map.insert(name.clone(), file.clone().into());
        }
    }
    let mut index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    change(&mut index["weight_map"]);
    fs::write(dir.join(shards::INDEX), index.to_string()).unwrap();
    fs::remove_file(dir.join(shards::SINGLE)).unwrap();
}

#[test]
fn a_head_that_differs_from_the_embedding_is_untied_and_saved_so() {
    for (name, embedding) in TIED {
        for sharded in [false, true] {
            let dir = altered(name, |tensors| {
                tensors.insert("lm_head.weight".into(), rolled(&tensors[embedding]));
            });
            if sharded {
                split(dir.path(), |_| ());
            }
            let source = Checkpoint::open(dir.path()).unwrap();
            assert!(!source.config().is_tied(), "{name}");
            let model = source.load(&Device::default(), None).unwrap();
            assert!(!model.config().is_tied() && model.lm_head.is_some());
            // The logits of transformers for the tied model, moved as the head was moved.
            let (input, logits) = reference(name);
            let [batch, seq, vocab] = logits.dims();
            let expected = Tensor::cat(
                vec![
                    logits.clone().slice([0..batch, 0..seq, 1..vocab]),
                    logits.slice([0..batch, 0..seq, 0..1]),
                ],
                2,
            );
            assert_logits(&model, input.clone(), expected.clone(), name);
            // With the source's text of config.json, and without.
            for source in [Some(&source), None] {
                let to = tempfile::tempdir().unwrap();
                save_to(to.path(), &model, source, usize::MAX);
                let config = fs::read_to_string(to.path().join("config.json")).unwrap();
                let config: Value = serde_json::from_str(&config).unwrap();
                assert_eq!(config["tie_word_embeddings"], false);
                assert_eq!(stored(to.path()), stored(dir.path()));
                let again = load(to.path()).unwrap();
                assert_logits(&again, input.clone(), expected.clone(), name);
            }
        }
    }
}

#[test]
fn a_head_that_is_a_copy_or_the_only_one_stays_tied() {
    for (name, embedding) in TIED {
        let copy = altered(name, |tensors| {
            tensors.insert("lm_head.weight".into(), tensors[embedding].clone());
        });
        let only = altered(name, |tensors| {
            let head = tensors.remove(embedding).unwrap();
            tensors.insert("lm_head.weight".into(), head);
        });
        for dir in [copy, only] {
            let source = Checkpoint::open(dir.path()).unwrap();
            assert!(source.config().is_tied(), "{name}");
            let model = source.load(&Device::default(), None).unwrap();
            let (input, logits) = reference(name);
            assert_logits(&model, input, logits, name);
            let to = tempfile::tempdir().unwrap();
            save_to(to.path(), &model, Some(&source), usize::MAX);
            assert_eq!(stored(to.path()), stored(&fixture(name)));
        }
        // A head of another shape is no copy.
        let odd = altered(name, |tensors| {
            tensors.insert(
                "lm_head.weight".into(),
                TensorData::new(vec![0.0f32; 15], [3, 5]),
            );
        });
        let found = message(load(odd.path()));
        assert!(found.contains("lm_head.weight has shape [3, 5]"), "{found}");
    }
}

#[test]
fn an_index_says_which_files_there_are_and_not_which_tensors() {
    let name = "model.norm.weight";
    let (first, second) = (
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    );
    let with = |change: &dyn Fn(&mut Value)| {
        let dir = altered("llama", |_| ());
        split(dir.path(), change);
        dir
    };
    let (input, logits) = reference("llama");
    let accepted = |dir: &TempDir| {
        let model = load(dir.path()).unwrap();
        assert_logits(&model, input.clone(), logits.clone(), "index");
    };
    accepted(&with(&|map| {
        drop(map.as_object_mut().unwrap().remove(name));
    }));
    accepted(&with(&|map| map["model.extra.weight"] = second.into()));
    accepted(&with(&|map| map[name] = first.into()));
    // The tensor is in both files: the one that the index lists counts.
    let dir = with(&|_| ());
    let path = dir.path().join(first);
    let read = |file: &str| {
        let files = shards::find(dir.path(), Some(file)).unwrap();
        let tensors = files.read(dir.path()).unwrap().tensors.into_iter();
        tensors
            .map(|tensor| (tensor.name.clone(), to_data(&tensor).unwrap()))
            .collect::<BTreeMap<_, _>>()
    };
    let mut tensors = read(first);
    tensors.insert(name.into(), TensorData::new(vec![9.0f32; 64], [64]));
    write_safetensors(&path, &tensors);
    accepted(&dir);
    let index = fs::read_to_string(dir.path().join(shards::INDEX)).unwrap();
    let mut index: Value = serde_json::from_str(&index).unwrap();
    index["weight_map"].as_object_mut().unwrap().remove(name);
    fs::write(dir.path().join(shards::INDEX), index.to_string()).unwrap();
    let found = message(load(dir.path()));
    let twice = format!("{name} is stored twice, in {first} and {second}");
    assert!(found.contains(&twice), "{found}");
    // A listed tensor that no file has.
    let dir = with(&|_| ());
    let mut tensors = read(second);
    tensors.remove(name).unwrap();
    write_safetensors(&dir.path().join(second), &tensors);
    let found = message(load(dir.path()));
    for part in ["1 tensors are missing", name, second, "fetch that file"] {
        assert!(found.contains(part), "`{part}` is not in: {found}");
    }
}

#[test]
fn tensors_that_the_model_does_not_compute_with_are_left_out() {
    let some = || TensorData::new(vec![1.0f32; 4], [2, 2]);
    let (input, logits) = reference("llama_tied");
    let with = |names: &[&str]| {
        altered("llama_tied", |tensors| {
            for name in names {
                tensors.insert((*name).into(), some());
            }
        })
    };
    let dir = with(&[
        // Buffers of early versions.
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.0.self_attn.rotary_emb.cos_cached",
        "model.rotary_emb.inv_freq",
        "model.position_ids",
        // Other parts of a larger model, and heads of other tasks.
        "score.weight",
        "v_head.summary.weight",
        "mtp.layers.0.mlp.up_proj.weight",
        "visual.patch_embed.proj.weight",
    ]);
    assert_logits(
        &load(dir.path()).unwrap(),
        input.clone(),
        logits.clone(),
        "",
    );
    // A model that was saved without its head.
    let bare = altered("llama_tied", |tensors| {
        let names: Vec<String> = tensors.keys().cloned().collect();
        for name in names {
            let tensor = tensors.remove(&name).unwrap();
            let name = name.strip_prefix("model.").unwrap();
            tensors.insert(name.to_owned(), tensor);
        }
    });
    assert_logits(&load(bare.path()).unwrap(), input, logits, "");
    // What transformers leaves out with a warning, but would compute with if config.json asked.
    for name in [
        "model.layers.2.mlp.up_proj.weight",
        "model.layers.0.self_attn.q_norm.weight",
        "model.layers.0.mlp.experts.0.up_proj.weight",
        "lm_head.bias",
    ] {
        let found = message(load(with(&[name]).path()));
        assert!(found.contains(name) && found.contains("not of this model"));
    }
}

#[test]
fn tensors_of_different_dtypes_are_loaded_in_one() {
    let with = |dtype: Option<&str>, of: &dyn Fn(&str) -> DType| {
        let dir = altered("llama_tied", |tensors| {
            for (name, tensor) in tensors.iter_mut() {
                *tensor = tensor.clone().convert_dtype(of(name));
            }
        });
        let path = dir.path().join("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let keys = config.as_object_mut().unwrap();
        keys.remove("torch_dtype");
        if let Some(dtype) = dtype {
            keys.insert("torch_dtype".into(), dtype.into());
        }
        fs::write(path, config.to_string()).unwrap();
        dir
    };
    let norms_in = |norms: DType, others: DType| {
        move |name: &str| if name.contains("norm") { norms } else { others }
    };
    // The dtype and the sum of the absolute logits of the ids 0 to 9: tests/fixtures/make_mixed.py.
    let cases = [
        (DType::F32, DType::BF16, None, DType::BF16, 562.774),
        (
            DType::F32,
            DType::BF16,
            Some("bfloat16"),
            DType::BF16,
            562.774,
        ),
        (DType::BF16, DType::F16, None, DType::F16, 562.857),
        (
            DType::BF16,
            DType::F16,
            Some("bfloat16"),
            DType::BF16,
            562.902,
        ),
        (DType::F32, DType::F16, Some("float32"), DType::F32, 562.958),
    ];
    for (norms, others, config, expected, sum) in cases {
        let dir = with(config, &norms_in(norms, others));
        let model = load(dir.path()).unwrap();
        let what = format!("{norms:?}, {others:?}, {config:?}");
        assert_eq!(model.dtype(), expected, "{what}");
        let ids = Tensor::<1, Int>::arange(0..10, &Device::default()).reshape([1, 10]);
        let logits = model.forward(&Input::new(ids)).cast(FloatDType::F32);
        let found: f32 = logits.abs().sum().into_scalar();
        assert!((found - sum).abs() < 0.002 * sum, "{what}: {found}");
        let to = tempfile::tempdir().unwrap();
        save_to(to.path(), &model, None, usize::MAX);
        assert!(stored(to.path()).values().all(|t| t.dtype() == expected));
    }
    // Asked for another dtype, and stored in one dtype that is not that of config.json.
    let dir = with(None, &norms_in(DType::F32, DType::BF16));
    let source = Checkpoint::open(dir.path()).unwrap();
    let model = source.load(&Device::default(), Some(FloatDType::F16));
    assert_eq!(model.unwrap().dtype(), DType::F16);
    let dir = with(Some("bfloat16"), &|_| DType::F32);
    assert_eq!(load(dir.path()).unwrap().dtype(), DType::F32);
}

#[test]
fn the_file_that_config_json_names_is_read() {
    let (input, logits) = reference("llama_tied");
    let dir = altered("llama_tied", |_| ());
    let named = |name: &str| {
        let path = dir.path().join("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        config["transformers_weights"] = name.into();
        fs::write(path, config.to_string()).unwrap();
    };
    let other = dir.path().join("weights.safetensors");
    fs::rename(dir.path().join(shards::SINGLE), &other).unwrap();
    named("weights.safetensors");
    let source = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(source.weight_files().unwrap(), [other]);
    let model = source.load(&Device::default(), None).unwrap();
    assert_logits(&model, input, logits, "");
    let to = tempfile::tempdir().unwrap();
    save_to(to.path(), &model, Some(&source), usize::MAX);
    load(to.path()).unwrap();
    for (name, expected) in [
        ("gone.safetensors", "no gone.safetensors, which config.json"),
        ("gone.safetensors.index.json", "no gone.safetensors.index"),
        ("../x.safetensors", "not a file of the folder"),
    ] {
        named(name);
        let found = message(load(dir.path()));
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn weights_in_another_format_are_named_with_what_to_do() {
    for (file, parts) in [
        ("pytorch_model.bin", ["pickle", "save_pretrained('"]),
        (
            "pytorch_model-00001-of-00002.bin",
            ["pickle", "from_pretrained('"],
        ),
        ("model-Q4_K_M.gguf", ["GGUF", "get the safetensors"]),
        (
            "consolidated.safetensors",
            ["authors", "model*.safetensors"],
        ),
        ("consolidated.00.pth", ["authors", "model*.safetensors"]),
        (
            "model-00001-of-00002.safetensors",
            ["without their index", "get the index"],
        ),
        ("model.fp16.safetensors", ["another name", "rename"]),
        ("adapter_model.safetensors", ["adapter", "merge"]),
        ("tf_model.h5", ["TensorFlow", "safetensors"]),
        ("flax_model.msgpack", ["Flax", "safetensors"]),
    ] {
        let dir = altered("llama", |_| ());
        fs::rename(dir.path().join(shards::SINGLE), dir.path().join(file)).unwrap();
        let found = message(load(dir.path()));
        for part in parts.iter().chain(&[file]) {
            assert!(found.contains(part), "`{part}` is not in: {found}");
        }
    }
    // A file instead of a folder, and the folder of an adapter.
    let dir = altered("llama", |_| ());
    let found = message(load(dir.path().join(shards::SINGLE)));
    assert!(found.contains("give the folder of the model"), "{found}");
    fs::remove_file(dir.path().join("config.json")).unwrap();
    fs::write(dir.path().join("adapter_config.json"), "{}").unwrap();
    let found = message(load(dir.path()));
    assert!(found.contains("merge it into its base model"), "{found}");
}

#[test]
fn quantized_weights_are_named_as_such() {
    let up = "model.layers.1.mlp.up_proj";
    let packed = altered("llama", |tensors| {
        tensors.remove(&format!("{up}.weight")).unwrap();
        for part in ["qweight", "qzeros", "scales"] {
            let values = TensorData::new(vec![0.0f32; 8], [2, 4]);
            tensors.insert(format!("{up}.{part}"), values);
        }
    });
    let found = message(load(packed.path()));
    for part in ["missing", "qweight", "use the unquantized one"] {
        assert!(found.contains(part), "`{part}` is not in: {found}");
    }
    let whole = altered("llama", |tensors| {
        let values = TensorData::new(vec![0i64; 128 * 64], [128, 64]);
        tensors.insert(format!("{up}.weight"), values);
    });
    let found = message(load(whole.path()));
    assert!(found.contains("use the unquantized one"), "{found}");
}
