//! Models whose gradient requirements are not those of the run: other periods, files, other runs, and
//! layers that the caller has frozen.

use super::*;

/// One layer in each period of one step: 0, 1, 1.
fn run() -> (Lisa, Net) {
    let policy = PolicyConfig::custom(Fixed(&[&[0], &[1], &[1]]));
    init(
        &LisaConfig::new()
            .with_sampling_period(1)
            .with_policy(policy),
    )
}

fn requiring(model: &Net) -> Vec<bool> {
    let layers = model.layers.iter();
    layers.map(|l| l.weight.is_require_grad()).collect()
}

/// Freezes these layers.
fn without(mut model: Net, layers: &[usize]) -> Net {
    for &layer in layers {
        let frozen = model.layers[layer].clone();
        model.layers[layer] = Linear {
            weight: frozen.weight.set_require_grad(false),
            bias: frozen.bias.map(|bias| bias.set_require_grad(false)),
        };
    }
    model
}

#[test]
fn a_clone_of_another_period_is_refused_and_taken_with_its_lisa() {
    let (mut lisa, start) = run();
    let earlier = (lisa.clone(), start.clone());
    let model = train(&mut lisa, start.clone(), 0..1);
    assert_eq!(lisa.active_layers(), [1]);
    let grads = start.grads(1);
    let error = lisa.try_step(0.05, start, grads).unwrap_err();
    let message = error.error().message();
    assert!(message.contains("2 parameters that train in this period require no gradients"));
    assert!(message.contains("first `layers.1.weight`"), "{message}");
    assert!(!error.is_updated() && lisa.steps() == 1);
    // The run continues, and so does the earlier one.
    let model = train(&mut lisa, model, 1..4);
    let (mut lisa, start) = earlier;
    assert_eq!(train(&mut lisa, start, 0..4).bits(), model.bits());
}

#[test]
fn frozen_layers_of_a_model_from_a_file_stop_requiring_gradients() {
    let (mut lisa, model) = run();
    let mut loaded = net(&device()).load_record(model.into_record());
    assert_eq!(requiring(&loaded), [true; LAYERS]);
    loaded = train(&mut lisa, loaded, 0..1);
    let expected = [false, true, false, false, false, false];
    assert_eq!(requiring(&loaded), expected);
    // In the middle of a period as well.
    let (mut lisa, model) = init(&LisaConfig::new());
    let expected = requiring(&model);
    let loaded = net(&device()).load_record(model.into_record());
    let loaded = train(&mut lisa, loaded, 0..1);
    assert_eq!(requiring(&loaded), expected);
}

#[test]
fn a_model_is_unfrozen_for_another_run() {
    let model = without(net(&device()), &[2]);
    let before = requiring(&model);
    let frozen = ParamGroup::from_predicate("embed");
    let config = LisaConfig::new().with_frozen(Some(frozen));
    let (mut lisa, model) = config.init(adamw(), model).unwrap();
    let model = train(&mut lisa, model, 0..3);
    assert_eq!(requiring(&model).iter().filter(|on| **on).count(), 2);
    let model = lisa.unfreeze(model).unwrap();
    assert_eq!(requiring(&model), before);
    assert!(model.embed.weight.is_require_grad() && model.head.weight.is_require_grad());
    // Under other ids as well.
    let model = lisa.unfreeze(reloaded(&model, net)).unwrap();
    assert_eq!(requiring(&model), before);
    let mut other = net(&device());
    other.layers.pop();
    assert!(lisa.unfreeze(other).is_err());
}

#[test]
fn layers_that_the_caller_has_frozen_are_not_sampled() {
    let policies = [
        PolicyConfig::Uniform,
        PolicyConfig::Bernoulli(Vec::new()),
        PolicyConfig::Bernoulli(vec![1.0; LAYERS]),
        PolicyConfig::Weighted(vec![9.0, 9.0, 9.0, 1.0, 1.0, 1.0]),
        PolicyConfig::Cyclic(crate::policy::CyclicOrder::Ascending),
        PolicyConfig::Cyclic(crate::policy::CyclicOrder::Reshuffled),
        PolicyConfig::Gradient(crate::policy::Gradient::new()),
        PolicyConfig::Budget(crate::policy::Budget::new().with_share(0.7)),
    ];
    // Where nothing else trains, a period without them would train nothing.
    let outside = ParamGroup::from_any_predicates(vec!["embed", "head"]);
    let config = LisaConfig::new()
        .with_sampling_period(1)
        .with_frozen(Some(outside));
    for policy in policies {
        let config = config.clone().with_policy(policy.clone());
        let model = without(net(&device()), &[0, 1, 2]);
        let (mut lisa, mut model) = config.init(adamw(), model).unwrap();
        let mut seen = BTreeSet::new();
        for step in 0..40 {
            let active = lisa.active_layers().to_vec();
            assert!(
                !active.is_empty() && active.iter().all(|l| *l > 2),
                "{policy:?}: {active:?}"
            );
            if !matches!(policy, PolicyConfig::Bernoulli(_) | PolicyConfig::Cyclic(_)) {
                assert_eq!(active.len(), 2, "{policy:?}");
            }
            seen.extend(active);
            model = train(&mut lisa, model, step..step + 1);
        }
        assert_eq!(seen, BTreeSet::from([3, 4, 5]), "{policy:?}");
    }
    // More active layers than can train: all of those.
    let all = config.with_active_layers(5);
    let (lisa, _) = all
        .init(adamw(), without(net(&device()), &[0, 1, 2]))
        .unwrap();
    assert_eq!(lisa.active_layers(), [3, 4, 5]);
}

#[test]
fn gradients_are_divided_by_the_probabilities_of_the_layers_that_can_train() {
    use crate::policy::{Draw, SamplingPolicy, Scores, Uniform, Weighted};
    let draw = Draw::new(1, 0, 4, 1).with_scores(Scores::new([0, 10, 10, 0]));
    assert_eq!(draw.trainable_layers(), [1, 2]);
    let half = Some(vec![0.0, 0.5, 0.5, 0.0]);
    assert_eq!(Uniform.inclusion(&draw), half);
    assert_eq!(Bernoulli::default().inclusion(&draw), half);
    assert_eq!(
        Weighted::new(vec![7.0, 1.0, 1.0, 7.0]).inclusion(&draw),
        half
    );
    let message = Weighted::new(vec![7.0, 0.0, 0.0, 7.0])
        .validate(&draw)
        .unwrap_err()
        .to_string();
    assert!(message.contains("0 of 4 weights are positive and of layers that can train"));
}
