//! Every policy in whole runs: resume, scores, parts of layers.

use super::*;
use crate::policy::{Budget, Gradient};
use crate::policy::{CyclicOrder, Scores};
use crate::policy::{Observation, Statistic};

/// Every policy of the crate, with whole layers and with parts.
pub(super) fn table() -> Vec<(String, LisaConfig)> {
    let budget = Budget::new().with_share(0.4);
    let policies = [
        PolicyConfig::Uniform,
        PolicyConfig::Bernoulli(vec![0.0, 1.0, 0.5, 0.5, 0.25, 0.75]),
        PolicyConfig::Weighted(vec![0.0, 1.0, 2.0, 3.0, 4.0, 50.0]),
        PolicyConfig::Cyclic(CyclicOrder::Ascending),
        PolicyConfig::Cyclic(CyclicOrder::Descending),
        PolicyConfig::Cyclic(CyclicOrder::Reshuffled),
        PolicyConfig::Gradient(Gradient::new()),
        PolicyConfig::Budget(budget.clone()),
        PolicyConfig::Fixed(vec![1, 4]),
    ];
    let config = LisaConfig::new().with_sampling_period(3);
    let mut table: Vec<(String, LisaConfig)> = policies
        .iter()
        .map(|policy| {
            (
                policy.build().name(),
                config.clone().with_policy(policy.clone()),
            )
        })
        .collect();
    for policy in [
        PolicyConfig::Uniform,
        PolicyConfig::Gradient(Gradient::new()),
        PolicyConfig::Budget(budget),
    ] {
        let name = format!("{} of parts", policy.build().name());
        let config = config.clone().with_policy(policy).with_active_layers(5);
        table.push((name, config.with_split(vec!["bias".into()])));
    }
    for policy in [
        PolicyConfig::Uniform,
        PolicyConfig::Weighted(vec![1.0, 1.0, 2.0, 3.0, 4.0, 50.0]),
    ] {
        let name = format!("unbiased {}", policy.build().name());
        let config = config.clone().with_policy(policy);
        table.push((name, config.with_unbiased(true)));
    }
    table
}

#[test]
fn every_policy_resumes_bit_for_bit_and_goes_on_with_other_ids() {
    for (_, config) in table() {
        // From the fourth period on, every layer has a score. The boundary, one and two steps
        // behind it, the next, and the first period.
        for at in [9, 10, 11, 12, 2, 0] {
            resumes_in(18, &config, net, at);
        }
    }
}

/// Draws by a table and observes; knows the probability of each layer.
#[derive(Debug)]
struct Watching(&'static [&'static [usize]], Statistic);

impl SamplingPolicy for Watching {
    fn name(&self) -> String {
        "watching".into()
    }
    fn draw(&self, draw: &Draw) -> Vec<usize> {
        self.0[draw.period as usize % self.0.len()].to_vec()
    }
    fn observes(&self) -> Option<Observation> {
        Some(Observation {
            statistic: self.1,
            decay: 0.25,
        })
    }
    fn inclusion(&self, draw: &Draw) -> Option<Vec<f64>> {
        Some(vec![0.1; draw.layers])
    }
}

const WINDOWS: &[&[usize]] = &[&[0, 3], &[3], &[1, 3]];

#[test]
fn scores_are_means_of_the_gradients_before_scaling_and_clipping() {
    for statistic in [Statistic::RootMeanSquare, Statistic::MeanSquare] {
        let config = LisaConfig::new()
            .with_sampling_period(2)
            .with_max_grad_norm(Some(1e-3))
            .with_unbiased(true);
        let policy = PolicyConfig::custom(Watching(WINDOWS, statistic));
        let (mut lisa, mut model) = init(&config.with_policy(policy));
        let mut expected = [None; LAYERS];
        for (period, window) in WINDOWS.iter().enumerate() {
            let mut sums = [0.0f64; LAYERS];
            for step in [2 * period, 2 * period + 1] {
                let grads = model.grads(step);
                for &layer in *window {
                    let Linear { weight, bias } = &model.layers[layer];
                    let bias = grads.get::<1>(bias.as_ref().unwrap().id).unwrap();
                    let squares =
                        grads.get::<2>(weight.id).unwrap().square().sum() + bias.square().sum();
                    let mean = squares.into_scalar::<f64>() / 20.0;
                    sums[layer] += match statistic {
                        Statistic::RootMeanSquare => mean.sqrt(),
                        Statistic::MeanSquare => mean,
                    };
                }
                model = lisa.step(0.05, model, grads);
            }
            for &layer in *window {
                let mean = sums[layer] / 2.0;
                expected[layer] = Some(match expected[layer] {
                    Some((score, _)) => (0.25 * score + 0.75 * mean, period),
                    None => (mean, period),
                });
            }
        }
        for (layer, expected) in expected.into_iter().enumerate() {
            let found = lisa.scores().get(layer);
            assert_eq!(found.parameters, 20);
            assert_eq!(found.last_drawn, expected.map(|(_, period)| period as u64));
            match (found.score, expected) {
                (Some(a), Some((b, _))) => assert!((f64::from(a) / b - 1.0).abs() < 1e-5),
                (None, None) => {}
                other => panic!("layer {layer}: {other:?}"),
            }
        }
    }
}

#[test]
fn several_devices_are_scored_by_the_sum_of_their_gradients() {
    use burn::optim::MultiGradientsParams;
    let config = LisaConfig::new()
        .with_sampling_period(2)
        .with_policy(PolicyConfig::Gradient(Gradient::new()));
    let (mut one, mut a) = init(&config);
    let (mut many, mut b) = init(&config);
    for step in 0..14 {
        let mut sum = GradientsAccumulator::new();
        sum.accumulate(&a, a.grads(step));
        sum.accumulate(&a, a.grads(step + 100));
        a = one.step(0.01, a, sum.grads());
        let device = b.head.weight.val().device().inner();
        let grads = vec![
            (b.grads(step), device.clone()),
            (b.grads(step + 100), device),
        ];
        b = many.step_multi(0.01, b, MultiGradientsParams { grads });
        assert_eq!(one.active_layers(), many.active_layers());
    }
    for (a, b) in one.scores().iter().zip(many.scores().iter()) {
        let (a, b) = (a.score.unwrap(), b.score.unwrap());
        assert!((a / b - 1.0).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn nothing_is_held_for_a_policy_that_observes_nothing() {
    let (mut lisa, model) = init(&LisaConfig::new().with_sampling_period(2));
    let _ = train(&mut lisa, model, 0..7);
    assert_eq!(lisa.scores(), &Scores::new([20; LAYERS]));
    assert!(lisa.score_state().is_none() && lisa.sums.is_empty());
    let config = LisaConfig::new().with_policy(PolicyConfig::Gradient(Gradient::new()));
    let (mut lisa, model) = init(&config);
    let _ = train(&mut lisa, model, 0..7);
    assert!(!lisa.sums.is_empty());
}

#[test]
fn gradients_that_are_no_numbers_leave_the_score_as_it_was() {
    let config = LisaConfig::new().with_sampling_period(2);
    let policy = Watching(&[&[2]], Statistic::RootMeanSquare);
    let (mut lisa, model) = config
        .clone()
        .with_policy(PolicyConfig::custom(policy))
        .init(SgdConfig::new(), net(&device()))
        .unwrap();
    let mut model = train(&mut lisa, model, 0..2);
    let before = lisa.scores().get(2);
    assert!(before.score.is_some() && before.last_drawn == Some(0));
    let mut grads = model.grads(2);
    let id = model.layers[2].weight.id;
    let grad = grads.remove::<2>(id).unwrap();
    grads.register(id, grad.slice_fill([0..1, 1..2], f32::INFINITY));
    model = lisa.step(0.0, model, grads);
    let grads = model.grads(3);
    let _ = lisa.step(0.0, model, grads);
    let after = lisa.scores().get(2);
    assert_eq!((after.score, after.last_drawn), (before.score, Some(1)));
}

#[test]
fn exactly_the_drawn_parts_change() {
    let config = LisaConfig::new()
        .with_sampling_period(1)
        .with_active_layers(3)
        .with_split(vec!["bias".into()]);
    let (mut lisa, mut model) = init(&config);
    assert_eq!(lisa.layers().layers().len(), 2 * LAYERS);
    assert_eq!(lisa.layers().layers()[7].path, "layers.3[other]");
    let mut halves = 0;
    for step in 0..20 {
        let active = lisa.active_layers().to_vec();
        let path = |part: &usize| {
            let name = ["bias", "weight"][part % 2];
            format!("layers.{}.{name}", part / 2)
        };
        let expected: BTreeSet<String> = active
            .iter()
            .map(path)
            .chain(["embed.weight".into(), "head.weight".into()])
            .collect();
        halves += usize::from(!active.windows(2).any(|two| two[0] / 2 == two[1] / 2));
        let before = model.clone();
        model = train(&mut lisa, model, step..step + 1);
        assert_eq!(changed(&before, &model), expected);
    }
    assert!(halves > 0);

    let message = refusal(&config.with_active_layers(13));
    assert!(message.contains("12 parts of layers"), "{message}");
}

#[test]
fn a_budget_counts_what_may_train() {
    // Weights are held: of 24 numbers in biases, a half are those of three layers.
    let config = LisaConfig::new()
        .with_frozen(Some(ParamGroup::from_predicate("weight")))
        .with_sampling_period(1)
        .with_policy(PolicyConfig::Budget(Budget::new().with_share(0.5)));
    let (mut lisa, mut model) = init(&config);
    for step in 0..8 {
        assert_eq!(lisa.active_layers().len(), 3);
        assert_eq!(lisa.describe().active, 12);
        model = train(&mut lisa, model, step..step + 1);
    }
}
