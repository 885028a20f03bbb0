//! Plans of models with layers, or parts of layers, that never train.

use burn::optim::AdamWConfig;

use super::*;
use crate::policy::Budget;

/// 32 by 512.
const MLP: u64 = 32 * 512;

/// Four layers of two matrices.
fn blocks() -> Blocks {
    let device = Device::flex().autodiff();
    let linear = |n| LinearConfig::new(32, n).with_bias(false).init(&device);
    let block = |_| Block {
        self_attn: linear(32),
        mlp: linear(512),
    };
    Blocks {
        layers: (0..4).map(block).collect(),
        head: linear(32),
    }
}

#[test]
fn layers_that_are_frozen_as_a_whole_are_never_active() {
    let net = net();
    let frozen = [
        "layers.0", "layers.1", "layers.2", "layers.3", "layers.4", "layers.5",
    ];
    let plan = |active, policy: PolicyConfig| {
        let config = LisaConfig::new()
            .with_active_layers(active)
            .with_policy(policy)
            .with_frozen(Some(ParamGroup::from_any_predicates(frozen.to_vec())));
        plan(&net, &config).unwrap()
    };
    let two = plan(2, PolicyConfig::Uniform);
    // Two layers, the embedding and the head; the other layers store what frozen layers do.
    assert_eq!(two.gradients, 4 * 1024 * 4);
    assert_eq!(two.activations, (6 + 2 * 2 + 1) * 4 * 32 * 4);
    let all = PolicyConfig::Budget(Budget::new().with_share(1.0));
    for (active, policy) in [
        (8, PolicyConfig::Uniform),
        (2, all),
        (2, PolicyConfig::Bernoulli(Vec::new())),
        (8, PolicyConfig::Bernoulli(vec![1.0; 8])),
        (2, PolicyConfig::Fixed((0..8).collect())),
    ] {
        let found = plan(active, policy.clone());
        assert_eq!(found, two, "{active}, {policy:?}");
    }
}

#[test]
fn matrices_that_never_train_are_quantized_in_active_layers_too() {
    let net = blocks();
    let of = |kind| {
        LisaConfig::new()
            .with_active_layers(4)
            .with_frozen_weights(kind)
            .with_frozen(Some(ParamGroup::from_predicate("mlp")))
    };
    let (int8, exact) = (of(FrozenWeights::Int8), of(FrozenWeights::Exact));
    let found = plan(&net, &int8).unwrap();
    assert_eq!(found.host, 4 * MLP * 4);
    // A byte for each element, and a scale for each 64.
    let quantized = 4 * (MLP + MLP / 64 * 4);
    let weights = plan(&net, &exact).unwrap().weights;
    assert_eq!(found.weights, weights - 4 * MLP * 4 + quantized);
    // A layer that is recomputed has its dequantized matrix.
    assert_eq!(found.at_peak_recomputed.temporary, MLP * 4);
    let (lisa, _) = int8.init(AdamWConfig::new(), net).unwrap();
    assert_eq!(lisa.memory().full_precision, found.host);
}

#[test]
fn layers_that_are_never_sampled_have_no_state() {
    let net = net();
    let plan = |policy: &PolicyConfig, on_freeze| {
        let config = LisaConfig::new()
            .with_policy(policy.clone())
            .with_on_freeze(on_freeze);
        plan(&net, &config).unwrap()
    };
    let only = |layers: &[usize]| -> Vec<f64> {
        let weight = |layer| f64::from(u8::from(layers.contains(&layer)));
        (0..8).map(weight).collect()
    };
    // Two layers are active. How many others can be sampled?
    for (policy, others) in [
        (PolicyConfig::Fixed(vec![1, 3]), 0),
        (PolicyConfig::Weighted(only(&[1, 3])), 0),
        (PolicyConfig::Weighted(only(&[1, 3, 5])), 1),
        (PolicyConfig::Bernoulli(only(&[1, 3])), 0),
        (PolicyConfig::Uniform, 6),
    ] {
        let state = others * 2 * 1024 * 4;
        let dropped = plan(&policy, OnFreeze::Drop);
        let kept = plan(&policy, OnFreeze::Keep);
        assert_eq!(kept.peak(), dropped.peak() + state, "{policy:?}");
        let offloaded = plan(&policy, OnFreeze::Offload);
        assert_eq!(offloaded.host, state, "{policy:?}");
    }
}
