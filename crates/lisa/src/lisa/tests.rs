//! Whole steps on a small module: masks, moments, equality with plain optimizers, records.

use std::collections::BTreeSet;

use burn::grad_clipping::{GradientClipping, GradientClippingConfig};
use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{
    AdafactorConfig, AdamWConfig, AdanConfig, GradientsAccumulator, GradientsParams, LionConfig,
    ModuleOptimizer, MuonConfig, SgdConfig, momentum::MomentumConfig,
};
use burn::tensor::module::linear;
use burn::tensor::{DType, Device, FloatDType, Tensor};

use crate::optimizer::OptimizerConfig;
use crate::policy::{Bernoulli, Draw, SamplingPolicy};
use crate::{Lisa, LisaConfig, OnFreeze, PolicyConfig};

mod decay;
mod flags;
mod half;
mod hostile;
mod layered;
mod outer;
mod plain;
mod policies;
mod quantized;
mod records;
mod refused;
mod trees;
mod unbiased;
mod warmup;

const LAYERS: usize = 6;
const WIDTH: usize = 4;

#[derive(Module, Debug)]
struct Net {
    embed: Linear,
    layers: Vec<Linear>,
    head: Linear,
}

fn device() -> Device {
    Device::flex().autodiff()
}

/// The same weights on every call.
fn net(device: &Device) -> Net {
    net_of(device, WIDTH, 0.6)
}

/// A net of this width, with the same weights on every call, none larger than `scale`.
fn net_of(device: &Device, width: usize, scale: f32) -> Net {
    let mut seed = 0.0f32;
    let mut values = |n: usize| -> Tensor<1> {
        seed += 1.0;
        let values: Vec<f32> = (0..n)
            .map(|i| ((i as f32 + 7.0 * seed) * 0.7).sin() * scale)
            .collect();
        Tensor::from_floats(values.as_slice(), device)
    };
    let mut linear = |bias: bool| Linear {
        weight: Param::from_tensor(values(width * width).reshape([width, width])),
        bias: bias.then(|| Param::from_tensor(values(width))),
    };
    Net {
        embed: linear(false),
        layers: (0..LAYERS).map(|_| linear(true)).collect(),
        head: linear(false),
    }
}

fn half(net: Net) -> Net {
    struct Half;
    impl burn::module::ModuleMapper for Half {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|t| t.cast(FloatDType::BF16).detach().require_grad())
        }
    }
    net.map(&mut Half)
}

impl Net {
    fn loss(&self, step: usize) -> Tensor<1> {
        let weight = self.embed.weight.val();
        let (device, dtype, [width, _]) = (weight.device(), weight.dtype(), weight.dims());
        let values: Vec<f32> = (0..2 * width)
            .map(|i| ((i + 3 * step) as f32).cos())
            .collect();
        let x = Tensor::<1>::from_floats(values.as_slice(), &device)
            .reshape([2, width])
            .cast(dtype);
        let mut x = self.embed.forward(x);
        for layer in &self.layers {
            // That of a frozen layer may be quantized.
            let weight = layer.weight.val().dequantize();
            let bias = layer.bias.as_ref().map(Param::val);
            x = x.clone() + linear(x, weight, bias).tanh();
        }
        self.head.forward(x).cast(FloatDType::F32).square().mean()
    }

    fn grads(&self, step: usize) -> GradientsParams {
        GradientsParams::from_grads(self.loss(step).backward(), self)
    }

    /// Bits of every parameter, by path.
    fn bits(&self) -> Vec<(String, Vec<u32>)> {
        struct Bits(Vec<String>, Vec<(String, Vec<u32>)>);
        impl ModuleVisitor for Bits {
            fn enter_module(&mut self, name: &str, _: &str) {
                self.0.push(name.into());
            }
            fn exit_module(&mut self, _: &str, _: &str) {
                self.0.pop();
            }
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let data = param.val().into_data().convert::<f32>();
                let bits = data.iter::<f32>().map(f32::to_bits).collect();
                self.1.push((self.0.join("."), bits));
            }
        }
        let mut bits = Bits(Vec::new(), Vec::new());
        self.visit(&mut bits);
        bits.1
    }
}

fn changed(before: &Net, after: &Net) -> BTreeSet<String> {
    let pairs = before.bits().into_iter().zip(after.bits());
    pairs.filter(|(a, b)| a != b).map(|(a, _)| a.0).collect()
}

fn train(lisa: &mut Lisa, model: Net, steps: std::ops::Range<usize>) -> Net {
    train_at(lisa, model, steps, 0.05)
}

fn train_at(lisa: &mut Lisa, mut model: Net, steps: std::ops::Range<usize>, lr: f64) -> Net {
    for step in steps {
        let grads = model.grads(step);
        model = lisa.step(lr, model, grads);
    }
    model
}

fn adamw() -> AdamWConfig {
    AdamWConfig::new()
        .with_epsilon(1e-8)
        .with_weight_decay(0.01)
}

fn init(config: &LisaConfig) -> (Lisa, Net) {
    config.init(adamw(), net(&device())).unwrap()
}

/// Why this config is refused.
fn refusal(config: &LisaConfig) -> String {
    let refused = config.init(adamw(), net(&device()));
    refused.unwrap_err().to_string()
}

/// Draws the layers that it is told to, period by period.
#[derive(Debug)]
struct Fixed(&'static [&'static [usize]]);

impl SamplingPolicy for Fixed {
    fn name(&self) -> String {
        "fixed".into()
    }
    fn draw(&self, draw: &Draw) -> Vec<usize> {
        self.0[draw.period as usize % self.0.len()].to_vec()
    }
}

#[test]
fn exactly_the_drawn_layers_and_the_always_on_parameters_change() {
    let config = LisaConfig::new().with_sampling_period(3);
    let (mut lisa, mut model) = init(&config);
    for step in 0..30 {
        let expected: BTreeSet<String> = lisa
            .active_layers()
            .iter()
            .flat_map(|l| [format!("layers.{l}.weight"), format!("layers.{l}.bias")])
            .chain(["embed.weight".to_string(), "head.weight".to_string()])
            .collect();
        assert_eq!(expected.len(), 6);
        let before = model.clone();
        let grads = model.grads(step);
        model = lisa.step(0.05, model, grads);
        assert_eq!(changed(&before, &model), expected, "step {step}");
    }
    assert_eq!((lisa.steps(), lisa.period()), (30, 10));
}

/// Tensors in the optimizer's record: two for each parameter that AdamW holds moments of.
fn moments(lisa: &Lisa) -> usize {
    lisa.get_ref().to_record().len()
}

#[test]
fn moments_exist_for_what_trains_only_and_do_not_grow_in_200_steps() {
    let (mut lisa, mut model) = init(&LisaConfig::new().with_sampling_period(4));
    let both = 2 * WIDTH * WIDTH * 4;
    let layer = 2 * (WIDTH * WIDTH + WIDTH) * 4;
    for step in 0..200 {
        let grads = model.grads(step);
        model = lisa.step(0.01, model, grads);
        if lisa.steps() % 4 != 0 {
            assert_eq!(moments(&lisa), 2 * (2 + 2 * 2), "step {step}");
            assert_eq!(lisa.memory().optimizer_state, (2 * both + 2 * layer) as u64);
        } else {
            // A layer that is drawn again keeps its moments; the others lost theirs.
            assert!(moments(&lisa) <= 2 * (2 + 2 * 2));
            assert!(lisa.memory().optimizer_state <= (2 * both + 2 * layer) as u64);
        }
    }
}

#[test]
fn a_layer_that_left_has_no_moments_and_one_that_stays_keeps_them() {
    let config = LisaConfig::new().with_sampling_period(2);
    let policy = PolicyConfig::custom(Fixed(&[&[0, 1], &[1, 2]]));
    let (mut lisa, model) = init(&config.with_policy(policy));
    let model = train(&mut lisa, model, 0..2);
    // embed, head and layer 1; layer 0 left, layer 2 was not stepped yet.
    assert_eq!(moments(&lisa), 2 * (2 + 2));
    assert_eq!(lisa.active_layers(), [1, 2]);
    let _ = train(&mut lisa, model, 2..3);
    assert_eq!(moments(&lisa), 2 * (2 + 2 * 2));
}

#[test]
fn keep_grows_to_the_plain_optimizer_and_offload_keeps_the_device_flat() {
    let run = |on_freeze| {
        let config = LisaConfig::new()
            .with_sampling_period(1)
            .with_on_freeze(on_freeze);
        let (mut lisa, model) = init(&config);
        let model = train(&mut lisa, model, 0..60);
        (lisa, model)
    };
    let all = 2 * 4 * (2 * WIDTH * WIDTH + LAYERS * (WIDTH * WIDTH + WIDTH)) as u64;
    let (keep, kept) = run(OnFreeze::Keep);
    assert_eq!(
        (keep.memory().optimizer_state, keep.memory().offloaded),
        (all, 0)
    );
    let (offload, offloaded) = run(OnFreeze::Offload);
    assert_eq!(
        offload.memory().optimizer_state + offload.memory().offloaded,
        all
    );
    let layer = 2 * 4 * (WIDTH * WIDTH + WIDTH) as u64;
    assert!(offload.memory().offloaded >= 4 * layer);
    // The moments come back: the same numbers as if they had stayed.
    assert_eq!(kept.bits(), offloaded.bits());
    let (_, dropped) = run(OnFreeze::Drop);
    assert_ne!(kept.bits(), dropped.bits());
}

/// What the optimizer's record weighs.
fn state_bytes(optimizer: ModuleOptimizer) -> usize {
    let reader = burn_pack::Reader::from_bytes(optimizer.into_bytes().unwrap()).unwrap();
    let tensors = reader.into_tensors().unwrap();
    tensors.iter().map(burn_pack::Tensor::byte_len).sum()
}

#[test]
fn an_accumulator_that_crosses_a_draw_never_updates_a_frozen_layer() {
    let config = LisaConfig::new().with_sampling_period(1);
    let policy = PolicyConfig::custom(Fixed(&[&[0, 1], &[4, 5]]));
    let (mut lisa, model) = init(&config.with_policy(policy));
    let mut accumulator = GradientsAccumulator::new();
    accumulator.accumulate(&model, model.grads(0));
    let grads = model.grads(1);
    let model = lisa.step(0.05, model, grads);
    assert_eq!(lisa.active_layers(), [4, 5]);
    accumulator.accumulate(&model, model.grads(2));
    let before = model.clone();
    let model = lisa.step(0.05, model, accumulator.grads());
    let changed = changed(&before, &model);
    assert!(changed.contains("layers.4.weight") && changed.contains("embed.weight"));
    assert!(
        !changed.iter().any(|path| path.starts_with("layers.0")),
        "{changed:?}"
    );
    assert_eq!(lisa.active_layers(), [0, 1]);
}

#[test]
fn the_users_frozen_parameters_and_the_held_group_stay_frozen() {
    let mut model = net(&device());
    model.layers[2].weight = model.layers[2].weight.clone().set_require_grad(false);
    let config = LisaConfig::new()
        .with_sampling_period(1)
        .with_active_layers(LAYERS)
        .with_frozen(Some(ParamGroup::from_predicate("embed")));
    let (mut lisa, model) = config.init(adamw(), model).unwrap();
    let before = model.clone();
    let model = train(&mut lisa, model, 0..4);
    let changed = changed(&before, &model);
    assert_eq!(changed.len(), 2 * LAYERS + 2 - 2);
    assert!(!changed.contains("embed.weight") && !changed.contains("layers.2.weight"));
    let split = lisa.describe();
    assert_eq!(split.frozen, 2 * WIDTH * WIDTH);
    assert_eq!(split.total(), model.num_params());
}

#[test]
fn an_empty_draw_trains_the_always_on_parameters_alone() {
    let config = LisaConfig::new()
        .with_sampling_period(1)
        .with_policy(PolicyConfig::Bernoulli(vec![0.0; LAYERS]));
    let (mut lisa, model) = init(&config);
    let before = model.clone();
    let model = train(&mut lisa, model, 0..3);
    let expected = BTreeSet::from(["embed.weight".to_string(), "head.weight".to_string()]);
    assert_eq!(changed(&before, &model), expected);
}

#[test]
fn every_refusal_says_what_was_found() {
    let config = LisaConfig::new;
    assert!(refusal(&config().with_active_layers(7)).contains("is 7 and the model has 6 layers"));
    let nothing = ParamGroup::from_predicate("no such");
    let message = refusal(&config().with_frozen(Some(nothing)));
    assert!(
        message.contains("matches none of 14") && message.contains("embed.weight"),
        "{message}"
    );
    let policy = PolicyConfig::Bernoulli(vec![0.5; 5]);
    assert!(refusal(&config().with_policy(policy)).contains("5 probabilities and the model 6"));
    let everything = refusal(&config().with_frozen(Some(ParamGroup::all())));
    assert!(
        everything.contains("every parameter that requires gradients"),
        "{everything}"
    );
    let plain = config().init(adamw(), net(&Device::flex())).unwrap_err();
    assert!(plain.to_string().contains("autodiff"), "{plain}");

    let bad = PolicyConfig::custom(Fixed(&[&[9]]));
    let message = refusal(&config().with_policy(bad));
    assert!(message.contains("drew layer 9 of 6"), "{message}");
}

fn to_half(device: &Device) -> Net {
    half(net(device))
}

/// Trains 12 steps straight, and in two other ways from step `at` on, with the same bits: with a model
/// that has other ids, and with a record that a fresh run loads.
fn resumes(config: &LisaConfig, make: fn(&Device) -> Net, at: usize) {
    resumes_in(12, config, make, at);
}

/// The same with another number of steps.
fn resumes_in(steps: usize, config: &LisaConfig, make: fn(&Device) -> Net, at: usize) {
    resumes_with(adamw(), steps, config, make, at);
}

/// The same with another optimizer.
fn resumes_with<C: OptimizerConfig + Clone>(
    optimizer: C,
    steps: usize,
    config: &LisaConfig,
    make: fn(&Device) -> Net,
    at: usize,
) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.lisa");
    let (mut lisa, model) = config.init(optimizer.clone(), make(&device())).unwrap();
    let straight = train(&mut lisa, model, 0..steps);

    let (mut first, model) = config.init(optimizer.clone(), make(&device())).unwrap();
    let model = train(&mut first, model, 0..at);
    first.save(&path).unwrap();
    let mut followed = first.clone();
    let renamed = train(&mut followed, reloaded(&model, make), at..steps);
    let policy = lisa.describe().policy;
    assert_eq!(renamed.bits(), straight.bits(), "{policy} followed at {at}");
    assert_eq!(followed.scores(), lisa.scores(), "{policy}, at {at}");
    assert_eq!(followed.memory(), lisa.memory(), "{policy}, at {at}");

    let fresh = reloaded(&model, make);
    let (mut second, fresh) = config.init(optimizer, fresh).unwrap();
    let fresh = second.load(&path, fresh).unwrap();
    assert_eq!(second.active_layers(), first.active_layers());
    assert_eq!(second.memory(), first.memory());
    let resumed = train(&mut second, fresh, at..steps);
    assert_eq!(resumed.bits(), straight.bits(), "{policy} resumed at {at}");
    assert_eq!(second.scores(), lisa.scores(), "{policy} resumed at {at}");
    assert_eq!(second.memory(), lisa.memory(), "{policy} resumed at {at}");
}

/// New ParamIds, the same weights: what loading a checkpoint gives.
fn reloaded(model: &Net, make: fn(&Device) -> Net) -> Net {
    let mut fresh = make(&device());
    fresh.embed.weight = anew(&model.embed.weight);
    fresh.head.weight = anew(&model.head.weight);
    for (to, from) in fresh.layers.iter_mut().zip(&model.layers) {
        to.weight = anew(&from.weight);
        to.bias = from.bias.as_ref().map(anew);
    }
    fresh
}

fn anew<const D: usize>(param: &Param<Tensor<D>>) -> Param<Tensor<D>> {
    let tensor = param.val().detach().require_grad();
    Param::initialized(ParamId::new(), tensor)
}

#[test]
fn gradients_that_are_no_numbers_are_named() {
    let (lisa, model) = init(&LisaConfig::new());
    let active = lisa.active_layers()[0];
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut grads = model.grads(0);
        assert!(lisa.check_finite(&model, &grads).is_ok());
        let id = model.layers[active].weight.id;
        let grad = grads.remove::<2>(id).unwrap();
        let grad = grad.slice_fill([0..1, 1..2], bad);
        grads.register(id, grad);
        let error = lisa.check_finite(&model, &grads).unwrap_err().to_string();
        assert!(error.contains("gradient of step 1"), "{error}");
        assert!(
            error.contains(&format!("1 parameters, first of `layers.{active}.weight`")),
            "{error}"
        );
    }
    // An accumulator that crosses a period has gradients of frozen layers, which a step ignores.
    let frozen = (0..LAYERS)
        .find(|l| !lisa.active_layers().contains(l))
        .unwrap();
    let mut grads = model.grads(0);
    let bad = Tensor::<2>::full([WIDTH, WIDTH], f32::NAN, &Device::flex());
    grads.register(model.layers[frozen].weight.id, bad);
    assert!(lisa.check_finite(&model, &grads).is_ok());
}

#[test]
fn gradients_that_are_no_numbers_are_named_in_a_model_with_other_ids() {
    let (lisa, model) = init(&LisaConfig::new());
    let active = lisa.active_layers()[0];
    let model = reloaded(&model, net);
    let mut grads = model.grads(0);
    assert!(lisa.check_finite(&model, &grads).is_ok());
    let bad = Tensor::<2>::full([WIDTH, WIDTH], f32::NAN, &Device::flex());
    let frozen = (0..LAYERS).find(|l| !lisa.active_layers().contains(l));
    grads.register(model.layers[frozen.unwrap()].weight.id, bad.clone());
    assert!(lisa.check_finite(&model, &grads).is_ok());
    grads.register(model.layers[active].weight.id, bad);
    let error = lisa.check_finite(&model, &grads).unwrap_err().to_string();
    let first = format!("1 parameters, first of `layers.{active}.weight`");
    assert!(error.contains(&first), "{error}");

    let mut other = net(&device());
    other.layers.pop();
    let error = lisa.check_finite(&other, &GradientsParams::new());
    assert_eq!(error.unwrap_err().kind(), crate::ErrorKind::Layers);
}

#[test]
fn a_group_without_parameters_is_refused() {
    let (lisa, _) = init(&LisaConfig::new());
    let group = ParamGroup::from_predicate("no such");
    let error = lisa.try_with_group(group, adamw()).unwrap_err().to_string();
    assert!(
        error.contains("the group matches none of 14 parameters"),
        "{error}"
    );
}

#[test]
fn the_description_counts_every_parameter_once() {
    let (lisa, model) = init(&LisaConfig::new());
    let split = lisa.describe();
    assert_eq!(split.total(), model.num_params());
    assert_eq!(split.outside, 2 * WIDTH * WIDTH);
    assert_eq!(split.active, 2 * (WIDTH * WIDTH + WIDTH));
    assert_eq!(split.layers.iter().filter(|l| l.active).count(), 2);
    let text = lisa.to_string();
    assert!(
        text.contains("policy uniform") && text.contains("layers.5"),
        "{text}"
    );
    assert_eq!(Bernoulli::default().name(), "bernoulli");
}
