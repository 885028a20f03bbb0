//! The settings of a run as the configuration of LISA.

use burn::module::ParamId;
use burn::tensor::Device;
use lisa::importance::Scores;
use lisa::optimizer::Decay;
use lisa::policy::{Budget, CyclicOrder, Gradient};
use lisa::{FrozenWeights, LisaConfig, OnFreeze, PolicyConfig};
use lisa_lm::ModelConfig;
use lisa_lm::model::LoraConfig;
use lisa_lm::model::config::LlamaConfig;

use crate::settings::{Flags, Method, Moments, Order, Policy, Quantize, Settings};
use crate::train::method::trainer::{lisa_config, prepared};

/// The configuration for a model of six layers.
fn config(settings: &Settings) -> LisaConfig {
    let model = ModelConfig::Llama(LlamaConfig::new(16, 8, 6, 2));
    let model = model.init(&Device::flex()).unwrap();
    lisa_config(settings, &model).unwrap()
}

/// No setting of LISA has its default. A run would refuse some of them together.
fn changed() -> Settings {
    let mut settings = Flags::default().resolve(None).unwrap();
    let method = &mut settings.method;
    (method.active_layers, method.period) = (3, 7);
    (method.policy, method.share) = (Policy::Budget, 0.5);
    (method.outer_every, method.layer_warmup) = (4, 5);
    (method.moments, method.unbiased) = (Moments::Offload, true);
    method.freeze = vec!["embed".into(), "lm_head".into()];
    method.split = vec!["attn".into()];
    settings.memory.no_master_weights = true;
    settings.memory.quantize = Quantize::Int4;
    settings.training.seed = 9;
    settings.training.decay_all = true;
    settings.training.max_grad_norm = 0.5;
    settings
}

#[test]
fn every_setting_of_lisa_is_in_its_configuration() {
    let found = config(&changed());
    assert_eq!((found.active_layers, found.sampling_period), (3, 7));
    assert_eq!((found.outer_every, found.layer_warmup), (Some(4), Some(5)));
    assert_eq!(found.seed, 9);
    let budget = Budget::new().with_share(0.5);
    assert_eq!(found.policy, PolicyConfig::Budget(budget));
    assert_eq!(found.split, ["attn"]);
    assert_eq!(found.on_freeze, OnFreeze::Offload);
    assert_eq!(found.frozen_weights, FrozenWeights::Int4);
    assert_eq!(found.decay, Decay::All);
    assert_eq!(found.max_grad_norm, Some(0.5));
    assert!(found.unbiased && !found.master_weights);
    let frozen = found.frozen.unwrap();
    for (path, is_frozen) in [
        ("model.embed_tokens.weight", true),
        ("lm_head.weight", true),
        ("model.norm.gamma", false),
    ] {
        let found = frozen.matches(&ParamId::new(), Some(path));
        assert_eq!(found, is_frozen, "{path}");
    }
}

#[test]
fn the_defaults_of_the_program_are_in_the_configuration() {
    let mut settings = Flags::default().resolve(None).unwrap();
    let found = config(&settings);
    assert!(found.master_weights && !found.unbiased && found.frozen.is_none());
    assert_eq!(found.decay, Decay::Matrices);
    assert_eq!(found.max_grad_norm, Some(1.0));
    // 0 is no clipping.
    settings.training.max_grad_norm = 0.0;
    assert_eq!(config(&settings).max_grad_norm, None);
}

#[test]
fn each_word_of_a_setting_is_the_value_of_its_name() {
    let mut settings = Flags::default().resolve(None).unwrap();
    for (moments, expected) in [
        (Moments::Drop, OnFreeze::Drop),
        (Moments::Keep, OnFreeze::Keep),
        (Moments::Offload, OnFreeze::Offload),
    ] {
        settings.method.moments = moments;
        assert_eq!(config(&settings).on_freeze, expected);
    }
    for (quantize, expected) in [
        (Quantize::None, FrozenWeights::Exact),
        (Quantize::Int8, FrozenWeights::Int8),
        (Quantize::Int4, FrozenWeights::Int4),
    ] {
        settings.memory.quantize = quantize;
        assert_eq!(config(&settings).frozen_weights, expected);
    }
    settings.method.policy = Policy::Cyclic;
    for (order, expected) in [
        (Order::Ascending, CyclicOrder::Ascending),
        (Order::Descending, CyclicOrder::Descending),
        (Order::Shuffled, CyclicOrder::Reshuffled),
    ] {
        settings.method.order = order;
        assert_eq!(config(&settings).policy, PolicyConfig::Cyclic(expected));
    }
    settings.method.probabilities = vec![0.25, 0.5];
    settings.method.fixed_layers = vec![1, 5];
    for (policy, expected) in [
        (Policy::Uniform, PolicyConfig::Uniform),
        (Policy::Bernoulli, PolicyConfig::Bernoulli(vec![0.25, 0.5])),
        (Policy::Weighted, PolicyConfig::Weighted(vec![0.25, 0.5])),
        (Policy::Gradient, PolicyConfig::Gradient(Gradient::new())),
        (Policy::Fixed, PolicyConfig::Fixed(vec![1, 5])),
    ] {
        settings.method.policy = policy;
        assert_eq!(config(&settings).policy, expected);
    }
}

#[test]
fn scores_of_a_file_are_weights_and_for_bernoulli_probabilities() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("importance.json");
    let scores = [1.0, 1.0, 2.0].map(|score| ("layer".to_owned(), score));
    let scores = Scores {
        by: "gradient".to_owned(),
        observations: 1,
        layers: scores.to_vec(),
    };
    scores.save(&path).unwrap();
    let mut settings = Flags::default().resolve(None).unwrap();
    (settings.method.importance, settings.method.active_layers) = (path, 1);
    settings.method.policy = Policy::Weighted;
    let weights = PolicyConfig::Weighted(vec![0.5, 0.5, 1.0]);
    assert_eq!(config(&settings).policy, weights);
    // Their sum is the number of active layers.
    settings.method.policy = Policy::Bernoulli;
    let probabilities = PolicyConfig::Bernoulli(vec![0.25, 0.25, 0.5]);
    assert_eq!(config(&settings).policy, probabilities);
}

#[test]
fn full_training_and_lora_are_lisa_with_all_layers_in_every_step() {
    for method in [Method::Full, Method::Lora] {
        let mut settings = changed();
        settings.method.method = method;
        let found = config(&settings);
        assert_eq!(found.active_layers, 6, "{method}");
        assert_eq!(found.policy, PolicyConfig::Uniform, "{method}");
        assert_eq!((found.outer_every, found.layer_warmup), (None, None));
        assert!(found.split.is_empty() && !found.unbiased, "{method}");
    }
}

#[test]
fn every_setting_of_lora_is_in_its_configuration() {
    let mut settings = changed();
    let method = &mut settings.method;
    (method.method, method.rslora) = (Method::Lora, true);
    (method.lora_rank, method.lora_alpha, method.lora_dropout) = (2, 3.0, 0.5);
    method.lora_target_modules = vec!["q_proj".into(), "v_proj".into()];
    let config = |settings: &Settings| {
        let model = ModelConfig::Llama(LlamaConfig::new(16, 8, 1, 2));
        let model = model.init(&Device::flex()).unwrap();
        prepared(settings, model).unwrap().lora().unwrap().clone()
    };
    let mut expected = LoraConfig {
        rank: 2,
        alpha: 3.0,
        dropout: 0.5,
        rslora: true,
        modules: vec!["q_proj".into(), "v_proj".into()],
        seed: 9,
    };
    assert_eq!(config(&settings), expected);
    settings.method.lora_target_modules = vec!["all-linear".into()];
    expected.modules = Vec::new();
    assert_eq!(config(&settings), expected);
}
