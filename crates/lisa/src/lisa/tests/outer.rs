//! Parameters outside the layers that train in every n-th period only.

use super::*;
use crate::clip::clip;
use crate::policy::Gradient;
use crate::recompute::Recompute;

/// Steps in a period.
const PERIOD: usize = 2;
/// Bytes of two moments in f32.
const OUTER: u64 = 2 * 4 * (2 * WIDTH * WIDTH) as u64;
const ONE_LAYER: u64 = 2 * 4 * (WIDTH * WIDTH + WIDTH) as u64;

fn every(n: usize) -> LisaConfig {
    LisaConfig::new()
        .with_sampling_period(PERIOD)
        .with_outer_every(Some(n))
}

/// A weight decay that is large enough to see.
fn decayed() -> AdamWConfig {
    adamw().with_weight_decay(0.5)
}

fn is_outer(path: &str) -> bool {
    !path.starts_with("layers")
}

fn layered_step(lisa: &mut Lisa, model: Net, step: usize) -> Net {
    let pass = Recompute::new().forward(&model, &step);
    lisa.step_layered(0.05, model, pass)
}

#[test]
fn they_change_in_their_periods_and_keep_every_bit_in_the_others() {
    for layered in [false, true] {
        for n in [1, 2, 3] {
            let (mut lisa, mut model) = every(n).init(decayed(), net(&device())).unwrap();
            for step in 0..14 {
                let trains = (step / PERIOD).is_multiple_of(n);
                assert_eq!(lisa.outer_active(), trains, "{n}, step {step}");
                let layers = lisa.active_layers().iter();
                let mut expected: BTreeSet<String> = layers
                    .flat_map(|l| ["weight", "bias"].map(|name| format!("layers.{l}.{name}")))
                    .collect();
                if trains {
                    expected.extend(["embed.weight".into(), "head.weight".into()]);
                }
                let split = lisa.describe();
                assert_eq!(split.outside, if trains { 2 * WIDTH * WIDTH } else { 0 });
                assert_eq!(split.active, 2 * (WIDTH * WIDTH + WIDTH));
                assert_eq!(split.total(), model.num_params());
                assert_eq!(lisa.mask().len(), expected.len());
                let before = model.clone();
                if layered {
                    model = layered_step(&mut lisa, model, step);
                } else {
                    let grads = model.grads(step);
                    assert_eq!(grads.len(), expected.len());
                    model = lisa.step(0.05, model, grads);
                }
                assert_eq!(changed(&before, &model), expected, "{n}, step {step}");
            }
        }
    }
}

#[test]
fn their_state_exists_in_their_periods_only() {
    // Every layer is active, so all that changes is the state of the others.
    let config = every(3).with_active_layers(LAYERS);
    let layers = LAYERS as u64 * ONE_LAYER;
    for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
        for half_precision in [false, true] {
            let config = config.clone().with_on_freeze(on_freeze);
            let make = if half_precision { to_half } else { net };
            let (mut lisa, mut model) = config.init(decayed(), make(&device())).unwrap();
            for step in 0..14 {
                let grads = model.grads(step);
                model = lisa.step(0.05, model, grads);
                // A release at the end of a period is part of its last step.
                let trains = (step / PERIOD).is_multiple_of(3) && lisa.outer_active();
                let (on_device, on_host) = match on_freeze {
                    _ if trains => (OUTER, 0),
                    OnFreeze::Drop => (0, 0),
                    OnFreeze::Keep => (OUTER, 0),
                    OnFreeze::Offload => (0, OUTER),
                };
                let memory = lisa.memory();
                let master = |bytes: u64| if half_precision { bytes / 2 } else { 0 };
                let case = format!("{on_freeze:?}, half {half_precision}, step {step}");
                assert_eq!(memory.optimizer_state, layers + on_device, "{case}");
                assert_eq!(memory.master_weights, master(layers + on_device), "{case}");
                assert_eq!(memory.offloaded, on_host + master(on_host), "{case}");
            }
        }
    }
}

/// Takes the gradients of the parameters outside the layers out.
fn split(model: &Net, mut grads: GradientsParams) -> (GradientsParams, GradientsParams) {
    let mut outer = GradientsParams::new();
    for id in [model.embed.weight.id, model.head.weight.id] {
        if let Some(grad) = grads.remove::<2>(id) {
            outer.register(id, grad);
        }
    }
    (grads, outer)
}

#[test]
fn a_loop_by_hand_has_the_same_bits() {
    for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
        for max_norm in [None, Some(0.02)] {
            let config = every(3)
                .with_active_layers(LAYERS)
                .with_max_grad_norm(max_norm)
                .with_on_freeze(on_freeze);
            let (mut lisa, ours) = config.init(decayed(), net(&device())).unwrap();
            let ours = train(&mut lisa, ours, 0..18);

            let mut theirs = net(&device());
            let (mut layers, mut outer) = (decayed().init(), decayed().init());
            for step in 0..18 {
                let trains = (step / PERIOD).is_multiple_of(3);
                let (mut of_layers, mut of_outer) = split(&theirs, theirs.grads(step));
                if trains {
                    // One norm over both.
                    for id in [theirs.embed.weight.id, theirs.head.weight.id] {
                        let grad = of_outer.remove::<2>(id).unwrap();
                        of_layers.register(id, grad);
                    }
                }
                if let Some(max_norm) = max_norm {
                    clip(&theirs, &mut of_layers, max_norm);
                }
                let (of_layers, of_outer) = split(&theirs, of_layers);
                theirs = layers.step(0.05, theirs, of_layers);
                theirs = outer.step(0.05, theirs, of_outer);
                if on_freeze == OnFreeze::Drop && !trains {
                    outer = decayed().init();
                }
            }
            assert_eq!(ours.bits(), theirs.bits(), "{on_freeze:?}, {max_norm:?}");
        }
    }
}

#[test]
fn layered_steps_have_the_same_bits_and_make_no_gradient_of_them() {
    for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
        for make in [net, to_half] {
            let config = every(2).with_on_freeze(on_freeze);
            let (mut plain, mut a) = config.init(decayed(), make(&device())).unwrap();
            let (mut layered, mut b) = config.init(decayed(), make(&device())).unwrap();
            for step in 0..16 {
                let pass = Recompute::new().forward(&b, &step);
                let (_, outer) = split(&b, pass.backward(&b));
                let expected = if plain.outer_active() { 2 } else { 0 };
                assert_eq!(outer.len(), expected, "step {step}");
                let grads = a.grads(step);
                a = plain.step(0.05, a, grads);
                b = layered_step(&mut layered, b, step);
                assert_eq!(plain.memory(), layered.memory(), "step {step}");
            }
            assert_eq!(a.bits(), b.bits(), "{on_freeze:?}");
        }
    }
}

#[test]
fn gradients_from_before_a_period_in_which_they_are_frozen_are_ignored() {
    let (mut lisa, mut model) = init(&every(2).with_sampling_period(1));
    let mut accumulator = GradientsAccumulator::new();
    accumulator.accumulate(&model, model.grads(0));
    let grads = model.grads(0);
    model = lisa.step(0.05, model, grads);
    assert!(!lisa.outer_active());
    accumulator.accumulate(&model, model.grads(1));
    let before = model.clone();
    let model = lisa.step(0.05, model, accumulator.grads());
    let changed = changed(&before, &model);
    assert!(!changed.is_empty() && !changed.iter().any(|path| is_outer(path)));
    assert!(lisa.outer_active());
}

#[test]
fn a_run_that_is_stopped_in_any_period_resumes_with_the_same_bits() {
    let scored = every(2).with_policy(PolicyConfig::custom(Gradient::new()));
    for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
        for config in [every(3), scored.clone()] {
            let config = config.with_on_freeze(on_freeze);
            for at in 0..12 {
                resumes(&config, net, at);
            }
            resumes(&config, to_half, 5);
        }
    }
}

#[test]
fn a_period_in_which_they_are_frozen_has_an_active_layer() {
    let sparse = PolicyConfig::Bernoulli(vec![0.05; LAYERS]);
    let config = every(2).with_sampling_period(1).with_policy(sparse);
    let (mut lisa, mut model) = init(&config);
    let mut empty = 0;
    for step in 0..40 {
        assert!(lisa.outer_active() || !lisa.active_layers().is_empty());
        empty += usize::from(lisa.active_layers().is_empty());
        model = train(&mut lisa, model, step..step + 1);
    }
    assert!(empty > 5, "{empty}");

    let never = PolicyConfig::Bernoulli(vec![0.0; LAYERS]);
    let message = refusal(&every(2).with_policy(never));
    assert!(message.contains("probability 0 and no parameter outside the layers trains in every"));
    let message = refusal(&every(2).with_policy(PolicyConfig::Fixed(Vec::new())));
    assert!(message.contains("fixed has no layer and no parameter"));
    let outer = ParamGroup::from_any_predicates(vec!["embed", "head"]);
    let message = refusal(&every(2).with_frozen(Some(outer)));
    assert!(message.contains("outer_every is 2, and no parameter outside the layers can train"));
    let layers = ParamGroup::from_predicate("layers");
    let message = refusal(&every(2).with_frozen(Some(layers)));
    assert!(message.contains("outer_every is 2, and no parameter in the layers can train"));
}

#[test]
fn an_invalid_draw_leaves_something_to_train() {
    // The first period has no layer, and the second, in which the others are frozen, neither.
    let config = every(2).with_policy(PolicyConfig::custom(Fixed(&[&[]])));
    let (mut lisa, model) = init(&config);
    let model = train(&mut lisa, model, 0..PERIOD - 1);
    let grads = model.grads(1);
    let error = lisa.try_step(0.05, model, grads).unwrap_err();
    assert!(error.to_string().contains("drew no layer"), "{error}");
    let (model, _) = error.into_parts();
    assert!(lisa.outer_active());
    let before = model.clone();
    let after = train(&mut lisa, model, 2..3);
    let expected = BTreeSet::from(["embed.weight".to_string(), "head.weight".to_string()]);
    assert_eq!(changed(&before, &after), expected);
}

#[test]
fn fixed_layers_that_cannot_train_are_refused_before_the_run() {
    let refusal = |fixed: Vec<usize>| {
        let config = every(2)
            .with_policy(PolicyConfig::Fixed(fixed))
            .with_frozen(Some(ParamGroup::from_predicate("layers.0")));
        config.init(adamw(), net(&device())).map(|_| ())
    };
    let message = refusal(vec![0]).unwrap_err().to_string();
    assert!(
        message.contains("fixed has no layer that can train (its layers are [0])"),
        "{message}"
    );
    refusal(vec![0, 1]).unwrap();
}
