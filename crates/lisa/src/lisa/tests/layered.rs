//! Steps during the backward pass are bit-identical to steps after it.

use super::*;
use crate::recompute::{LayeredModel, Recompute};

/// The step with an input of up to 1e30.
const LARGE: usize = 1000;

impl LayeredModel for Net {
    /// The step, of which the input is made.
    type Batch = usize;
    type Context = ();

    fn context(&self, _: &usize) {}

    fn num_layers(&self) -> usize {
        self.layers.len()
    }

    fn embed(&self, step: &usize, (): &()) -> Tensor<3> {
        let size = if *step == LARGE { 1e30 } else { 1.0 };
        let values: Vec<f32> = (0..2 * WIDTH)
            .map(|i| ((i + 3 * step) as f32).cos() * size)
            .collect();
        let weight = self.embed.weight.val();
        let x = Tensor::<1>::from_floats(values.as_slice(), &weight.device());
        self.embed
            .forward(x.reshape([1, 2, WIDTH]).cast(weight.dtype()))
    }

    fn layer(&self, index: usize, h: Tensor<3>, (): &()) -> Tensor<3> {
        h.clone() + self.layers[index].forward(h).tanh()
    }

    fn visit_layer<V: ModuleVisitor>(&self, index: usize, visitor: &mut V) {
        self.layers[index].visit(visitor);
    }

    fn head_loss(&self, h: Tensor<3>, _: &usize, (): &()) -> Tensor<1> {
        self.head.forward(h).cast(FloatDType::F32).square().mean()
    }
}

#[test]
fn steps_during_backward_are_those_behind_it_bit_for_bit() {
    for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
        for half_precision in [false, true] {
            let config = LisaConfig::new()
                .with_sampling_period(3)
                .with_on_freeze(on_freeze);
            let make = if half_precision { to_half } else { net };
            let (mut plain, mut a) = config.init(adamw(), make(&device())).unwrap();
            let (mut layered, mut b) = config.init(adamw(), make(&device())).unwrap();
            for step in 0..40 {
                let grads = a.grads(step);
                a = plain.step(0.05, a, grads);
                let pass = Recompute::new().forward(&b, &step);
                b = layered.step_layered(0.05, b, pass);
                assert_eq!(plain.active_layers(), layered.active_layers());
                assert_eq!(
                    plain.memory().optimizer_state,
                    layered.memory().optimizer_state
                );
            }
            assert_eq!(a.bits(), b.bits(), "{on_freeze:?}, half {half_precision}");
            assert_eq!(layered.steps(), 40);
        }
    }
}

#[test]
fn policies_see_the_same_gradients_during_backward() {
    for (name, config) in policies::table() {
        let (mut plain, mut a) = init(&config);
        let (mut layered, mut b) = init(&config);
        for step in 0..30 {
            let grads = a.grads(step);
            a = plain.step(0.05, a, grads);
            let pass = Recompute::new().forward(&b, &step);
            b = layered.step_layered(0.05, b, pass);
            assert_eq!(plain.active_layers(), layered.active_layers(), "{name}");
        }
        assert_eq!(a.bits(), b.bits(), "{name}");
        assert_eq!(plain.scores(), layered.scores(), "{name}");
    }
}

#[test]
fn a_norm_over_all_gradients_is_refused_during_backward() {
    let config = LisaConfig::new().with_max_grad_norm(Some(1.0));
    let (mut lisa, model) = init(&config);
    let pass = Recompute::new().forward(&model, &0);
    let error = lisa.try_step_layered(0.1, model, pass).unwrap_err();
    assert!(error.to_string().contains("max_grad_norm"), "{error}");
    assert_eq!(lisa.steps(), 0);
}

#[test]
fn a_gradient_that_is_not_finite_is_refused_before_its_part_is_updated() {
    // The input is 1e30 times as large as usual, and the weight as small.
    let start = || {
        let mut model = net(&device());
        let small = |weight: Tensor<2>| weight.mul_scalar(1e-30).detach().require_grad();
        model.embed.weight = model.embed.weight.map(small);
        LisaConfig::new().init(adamw(), model).unwrap()
    };
    let all_finite = |model: &Net| {
        let bits = model.bits();
        bits.iter()
            .all(|(_, bits)| bits.iter().all(|bits| f32::from_bits(*bits).is_finite()))
    };
    for (factor, expected) in [(1e10, true), (1e38, false)] {
        let (mut lisa, model) = start();
        let before = model.clone();
        let pass = Recompute::new().forward(&model, &LARGE);
        assert!(pass.loss().into_scalar::<f32>().is_finite());
        let pass = pass.scale(factor).scale(factor / 1e10 + 1.0);
        let error = lisa
            .try_step_layered_checked(0.05, model, pass)
            .unwrap_err();
        assert_eq!(error.error().kind(), crate::ErrorKind::Gradient);
        assert_eq!(error.is_updated(), expected, "{error}");
        assert_eq!(lisa.steps(), 0);
        let message = error.to_string();
        assert!(
            message.contains("gradient of step 1 is not finite"),
            "{message}"
        );
        let model = error.into_model();
        assert!(all_finite(&model));
        let mut changed = changed(&before, &model);
        if expected {
            // Of the embedding alone the gradient is infinite.
            assert!(message.contains("already updated"), "{message}");
            assert!(message.contains("first of `embed.weight`"), "{message}");
            assert!(changed.remove("head.weight"), "{changed:?}");
            assert_eq!(changed.len(), 4, "{changed:?}");
        }
        assert!(!changed.contains("embed.weight") && expected != changed.is_empty());
    }
    // Without a check the weights are destroyed.
    let (mut lisa, model) = start();
    let pass = Recompute::new().forward(&model, &LARGE).scale(1e10);
    assert!(!all_finite(&lisa.step_layered(0.05, model, pass)));
    // Finite gradients are those of an unchecked step.
    let ((mut checked, a), (mut plain, b)) = (start(), start());
    let (pass, same) = (
        Recompute::new().forward(&a, &0),
        Recompute::new().forward(&b, &0),
    );
    let a = checked.try_step_layered_checked(0.05, a, pass).unwrap();
    assert_eq!(a.bits(), plain.step_layered(0.05, b, same).bits());
}

#[test]
fn a_frozen_embedding_and_head_leave_the_layers_alone_to_train() {
    let frozen = ParamGroup::from_any_predicates(vec!["embed", "head"]);
    let config = LisaConfig::new().with_frozen(Some(frozen));
    let (mut lisa, model) = init(&config);
    let before = model.clone();
    let pass = Recompute::new().forward(&model, &0);
    let model = lisa.step_layered(0.05, model, pass);
    let expected: BTreeSet<String> = lisa
        .active_layers()
        .iter()
        .flat_map(|l| ["weight", "bias"].map(|name| format!("layers.{l}.{name}")))
        .collect();
    assert_eq!(changed(&before, &model), expected);
}
