//! The mean over the draws of the scaled gradient is the gradient of full training.

use super::*;
use crate::policy::{Budget, Gradient};
use crate::policy::{CyclicOrder, Uniform, Weighted};
use crate::recompute::Recompute;

/// One given draw of another policy, whose probabilities it has.
#[derive(Debug)]
struct One<P>(Vec<usize>, P);

impl<P: SamplingPolicy> SamplingPolicy for One<P> {
    fn name(&self) -> String {
        self.1.name()
    }
    fn draw(&self, _: &Draw) -> Vec<usize> {
        self.0.clone()
    }
    fn inclusion(&self, draw: &Draw) -> Option<Vec<f64>> {
        self.1.inclusion(draw)
    }
}

fn values(net: &Net) -> Vec<(String, Vec<f64>)> {
    let float = |bits: u32| f64::from(f32::from_bits(bits));
    let bits = net.bits().into_iter();
    bits.map(|(path, bits)| (path, bits.into_iter().map(float).collect()))
        .collect()
}

/// What a step of plain SGD with learning rate 1 takes off the weights, by path.
fn taken<P: SamplingPolicy>(policy: P, how: &str) -> Vec<(String, Vec<f64>)> {
    let config = LisaConfig::new().with_unbiased(true);
    let sgd = SgdConfig::new();
    let (mut lisa, model) = config
        .clone()
        .with_policy(PolicyConfig::custom(policy))
        .init(sgd, net(&device()))
        .unwrap();
    let before = values(&model);
    let model = match how {
        "step" => {
            let grads = model.grads(0);
            lisa.step(1.0, model, grads)
        }
        "several devices" => {
            let device = model.head.weight.val().device().inner();
            let grads = vec![(model.grads(0), device)];
            let grads = burn::optim::MultiGradientsParams { grads };
            lisa.step_multi(1.0, model, grads)
        }
        _ => {
            let pass = Recompute::new().forward(&model, &0);
            lisa.step_layered(1.0, model, pass)
        }
    };
    let pairs = before.into_iter().zip(values(&model));
    pairs
        .map(|((path, a), (_, b))| (path, a.iter().zip(b).map(|(a, b)| a - b).collect()))
        .collect()
}

/// The gradient of full training, by the same subtraction.
fn full() -> Vec<(String, Vec<f64>)> {
    let all = One(
        (0..LAYERS).collect(),
        crate::policy::Fixed::new((0..LAYERS).collect()),
    );
    taken(all, "step")
}

/// The mean of some steps with these weights, against full training.
fn assert_mean(
    steps: impl Iterator<Item = (f64, Vec<(String, Vec<f64>)>)>,
    tolerance: f64,
    what: &str,
) {
    let full = full();
    let mut mean: Vec<Vec<f64>> = full.iter().map(|(_, g)| vec![0.0; g.len()]).collect();
    let mut total = 0.0;
    for (weight, step) in steps {
        total += weight;
        for (mean, (_, step)) in mean.iter_mut().zip(step) {
            for (mean, step) in mean.iter_mut().zip(step) {
                *mean += weight * step;
            }
        }
    }
    assert!((total - 1.0).abs() < 1e-9, "{what}: weights sum to {total}");
    for ((path, full), mean) in full.iter().zip(&mean) {
        let norm = full.iter().map(|g| g * g).sum::<f64>().sqrt();
        let error = full.iter().zip(mean).map(|(a, b)| (a - b).powi(2));
        let error = error.sum::<f64>().sqrt() / norm;
        assert!(norm > 1e-3 && error < tolerance, "{what}, {path}: {error}");
    }
}

fn members(subset: u32) -> Vec<usize> {
    (0..LAYERS)
        .filter(|layer| subset >> layer & 1 == 1)
        .collect()
}

#[test]
fn uniform_over_all_subsets_is_the_full_gradient() {
    let pairs: Vec<u32> = (0..64u32).filter(|s| s.count_ones() == 2).collect();
    assert_eq!(pairs.len(), 15);
    for how in ["step", "several devices", "during backward"] {
        let steps = pairs
            .iter()
            .map(|&subset| (1.0 / 15.0, taken(One(members(subset), Uniform), how)));
        assert_mean(steps, 1e-5, how);
    }
}

#[test]
fn bernoulli_over_all_subsets_is_the_full_gradient() {
    let p = [0.1, 0.25, 0.5, 0.75, 0.9, 1.0];
    let steps = (0..64u32).map(|subset| {
        let coin = |(layer, p): (usize, &f64)| match subset >> layer & 1 {
            1 => *p,
            _ => 1.0 - p,
        };
        let weight: f64 = p.iter().enumerate().map(coin).product();
        let policy = Bernoulli::new(p.to_vec());
        (weight, taken(One(members(subset), policy), "step"))
    });
    assert_mean(steps, 1e-5, "bernoulli");
}

#[test]
fn weighted_over_many_draws_is_the_full_gradient() {
    let policy = Weighted::new(vec![1.0, 2.0, 2.0, 3.0, 4.0, 20.0]);
    // Each subset is stepped once and counts as often as it was drawn.
    let mut counts = std::collections::BTreeMap::new();
    let draws = 100_000;
    for period in 0..draws {
        let subset = policy.draw(&Draw::new(7, period, LAYERS, 2));
        *counts.entry(subset).or_insert(0) += 1;
    }
    assert!(counts.len() >= 5, "{counts:?}");
    let steps = counts.into_iter().map(|(subset, count)| {
        let weight = f64::from(count) / draws as f64;
        (weight, taken(One(subset, policy.clone()), "step"))
    });
    // The rarest layer has a probability of 1 / 12: three deviations are 3 %.
    assert_mean(steps, 0.04, "weighted");
}

#[test]
fn the_scaled_gradient_is_what_the_global_norm_is_taken_of() {
    let run = |max_norm: Option<f64>| {
        let config = LisaConfig::new()
            .with_unbiased(true)
            .with_max_grad_norm(max_norm);
        let (mut lisa, model) = config.init(SgdConfig::new(), net(&device())).unwrap();
        let before = values(&model);
        let grads = model.grads(0);
        let model = lisa.step(1.0, model, grads);
        let numbers = |values: Vec<(String, Vec<f64>)>| values.into_iter().flat_map(|(_, v)| v);
        let pairs = numbers(before).zip(numbers(values(&model)));
        pairs.map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    };
    assert!(run(None) > 0.5);
    assert!((run(Some(0.1)) - 0.1).abs() < 1e-5);
}

#[test]
fn what_cannot_be_unbiased_is_refused_by_name() {
    let unbiased = |policy| LisaConfig::new().with_unbiased(true).with_policy(policy);
    for (policy, name) in [
        (PolicyConfig::Gradient(Gradient::new()), "`gradient("),
        (PolicyConfig::Budget(Budget::new()), "`budget("),
        (
            PolicyConfig::Cyclic(CyclicOrder::Reshuffled),
            "`cyclic(reshuffled)`",
        ),
    ] {
        let message = refusal(&unbiased(policy));
        assert!(message.contains(name), "{message}");
        assert!(message.contains("does not know how probable"), "{message}");
    }
    let zero = PolicyConfig::Weighted(vec![1.0, 1.0, 0.0, 1.0, 1.0, 1.0]);
    let message = refusal(&unbiased(zero));
    assert!(
        message.contains("`layers.2` with probability 0"),
        "{message}"
    );
    let fixed = PolicyConfig::Fixed(vec![0]);
    assert!(refusal(&unbiased(fixed)).contains("`layers.1` with probability 0"));
}
