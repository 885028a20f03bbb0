//! The learning rate of a layer that becomes active rises over the first steps of its period.

use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};

use super::*;
use crate::policy::Gradient;
use crate::recompute::Recompute;

/// The layers of the periods.
const DRAWS: &[&[usize]] = &[&[0, 1], &[1, 2], &[2, 3], &[3, 4]];

/// Warms up over three of four steps.
fn warmed() -> LisaConfig {
    LisaConfig::new()
        .with_sampling_period(4)
        .with_layer_warmup(Some(3))
        .with_outer_every(Some(2))
}

fn take(net: &Net, grads: &mut GradientsParams, layers: &[usize], outer: bool) -> GradientsParams {
    let mut taken = GradientsParams::new();
    let mut weights: Vec<ParamId> = layers.iter().map(|&l| net.layers[l].weight.id).collect();
    if outer {
        weights.extend([net.embed.weight.id, net.head.weight.id]);
    }
    for id in weights {
        taken.register(id, grads.remove::<2>(id).unwrap());
    }
    for &layer in layers {
        let id = net.layers[layer].bias.as_ref().unwrap().id;
        taken.register(id, grads.remove::<1>(id).unwrap());
    }
    taken
}

#[test]
fn a_loop_by_hand_has_the_same_bits() {
    let policy = PolicyConfig::custom(Fixed(DRAWS));
    let config = warmed().with_policy(policy).with_on_freeze(OnFreeze::Keep);
    let (mut lisa, mut ours) = init(&config);
    let (mut layered, mut during) = init(&config);
    let (mut plain, mut theirs) = (adamw().init(), net(&device()));
    for step in 0..32 {
        let (period, of_period) = (step / 4, step % 4 + 1);
        let factor = [1.0 / 3.0, 2.0 / 3.0, 1.0, 1.0][of_period - 1];
        let mut grads = theirs.grads(step);
        let active = DRAWS[period % 4];
        let before = if period == 0 {
            active
        } else {
            DRAWS[(period - 1) % 4]
        };
        let (old, new): (Vec<usize>, Vec<usize>) =
            active.iter().partition(|layer| before.contains(layer));
        let outer = period % 2 == 0;
        let new = take(&theirs, &mut grads, &new, outer && period > 0);
        let old = take(&theirs, &mut grads, &old, outer && period == 0);
        theirs = plain.step(0.05 * factor, theirs, new);
        theirs = plain.step(0.05, theirs, old);

        let grads = ours.grads(step);
        ours = lisa.step(0.05, ours, grads);
        let pass = Recompute::new().forward(&during, &step);
        during = layered.step_layered(0.05, during, pass);
        assert_eq!(ours.bits(), theirs.bits(), "step {step}");
        assert_eq!(during.bits(), theirs.bits(), "step {step}");
    }
}

#[test]
fn learning_rates_of_groups_are_multiplied_as_well() {
    let rates = || -> ModuleLearningRate {
        let group = ParamGroup::from_predicate("bias");
        ModuleLrScheduler::new(0.01).with_group(group, 0.04).step()
    };
    let policy = || PolicyConfig::custom(Fixed(DRAWS));
    let after = |config: LisaConfig| {
        let config = config.with_sampling_period(4).with_policy(policy());
        let (mut lisa, model) = config.init(SgdConfig::new(), net(&device())).unwrap();
        let before = train(&mut lisa, model, 0..4);
        let grads = before.grads(4);
        (before.bits(), lisa.step(rates(), before, grads).bits())
    };
    let (begin, full) = after(LisaConfig::new());
    let (same, third) = after(warmed().with_outer_every(None));
    assert_eq!(begin, same);
    let value = |bits: &[(String, Vec<u32>)], i: usize, k: usize| f32::from_bits(bits[i].1[k]);
    for (i, (path, bits)) in begin.iter().enumerate() {
        for k in 0..bits.len() {
            let begin = value(&begin, i, k);
            let (full, third) = (value(&full, i, k) - begin, value(&third, i, k) - begin);
            // Layer 1 was active before, and layer 2 was not.
            let factor = if path.starts_with("layers.2") {
                3.0
            } else {
                1.0
            };
            assert!(
                (full - factor * third).abs() < 1e-6,
                "{path}: {full} {third}"
            );
        }
    }
    assert_ne!(full, third);
}

#[test]
fn a_run_resumes_in_the_warm_up_with_the_same_bits() {
    let scored = PolicyConfig::Gradient(Gradient::new());
    for config in [warmed(), warmed().with_policy(scored)] {
        for at in 0..12 {
            resumes(&config, net, at);
        }
    }
}

#[test]
fn a_warm_up_of_one_step_changes_no_bit() {
    let run = |warmup| {
        let (mut lisa, model) = init(&warmed().with_layer_warmup(warmup));
        train(&mut lisa, model, 0..16).bits()
    };
    let none = run(None);
    assert_eq!((run(Some(0)), run(Some(1))), (none.clone(), none.clone()));
    assert_ne!(run(Some(2)), none);
}
