use burn::tensor::{Device, FloatDType};
use serde_json::{Value, json};

use super::*;
use crate::error::{Error, ErrorKind};
use crate::test_support::fixture;

fn fixture_json(name: &str) -> String {
    std::fs::read_to_string(fixture(name).join("config.json")).unwrap()
}

/// A fixture's configuration with some keys changed; null takes a key out.
fn changed(name: &str, changes: Value) -> Result<ModelConfig, Error> {
    let mut value: Value = serde_json::from_str(&fixture_json(name)).unwrap();
    for (key, change) in changes.as_object().unwrap() {
        match change {
            Value::Null => drop(value.as_object_mut().unwrap().remove(key)),
            change => value[key] = change.clone(),
        }
    }
    ModelConfig::from_json(&value.to_string())
}

fn llama(config: ModelConfig) -> LlamaConfig {
    match config {
        ModelConfig::Llama(config) => config,
        ModelConfig::Gpt2(_) => unreachable!("a Llama was asked for"),
    }
}

const FIXTURES: [&str; 6] = ["llama", "gpt2", "mistral", "qwen2", "qwen3", "llama_tied"];

#[test]
fn files_of_transformers_4_and_5_say_the_same() {
    let five = json!({
        "rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 2.0},
        "dtype": "bfloat16",
    });
    let four = json!({
        "rope_parameters": null, "dtype": null,
        "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0},
        "torch_dtype": "bfloat16",
    });
    let (five, four) = (
        changed("llama", five).unwrap(),
        changed("llama", four).unwrap(),
    );
    assert_eq!(five, four);
    assert_eq!(five.common().dtype, Some(FloatDType::BF16));
    let rope = llama(five).rope;
    assert_eq!(
        (rope.theta, rope.scaling),
        (5e5, RopeScaling::Linear { factor: 2.0 })
    );

    let tied = llama(ModelConfig::from_json(&fixture_json("llama_tied")).unwrap());
    let expected = RopeScaling::Llama3 {
        factor: 4.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_positions: 32,
    };
    assert_eq!((tied.rope.theta, tied.rope.scaling), (10_000.0, expected));
}

#[test]
fn what_is_written_reads_the_same() {
    for name in FIXTURES {
        let config = ModelConfig::from_json(&fixture_json(name)).unwrap();
        assert_eq!(
            ModelConfig::from_json(&config.to_json()).unwrap(),
            config,
            "{name}"
        );
    }
    let mut new = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2));
    new.common_mut().dtype = Some(FloatDType::F32);
    new.common_mut().eos_token_ids = vec![1, 2];
    assert_eq!(ModelConfig::from_json(&new.to_json()).unwrap(), new);
}

#[test]
fn absent_keys_have_the_values_of_transformers() {
    let absent = json!({
        "head_dim": null, "num_key_value_heads": null, "rope_parameters": null,
        "tie_word_embeddings": null, "dtype": null, "rms_norm_eps": null,
    });
    let config = llama(changed("llama", absent).unwrap());
    assert_eq!((config.head_dim, config.num_key_value_heads), (16, 4));
    assert_eq!(config.rope, RopeConfig::new(10_000.0));
    assert_eq!(
        (config.rms_norm_eps, config.tie_word_embeddings),
        (1e-6, false)
    );
    assert_eq!(config.common.dtype, None);
    let gpt2 = changed(
        "gpt2",
        json!({"n_inner": null, "tie_word_embeddings": null}),
    )
    .unwrap();
    assert!(gpt2.is_tied());
    assert!(matches!(gpt2, ModelConfig::Gpt2(config) if config.n_inner == 4 * 64));
}

#[test]
fn sliding_windows_are_on_the_layers_that_have_them() {
    let layers = |name, changes| {
        let config = llama(changed(name, changes).unwrap());
        (config.sliding_window, config.sliding_layers)
    };
    assert_eq!(layers("mistral", json!({})), (Some(5), vec![true; 2]));
    assert_eq!(
        layers("mistral", json!({"sliding_window": null})).0,
        Some(4096)
    );
    assert_eq!(layers("qwen2", json!({})), (Some(6), vec![false, true]));
    assert_eq!(
        layers("qwen2", json!({"layer_types": null})).1,
        [false, true]
    );
    let unused = json!({"use_sliding_window": false, "layer_types": null});
    assert_eq!(layers("qwen2", unused), (None, vec![false; 2]));
    let text = fixture_json("mistral").replace("\"sliding_window\": 5", "\"sliding_window\": null");
    assert_eq!(
        llama(ModelConfig::from_json(&text).unwrap()).sliding_window,
        None
    );
}

#[test]
fn ends_of_sequence_are_one_or_several() {
    let ids = |eos: Value| {
        changed("llama", json!({ "eos_token_id": eos }))
            .unwrap()
            .common()
            .eos_token_ids
            .clone()
    };
    assert_eq!(ids(json!(3)), [3]);
    assert_eq!(ids(json!([3, 4])), [3, 4]);
}

#[test]
#[allow(clippy::too_many_lines)] // A table.
fn what_is_not_supported_is_named_with_what_is() {
    let rope = |rope: Value| json!({ "rope_parameters": rope });
    let cases = [
        (
            "llama",
            json!({"model_type": "mamba"}),
            "\"mamba\" is not supported",
        ),
        ("llama", json!({"model_type": null}), "no model_type"),
        (
            "llama",
            json!({"hidden_act": "gelu"}),
            "hidden_act \"gelu\"",
        ),
        (
            "llama",
            rope(json!({"rope_type": "yarn", "factor": 2.0})),
            "rope type \"yarn\"",
        ),
        (
            "llama",
            rope(json!({"rope_type": "linear"})),
            "needs factor",
        ),
        (
            "llama",
            rope(json!({"partial_rotary_factor": 0.5})),
            "partial_rotary_factor",
        ),
        ("llama", rope(json!([1])), "rope_parameters is [1]"),
        (
            "llama",
            rope(json!({"rope_theta": -1.0})),
            "give positive numbers",
        ),
        (
            "llama",
            json!({"quantization_config": {"quant_method": "awq"}}),
            "(awq)",
        ),
        (
            "llama",
            json!({"hidden_size": null}),
            "there is no hidden_size",
        ),
        (
            "llama",
            json!({"hidden_size": "big"}),
            "hidden_size is \"big\", not a whole number",
        ),
        (
            "llama",
            json!({"num_hidden_layers": 0}),
            "num_hidden_layers is 0",
        ),
        (
            "llama",
            json!({"num_key_value_heads": 3}),
            "not a multiple of",
        ),
        ("llama", json!({"head_dim": 15}), "head_dim is 15"),
        ("llama", json!({"rms_norm_eps": 0.0}), "rms_norm_eps is 0"),
        ("llama", json!({"dtype": "float8_e4m3fn"}), "float8_e4m3fn"),
        (
            "qwen2",
            json!({"layer_types": ["full_attention", "chunked"]}),
            "\"chunked\"",
        ),
        (
            "qwen2",
            json!({"layer_types": ["full_attention"]}),
            "1 entries for 2 layers",
        ),
        (
            "qwen2",
            json!({"use_sliding_window": false}),
            "no sliding_window",
        ),
        (
            "mistral",
            json!({"sliding_window": 0}),
            "sliding_window is 0",
        ),
        ("gpt2", json!({"activation_function": "relu"}), "\"relu\""),
        (
            "gpt2",
            json!({"scale_attn_by_inverse_layer_idx": true}),
            "inverse_layer_idx",
        ),
        (
            "gpt2",
            json!({"add_cross_attention": true}),
            "add_cross_attention",
        ),
        ("gpt2", json!({"n_head": 5}), "not a multiple of"),
    ];
    for (name, changes, expected) in cases {
        let error = changed(name, changes.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Model);
        assert!(error.to_string().contains(expected), "{changes}: {error}");
    }
    for (text, expected) in [("{", "not JSON"), ("[]", "not a JSON object")] {
        let error = ModelConfig::from_json(text).unwrap_err();
        assert!(error.message().contains(expected), "{error}");
    }
    let odd = ModelConfig::Gpt2(Gpt2Config::new(16, 9, 1, 2));
    assert!(odd.init(&Device::default()).is_err());
    let none = ModelConfig::Llama(LlamaConfig::new(16, 8, 1, 0));
    assert!(none.init(&Device::default()).is_err());
}

#[test]
fn a_text_is_rewritten_only_where_the_model_differs() {
    let with = |text: &str, change: &dyn Fn(&mut ModelConfig)| -> Value {
        let mut config = ModelConfig::from_json(text).unwrap();
        change(&mut config);
        let text = rewritten(text, &config).unwrap();
        assert_eq!(ModelConfig::from_json(&text).unwrap(), config);
        serde_json::from_str(&text).unwrap()
    };
    let f16 = |config: &mut ModelConfig| config.common_mut().dtype = Some(FloatDType::F16);
    // As transformers 5 and 4 write it: each has its own key for the dtype.
    let (five, four) = (fixture_json("llama"), fixture_json("llama_tied"));
    for text in [&five, &four] {
        let config = ModelConfig::from_json(text).unwrap();
        assert_eq!(rewritten(text, &config).as_ref(), Some(text));
    }
    assert_eq!(with(&five, &f16)["dtype"], "float16");
    let half = with(&four, &f16);
    assert_eq!(
        (&half["torch_dtype"], half.get("dtype")),
        (&json!("float16"), None)
    );
    // A head of its own, and a larger vocabulary; every other key is unchanged.
    let own = with(&four, &|config| {
        config.set_tied(false);
        if let ModelConfig::Llama(config) = config {
            config.vocab_size += 8;
        }
    });
    let mut expected: Value = serde_json::from_str(&four).unwrap();
    expected["tie_word_embeddings"] = false.into();
    expected["vocab_size"] = 72.into();
    assert_eq!(own, expected);
    // A key that is absent has the default of the family: GPT-2's head is tied.
    let mut gpt2: Value = serde_json::from_str(&fixture_json("gpt2")).unwrap();
    let keys = gpt2.as_object_mut().unwrap();
    keys.remove("tie_word_embeddings");
    keys.insert("transformers_weights".into(), "a.safetensors".into());
    let untied = with(&gpt2.to_string(), &|config| config.set_tied(false));
    assert_eq!(untied["tie_word_embeddings"], false);
    assert_eq!(untied.get("transformers_weights"), None);
    let other = ModelConfig::from_json(&five).unwrap();
    assert_eq!(rewritten(&gpt2.to_string(), &other), None);
}

#[test]
fn ids_of_tokens_are_those_that_transformers_accepts() {
    let common = |changes| changed("llama", changes).map(|config| config.common().clone());
    let none = common(json!({"bos_token_id": -1, "eos_token_id": -1, "pad_token_id": -1}));
    let none = none.unwrap();
    assert_eq!(
        (none.bos_token_id, none.eos_token_ids, none.pad_token_id),
        (None, Vec::new(), None)
    );
    let some = common(json!({"bos_token_id": 1, "eos_token_id": [2, -1, 3]})).unwrap();
    assert_eq!(
        (some.bos_token_id, &some.eos_token_ids[..]),
        (Some(1), &[2, 3][..])
    );
    let absent = common(json!({"bos_token_id": null, "eos_token_id": null})).unwrap();
    assert_eq!((absent.bos_token_id, absent.eos_token_ids.len()), (None, 0));
    for (key, value) in [
        ("bos_token_id", json!([1, 2])),
        ("bos_token_id", json!("<s>")),
        ("bos_token_id", json!(1.0)),
        ("eos_token_id", json!("</s>")),
        ("eos_token_id", json!([1, "</s>"])),
        ("pad_token_id", json!([0])),
        ("pad_token_id", json!(5_000_000_000_u64)),
    ] {
        let error = changed("llama", json!({ key: value })).unwrap_err();
        let said = error.message().contains(key) && error.message().contains("not the id");
        assert!(said, "{error}");
    }
}

#[test]
fn dtypes_have_the_names_that_torch_has() {
    for (name, dtype) in [
        ("float", FloatDType::F32),
        ("torch.half", FloatDType::F16),
        ("double", FloatDType::F64),
        ("bfloat16", FloatDType::BF16),
    ] {
        let config = changed("llama", json!({ "dtype": name })).unwrap();
        assert_eq!(config.common().dtype, Some(dtype));
    }
}

#[test]
fn the_kinds_of_the_llama_family_differ_in_biases_and_norms() {
    let of = |kind| LlamaConfig {
        kind,
        ..LlamaConfig::new(64, 16, 2, 2)
    };
    assert_eq!(LlamaKind::Qwen2.model_type(), "qwen2");
    let qwen2 = of(LlamaKind::Qwen2);
    assert!(qwen2.qkv_bias() && !qwen2.o_bias() && !qwen2.qk_norm());
    let qwen3 = of(LlamaKind::Qwen3);
    assert!(!qwen3.qkv_bias() && qwen3.qk_norm());
}

#[test]
fn special_tokens_and_dtype_are_read_and_written() {
    let config = json!({
        "model_type": "gpt2", "vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2,
        "n_positions": 32, "bos_token_id": 1, "eos_token_id": [2, 3], "dtype": "bfloat16",
    });
    let mut config = ModelConfig::from_json(&config.to_string()).unwrap();
    let common = config.common();
    assert_eq!((common.bos_token_id, common.pad_token_id), (Some(1), None));
    assert_eq!(common.eos_token_ids, [2, 3]);
    assert_eq!(common.dtype, Some(FloatDType::BF16));
    config.common_mut().pad_token_id = Some(0);
    assert!(config.to_json().contains("\"pad_token_id\": 0"));
}

#[test]
fn sizes_that_no_model_has_are_refused_and_cost_nothing() {
    let cases = [
        ("llama", "num_hidden_layers", 1_000_000_000_000_000_000_u64),
        ("llama", "vocab_size", 1_000_000_000_000),
        ("llama", "hidden_size", 1 << 62),
        ("llama", "head_dim", u64::MAX - 1),
        ("llama", "num_attention_heads", 1 << 40),
        ("llama", "intermediate_size", 1 << 40),
        ("llama", "max_position_embeddings", 1 << 60),
        ("mistral", "sliding_window", u64::MAX),
        ("gpt2", "n_embd", u64::MAX),
        ("gpt2", "n_layer", 1_000_000_000),
        ("gpt2", "n_positions", 1 << 40),
        ("gpt2", "n_inner", 1 << 40),
    ];
    for (name, key, value) in cases {
        let mut config: Value = serde_json::from_str(&fixture_json(name)).unwrap();
        config[key] = value.into();
        let message = ModelConfig::from_json(&config.to_string()).unwrap_err();
        let message = message.to_string();
        assert!(message.contains(key), "{name} {key}: {message}");
    }
    let mut config: Value = serde_json::from_str(&fixture_json("llama")).unwrap();
    config["initializer_range"] = (-1.0).into();
    let message = ModelConfig::from_json(&config.to_string()).unwrap_err();
    assert!(message.to_string().contains("initializer_range is -1"));
}

#[test]
fn a_message_does_not_repeat_a_megabyte() {
    let long = "x".repeat(1 << 20);
    for key in [
        "model_type",
        "hidden_act",
        "dtype",
        "vocab_size",
        "layer_types",
        "rope_parameters",
    ] {
        let mut config: Value = serde_json::from_str(&fixture_json("qwen3")).unwrap();
        config[key] = long.clone().into();
        let error = ModelConfig::from_json(&config.to_string()).unwrap_err();
        assert!(error.message().len() < 400, "{key}");
    }
    // Nested more deeply than the parser goes.
    let deep = format!("{{\"model_type\": {}", "[".repeat(100_000));
    assert!(ModelConfig::from_json(&deep).is_err());
}
