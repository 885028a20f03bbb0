//! The default device beside flex: what LISA adds is the same on every backend.
//!
//! `Device::default()` is the GPU's where a backend for one is compiled in, or what BURN_DEVICE
//! names; where that is flex itself, these tests compare it with itself. The models are the
//! fixtures' throughout: a software driver compiles each new kernel for seconds.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::nn::{
    BatchNorm, BatchNormConfig, Linear, LinearConfig, RotaryEncoding, RotaryEncodingConfig,
};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor};
use lisa::recompute::Recompute;
use lisa::{FrozenWeights, Lisa, LisaConfig, OnFreeze, PolicyConfig};
use lisa_lm::CausalLm;
use lisa_lm::model::{BatchTensors, Input};

use super::{FAMILIES, Windows, adamw, device, ints, load};

/// One row of the fixture's batch: the target of the last token is to be ignored.
fn batch(family: &str, device: &Device) -> BatchTensors {
    let tokens = ints(family, "input_ids", device).slice_dim(0, 0..1);
    let [rows, width] = tokens.dims();
    let last = Tensor::<2, Int>::full([rows, 1], -100, device);
    let targets = Tensor::cat(vec![tokens.clone().slice([0..rows, 1..width]), last], 1);
    BatchTensors {
        input: Input::new(tokens),
        targets,
        weights: None,
    }
}

/// Numbers by the path of their parameter.
type Numbers = BTreeMap<String, Vec<f32>>;

/// Collects numbers of a module's parameters by path.
struct Collect<'a> {
    path: Vec<String>,
    gradients: Option<&'a GradientsParams>,
    found: Numbers,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let data = match self.gradients {
            Some(gradients) => gradients.get::<D>(param.id).map(Tensor::into_data),
            None => Some(param.val().into_data()),
        };
        if let Some(data) = data {
            let values = data.convert::<f32>().iter::<f32>().collect();
            self.found.insert(self.path.join("."), values);
        }
    }
}

fn collect<M: Module>(model: &M, gradients: Option<&GradientsParams>) -> Numbers {
    let mut collect = Collect {
        path: Vec::new(),
        gradients,
        found: Numbers::new(),
    };
    model.visit(&mut collect);
    collect.found
}

/// The same parameters, and each within `tolerance` of its largest number.
fn assert_close(found: &Numbers, wanted: &Numbers, tolerance: f32, what: &str) {
    let paths = |numbers: &Numbers| numbers.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(found), paths(wanted), "{what}");
    for (path, wanted) in wanted {
        let largest = wanted.iter().fold(1e-6f32, |most, w| most.max(w.abs()));
        for (a, b) in found[path].iter().zip(wanted) {
            // Not `>`, which a NaN passes.
            let close = (a - b).abs() <= tolerance * largest;
            assert!(close, "{what}: `{path}` has {a}, not {b}");
        }
    }
}

fn config(kind: FrozenWeights, frozen_embeddings: bool) -> LisaConfig {
    let outer = || ParamGroup::from_any_predicates(CausalLm::OUTER.to_vec());
    LisaConfig::new()
        .with_sampling_period(2)
        .with_frozen_weights(kind)
        .with_frozen(frozen_embeddings.then(outer))
}

fn start(config: &LisaConfig, family: &str, device: &Device) -> (Lisa, CausalLm) {
    let model = load(family, device);
    config
        .clone()
        .with_policy(PolicyConfig::custom(Windows))
        .init(adamw(0.01), model)
        .unwrap()
}

/// Those of the kinds that the device has. Burn's LibTorch has no quantized tensors, which is an error.
fn there<const N: usize>(kinds: [FrozenWeights; N]) -> impl Iterator<Item = FrozenWeights> {
    kinds.into_iter().filter(|kind| {
        let (device, config) = (device(), config(*kind, false));
        let lisa = config
            .clone()
            .with_policy(PolicyConfig::custom(Windows))
            .init(adamw(0.01), load("llama", &device));
        let refused = lisa.err().map(|error| error.to_string());
        let torch = format!("{device:?}").contains("LibTorch");
        assert_eq!(refused.is_some(), torch && *kind != FrozenWeights::Exact);
        assert!(
            refused
                .as_ref()
                .is_none_or(|e| e.contains("no quantized tensors")),
            "{refused:?}"
        );
        refused.is_none()
    })
}

/// The loss and the gradients of the first step, by plain autodiff or layer by layer.
fn first(config: &LisaConfig, family: &str, recompute: bool, device: &Device) -> (f32, Numbers) {
    let (_, model) = start(config, family, device);
    let batch = batch(family, device);
    let (loss, grads) = if recompute {
        let pass = Recompute::new().forward(&model, &batch);
        (pass.loss(), pass.backward(&model))
    } else {
        let loss = model.next_token_loss(&batch.input, batch.targets.clone());
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        (loss, grads)
    };
    (loss.into_scalar::<f32>(), collect(&model, Some(&grads)))
}

/// The losses of some steps, and the exact weights behind them.
fn run(
    config: &LisaConfig,
    family: &str,
    steps: usize,
    device: &Device,
) -> (Vec<f32>, Numbers, Lisa) {
    let (mut lisa, mut model) = start(config, family, device);
    let batch = batch(family, device);
    let mut losses = Vec::new();
    for _ in 0..steps {
        let pass = Recompute::new().forward(&model, &batch);
        losses.push(pass.loss().into_scalar::<f32>());
        model = lisa.step_layered(1e-3, model, pass);
    }
    let exact = collect(&lisa.exact(&model, &Device::flex().autodiff()), None);
    (losses, exact, lisa)
}

/// int8 and int4 round the same way everywhere, but for numbers half-way between two steps.
fn tolerance(kind: FrozenWeights) -> f32 {
    match kind {
        FrozenWeights::Exact => 1e-4,
        FrozenWeights::Int8 => 2e-3,
        _ => 2e-2,
    }
}

fn compare_first_step(kind: FrozenWeights, family: &str, frozen_embeddings: bool) {
    let config = config(kind, frozen_embeddings);
    let (loss, wanted) = first(&config, family, false, &Device::flex().autodiff());
    assert_eq!(
        wanted.keys().any(|path| path.contains("embed_tokens")),
        !frozen_embeddings
    );
    for recompute in [false, true] {
        let what = format!(
            "{family}, {kind:?}, embeddings frozen {frozen_embeddings}, recompute {recompute}"
        );
        let (found_loss, found) = first(&config, family, recompute, &device());
        let near = (found_loss - loss).abs() <= tolerance(kind) * loss;
        assert!(near, "{what}: the loss is {found_loss}, not {loss}");
        assert_close(&found, &wanted, tolerance(kind), &what);
    }
}

#[test]
fn gradients_are_flexs() {
    for family in FAMILIES {
        compare_first_step(FrozenWeights::Exact, family, false);
    }
}

#[test]
fn gradients_with_frozen_embeddings_are_flexs() {
    for family in FAMILIES {
        compare_first_step(FrozenWeights::Exact, family, true);
    }
}

#[test]
fn gradients_with_quantized_frozen_layers_are_flexs() {
    for kind in there([FrozenWeights::Int8, FrozenWeights::Int4]) {
        compare_first_step(kind, "llama", false);
        if kind == FrozenWeights::Int8 {
            compare_first_step(kind, "llama", true);
        }
    }
}

#[test]
fn steps_over_draws_are_flexs_and_hold_as_much() {
    for kind in there([
        FrozenWeights::Exact,
        FrozenWeights::Int8,
        FrozenWeights::Int4,
    ]) {
        let config = config(kind, false);
        let (wanted_losses, wanted, flex) = run(&config, "llama", 5, &Device::flex().autodiff());
        let (losses, found, lisa) = run(&config, "llama", 5, &device());
        for (a, b) in losses.iter().zip(&wanted_losses) {
            let near = (a - b).abs() <= tolerance(kind) * b;
            assert!(near, "{kind:?}: losses {losses:?}, not {wanted_losses:?}");
        }
        assert!(losses[4] < losses[0]);
        let start = collect(&load("llama", &Device::flex()), None);
        for (path, start) in &start {
            // Layers 0 and 2, then 1 and 3, then 0 and 1 train: every layer did.
            assert_ne!(&found[path], start, "{path} did not train");
            // An Adam step is at most about the rate, whichever way it goes.
            for (a, b) in found[path].iter().zip(&wanted[path]) {
                assert!((a - b).abs() < 1e-2, "{kind:?}: `{path}` has {a}, not {b}");
            }
        }
        assert_eq!(lisa.active_layers(), flex.active_layers());
        assert_eq!(lisa.memory().optimizer_state, flex.memory().optimizer_state);
        assert_eq!(lisa.memory().full_precision, flex.memory().full_precision);
    }
}

#[test]
fn layers_that_were_never_drawn_are_bit_for_bit_what_they_were() {
    for kind in there([FrozenWeights::Exact, FrozenWeights::Int8]) {
        let config = config(kind, false).with_sampling_period(9);
        let (_, found, _) = run(&config, "llama", 3, &device());
        for (path, start) in collect(&load("llama", &Device::flex()), None) {
            let frozen = path.contains("layers.1.") || path.contains("layers.3.");
            assert_eq!(found[&path] == start, frozen, "{kind:?}: {path}");
        }
    }
}

#[test]
fn a_saved_run_goes_on_as_if_it_had_not_stopped() {
    let device = device();
    let batch = batch("llama", &device);
    let step = |lisa: &mut Lisa, model: CausalLm| {
        let loss = model.next_token_loss(&batch.input, batch.targets.clone());
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        lisa.step(1e-3, model, grads)
    };
    for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
        let config = config(FrozenWeights::Exact, false).with_on_freeze(on_freeze);
        let (mut lisa, mut model) = start(&config, "llama", &device);
        for _ in 0..3 {
            model = step(&mut lisa, model);
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.lisa");
        lisa.save(&path).unwrap();
        let saved = model.clone();
        for _ in 0..4 {
            model = step(&mut lisa, model);
        }
        let (mut again, _) = start(&config, "llama", &device);
        let mut resumed = again.load(&path, saved).unwrap();
        for _ in 0..4 {
            resumed = step(&mut again, resumed);
        }
        let (found, wanted) = (collect(&resumed, None), collect(&model, None));
        assert_close(&found, &wanted, 1e-6, &format!("{on_freeze:?}"));
        assert_eq!(
            again.memory().optimizer_state,
            lisa.memory().optimizer_state
        );
        assert_eq!(again.memory().offloaded, lisa.memory().offloaded);
    }
}

#[test]
fn half_precision_with_masters_is_flexs() {
    let device = device();
    let dtype = [FloatDType::BF16, FloatDType::F16]
        .into_iter()
        .find(|dtype| device.supports_dtype(DType::from(*dtype)));
    let Some(dtype) = dtype else {
        println!("this device has neither bf16 nor f16");
        return;
    };
    println!("in {dtype:?}");
    let losses = |kind: FrozenWeights, device: &Device| {
        let model = load("llama", device).cast(dtype);
        let config = config(kind, false);
        let (mut lisa, mut model) = config
            .clone()
            .with_policy(PolicyConfig::custom(Windows))
            .init(adamw(0.01), model)
            .unwrap();
        let batch = batch("llama", device);
        let mut losses = Vec::new();
        for _ in 0..5 {
            let pass = Recompute::new().forward(&model, &batch);
            losses.push(pass.loss().into_scalar::<f32>());
            model = lisa.step_layered(1e-3, model, pass);
        }
        assert!(lisa.memory().master_weights > 0);
        (
            losses,
            lisa.memory().master_weights,
            lisa.memory().optimizer_state,
        )
    };
    for kind in there([FrozenWeights::Exact, FrozenWeights::Int8]) {
        let (wanted, masters, moments) = losses(kind, &Device::flex().autodiff());
        let (found, found_masters, found_moments) = losses(kind, &device);
        for (a, b) in found.iter().zip(&wanted) {
            let near = (a - b).abs() < 2e-2 * b;
            assert!(near, "{kind:?}: losses {found:?}, not {wanted:?}");
        }
        assert_eq!((found_masters, found_moments), (masters, moments));
    }
}

/// A model with more than float parameters.
#[derive(Module, Debug)]
struct Mixed {
    norm: BatchNorm,
    rotary: RotaryEncoding,
    positions: Param<Tensor<1, Int>>,
    layers: Vec<Linear>,
}

#[test]
fn a_model_moves_as_a_whole_and_a_copy_of_it_does_not_move_it() {
    let host = Device::flex().autodiff();
    for kind in there([FrozenWeights::Exact, FrozenWeights::Int8]) {
        let linear = |_| LinearConfig::new(32, 32).with_bias(false).init(&host);
        let model = Mixed {
            norm: BatchNormConfig::new(4).init(&host),
            rotary: RotaryEncodingConfig::new(8, 4).init(&host),
            positions: Param::initialized(ParamId::new(), Tensor::arange(0..8, &host)),
            layers: (0..4).map(linear).collect(),
        };
        let wanted = collect(&model, None);
        let config = LisaConfig::new().with_frozen_weights(kind);
        let (lisa, model) = config.init_on(adamw(0.01), model, &device()).unwrap();
        assert_eq!(model.devices(), [device()], "{kind:?}");
        let trains = |model: &Mixed| -> Vec<bool> {
            let layers = model.layers.iter();
            layers.map(|l| l.weight.is_require_grad()).collect()
        };
        assert_eq!(trains(&model).iter().filter(|on| **on).count(), 2);
        for to in [host.clone(), Device::flex()] {
            let copy = lisa.exact(&model, &to);
            assert_eq!(copy.devices(), [Device::flex()], "{kind:?}");
            assert_eq!(collect(&copy, None), wanted, "{kind:?}");
            // The running statistics of the model that trains as well.
            assert_eq!(model.devices(), [device()], "{kind:?}");
        }
        assert_eq!(trains(&lisa.exact(&model, &host)), trains(&model));
    }
}

#[test]
fn memory_that_the_device_reports_stays_flat_over_draws() {
    let device = device();
    let (mut lisa, mut model) = start(&config(FrozenWeights::Exact, false), "llama", &device);
    let batch = batch("llama", &device);
    let mut in_use = Vec::new();
    for _ in 0..4 {
        // The three windows of the policy, twice over.
        for _ in 0..6 {
            let pass = Recompute::new().forward(&model, &batch);
            model = lisa.step_layered(1e-3, model, pass);
        }
        device.sync().unwrap();
        let usage = device.memory_pool_usage();
        assert!(lisa.memory().optimizer_state > 0);
        in_use.push(usage.map(|usage| usage.bytes_in_use));
    }
    println!("in use: {in_use:?}");
    let Some(first) = in_use[1] else {
        println!("this device keeps no account");
        return;
    };
    let weights = 4 * model.num_parameters() as u64;
    assert!(first >= weights + lisa.memory().optimizer_state);
    for bytes in &in_use[2..] {
        let grown = bytes.unwrap().saturating_sub(first);
        assert!(grown * 100 <= first, "in use: {in_use:?}");
    }
}
