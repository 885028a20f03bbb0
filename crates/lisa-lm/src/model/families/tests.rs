use burn::tensor::{Device, FloatDType};
use serde_json::{Value, json};

use super::*;
use crate::error::{Error, ErrorKind};
use crate::model::config::{RopeConfig, RopeScaling};
use crate::test_support::{MODELS, fixture};

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
    let ModelConfig::Llama(config) = config else {
        unreachable!("a Llama was asked for");
    };
    config
}

fn gpt2(config: ModelConfig) -> Gpt2Config {
    let ModelConfig::Gpt2(config) = config else {
        unreachable!("a GPT-2 was asked for");
    };
    config
}

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
    for name in MODELS {
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
    let many = json!({
        "hidden_size": 128, "num_attention_heads": 64, "num_key_value_heads": null,
        "head_dim": null, "max_position_embeddings": null,
    });
    for (name, kv_heads, head_dim, positions) in [
        ("llama", 64, 2, 2048),
        ("mistral", 8, 2, 131_072),
        ("ministral", 8, 2, 131_072),
        ("qwen2", 32, 2, 32_768),
        ("qwen3", 32, 128, 32_768),
    ] {
        let config = llama(changed(name, many.clone()).unwrap());
        assert_eq!(config.num_key_value_heads, kv_heads, "{name}");
        assert_eq!(config.head_dim, head_dim, "{name}");
        assert_eq!(config.max_position_embeddings, positions, "{name}");
        // A key that is null: as many as query heads.
        let mut null: Value = serde_json::from_str(&fixture_json(name)).unwrap();
        null["num_key_value_heads"] = Value::Null;
        let config = llama(ModelConfig::from_json(&null.to_string()).unwrap());
        assert_eq!(config.num_key_value_heads, 4, "{name}");
    }
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
    assert_eq!(layers("ministral", json!({})), (Some(5), vec![true, false]));
    assert_eq!(
        layers(
            "ministral",
            json!({"layer_types": null, "sliding_window": null})
        ),
        (Some(4096), vec![true; 2])
    );
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
fn layers_without_the_window_survive_saving() {
    let types = json!({"layer_types": ["full_attention", "sliding_attention"]});
    for name in ["mistral", "ministral"] {
        let config = changed(name, types.clone()).unwrap();
        assert_eq!(config.model_type(), name);
        let text = config.to_json();
        let written: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(written["layer_types"], types["layer_types"]);
        assert_eq!(ModelConfig::from_json(&text).unwrap(), config);
    }
    // transformers reads a Mistral with this key as a Ministral.
    let plain = ModelConfig::from_json(&fixture_json("mistral")).unwrap();
    assert!(!plain.to_json().contains("layer_types"));
    let mixed = changed("mistral", types).unwrap().to_json();
    let again = rewritten(&mixed, &plain).unwrap();
    assert_eq!(ModelConfig::from_json(&again).unwrap(), plain);
    let ministral = ModelConfig::from_json(&fixture_json("ministral")).unwrap();
    assert!(ministral.to_json().contains("\"MinistralForCausalLM\""));
}

#[test]
fn yarn_is_read_with_the_defaults_of_transformers() {
    let of = |change: &Value, outside: Value| {
        let mut rope = json!({"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0,
            "original_max_position_embeddings": 32768});
        for (key, value) in change.as_object().unwrap() {
            rope[key] = value.clone();
        }
        let mut config = json!({"max_position_embeddings": 131_072, "rope_scaling": rope});
        config["rope_parameters"] = Value::Null;
        config["original_max_position_embeddings"] = outside;
        let config = changed("qwen3", config).unwrap();
        assert_eq!(ModelConfig::from_json(&config.to_json()).unwrap(), config);
        llama(config).rope
    };
    let check = |rope: RopeConfig, factor: f64, fourth: f64| {
        assert!((rope.attention_factor() - factor).abs() < 1e-9, "{rope:?}");
        let found = rope.frequencies(16)[3];
        assert!((found - fourth).abs() < 1e-6 * fourth, "{rope:?}: {found}");
    };
    // transformers 5.23.0: attention_scaling and inv_freq[3] of Qwen3RotaryEmbedding, head_dim 16.
    for (change, factor, fourth) in [
        // DeepSeek-R1-0528-Qwen3-8B; transformers does not use this key.
        (
            json!({"attn_factor": 0.8782}),
            1.138629436111989,
            4.217559937e-03,
        ),
        (
            json!({"truncate": false}),
            1.138629436111989,
            5.517270416e-03,
        ),
        (
            json!({"truncate": null}),
            1.138629436111989,
            5.517270416e-03,
        ),
        (
            json!({"beta_fast": 8, "beta_slow": 2}),
            1.138629436111989,
            5.623413250e-03,
        ),
        (
            json!({"beta_fast": 0, "beta_slow": 0}),
            1.138629436111989,
            4.217559937e-03,
        ),
        (
            json!({"mscale": 0.707, "mscale_all_dim": 1.0}),
            0.964326914892074,
            4.217559937e-03,
        ),
        (
            json!({"mscale": 0.707, "mscale_all_dim": 0}),
            1.138629436111989,
            4.217559937e-03,
        ),
        (json!({"attention_factor": 0.5}), 0.5, 4.217559937e-03),
        (
            json!({"factor": null, "original_max_position_embeddings": 16384}),
            1.2079441541679836,
            3.983250819e-03,
        ),
        (json!({"factor": 1.0}), 1.0, 5.623413250e-03),
        // As an absent one: max_position_embeddings.
        (
            json!({"original_max_position_embeddings": null}),
            1.138629436111989,
            5.623413250e-03,
        ),
    ] {
        check(of(&change, Value::Null), factor, fourth);
    }
    let outside = of(&json!({}), json!(4096));
    check(outside, 1.138629436111989, 2.811706625e-03);
}

#[test]
fn dynamic_scaling_is_kept() {
    let rope = json!({"type": "dynamic", "factor": 2.0});
    let config = changed("llama", json!({ "rope_parameters": rope })).unwrap();
    assert_eq!(ModelConfig::from_json(&config.to_json()).unwrap(), config);
    let expected = RopeScaling::Dynamic { factor: 2.0 };
    assert_eq!(llama(config).rope.scaling, expected);
}

#[test]
fn two_objects_of_rotary_positions_must_not_differ() {
    let rope = |factor: f64| json!({"rope_type": "linear", "rope_theta": 5e5, "factor": factor});
    let both = |scaling: Value, parameters: Value| {
        let mut config: Value = serde_json::from_str(&fixture_json("llama")).unwrap();
        config["rope_scaling"] = scaling;
        config["rope_parameters"] = parameters;
        ModelConfig::from_json(&config.to_string())
    };
    let error = both(rope(2.0), rope(4.0)).unwrap_err();
    for key in ["rope_scaling", "rope_parameters"] {
        assert!(error.message().contains(key), "{error}");
    }
    for (scaling, parameters) in [
        (rope(2.0), rope(2.0)),
        (json!({}), rope(2.0)),
        (rope(2.0), json!({})),
        (Value::Null, rope(2.0)),
        (rope(2.0), Value::Null),
    ] {
        let rope = llama(both(scaling, parameters).unwrap()).rope;
        let expected = RopeScaling::Linear { factor: 2.0 };
        assert_eq!((rope.theta, rope.scaling), (5e5, expected));
    }
    let none = llama(both(json!({}), Value::Null).unwrap()).rope;
    assert_eq!(none, RopeConfig::new(10_000.0));
}

#[test]
fn rotary_positions_for_each_kind_of_layer_are_refused() {
    let of = |theta: f64| json!({"rope_type": "default", "rope_theta": theta});
    let nested = json!({"full_attention": of(1e6), "sliding_attention": of(1e4)});
    let error = changed("ministral", json!({"rope_parameters": nested})).unwrap_err();
    assert!(
        error
            .message()
            .ends_with("has full_attention, sliding_attention"),
        "{error}"
    );
}

#[test]
fn options_of_gpt2_that_change_the_scores_are_read() {
    let with = |changes: Value| gpt2(changed("gpt2", changes).unwrap());
    let plain = with(json!({}));
    assert!(!plain.scale_attn_by_inverse_layer_idx);
    // In f32 these two change nothing.
    let same = json!({"reorder_and_upcast_attn": true, "activation_function": "gelu_fast"});
    assert_eq!(with(same), plain);
    let scaled = with(json!({"scale_attn_by_inverse_layer_idx": true}));
    assert!(scaled.scale_attn_by_inverse_layer_idx);
    let again = ModelConfig::Gpt2(scaled.clone()).to_json();
    assert_eq!(gpt2(ModelConfig::from_json(&again).unwrap()), scaled);
}

#[test]
fn the_help_of_an_option_says_whether_it_is_wrong_or_not_computed() {
    let not_computed = [
        ("llama", json!({"hidden_act": "relu"})),
        ("llama", json!({"partial_rotary_factor": 0.5})),
        (
            "llama",
            json!({"rope_parameters": {"rope_type": "longrope"}}),
        ),
        ("llama", json!({"dtype": "float8_e4m3fn"})),
        (
            "qwen2",
            json!({"layer_types": ["full_attention", "chunked"]}),
        ),
        ("gpt2", json!({"activation_function": "relu"})),
        ("gpt2", json!({"scale_attn_weights": false})),
    ];
    for (name, changes) in not_computed {
        let error = changed(name, changes).unwrap_err();
        let help = error.help().unwrap();
        assert!(help.contains("does not compute it"), "{error}");
    }
    let error = changed("llama", json!({"head_dim": 15})).unwrap_err();
    assert!(error.help().unwrap().contains("correct it"), "{error}");
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
            rope(json!({"rope_type": "longrope", "factor": 2.0})),
            "rope type \"longrope\"",
        ),
        ("llama", rope(json!({"rope_type": "yarn"})), "needs factor"),
        (
            "llama",
            rope(json!({"rope_type": "yarn", "factor": 2.0, "beta_fast": -1.0})),
            "give positive numbers",
        ),
        (
            "llama",
            rope(json!({"rope_type": "yarn", "factor": 2.0, "rope_theta": 1.0})),
            "rope_theta above 1",
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
            json!({"scale_attn_weights": false}),
            "scale_attn_weights",
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
fn the_help_lists_every_supported_model_type() {
    let error = changed("llama", json!({"model_type": "mamba"})).unwrap_err();
    let names = "llama, mistral, ministral, qwen2, qwen3, gpt2";
    assert_eq!(error.help(), Some(format!("use one of {names}").as_str()));
    for name in names.split(", ") {
        let config = ModelConfig::from_json(&fixture_json(name)).unwrap();
        assert_eq!(config.model_type(), name);
    }
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
    let both = five.replacen('{', r#"{"torch_dtype": "float32", "#, 1);
    let half = with(&both, &f16);
    assert_eq!(
        (&half["dtype"], &half["torch_dtype"]),
        (&json!("float16"), &json!("float16"))
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
    // Other rotary positions: transformers would prefer the old key.
    let plain = with(&four, &|config| {
        if let ModelConfig::Llama(config) = config {
            config.rope = RopeConfig::new(100.0);
        }
    });
    assert_eq!(plain.get("rope_scaling"), None);
    assert_eq!(plain["rope_parameters"]["rope_theta"], 100.0);
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
    for (kind, expected) in [
        (LlamaKind::Llama, [true, true, false]),
        (LlamaKind::Mistral, [false; 3]),
        (LlamaKind::Ministral, [false; 3]),
        (LlamaKind::Qwen2, [true, false, false]),
        (LlamaKind::Qwen3, [true; 3]),
    ] {
        let mut config = LlamaConfig::new(64, 16, 2, 2);
        (config.kind, config.attention_bias) = (kind, true);
        let found = [config.qkv_bias(), config.o_bias(), config.qk_norm()];
        assert_eq!(found, expected, "{kind:?}");
        config.attention_bias = false;
        let found = [config.qkv_bias(), config.o_bias()];
        assert_eq!(found, [kind == LlamaKind::Qwen2, false], "{kind:?}");
    }
}

#[test]
fn each_architecture_writes_the_keys_that_it_has_in_transformers() {
    let optional = [
        "attention_bias",
        "layer_types",
        "mlp_bias",
        "sliding_window",
        "use_sliding_window",
    ];
    for (kind, has) in [
        (LlamaKind::Llama, [true, false, true, false, false]),
        (LlamaKind::Mistral, [false, false, false, true, false]),
        (LlamaKind::Ministral, [false, true, false, true, false]),
        (LlamaKind::Qwen2, [false, true, false, true, true]),
        (LlamaKind::Qwen3, [true, true, false, true, true]),
    ] {
        let mut config = LlamaConfig::new(64, 16, 2, 2);
        config.kind = kind;
        let text = ModelConfig::Llama(config).to_json();
        let written: Value = serde_json::from_str(&text).unwrap();
        let found = optional.map(|key| written.get(key).is_some());
        assert_eq!(found, has, "{kind:?}");
    }
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
