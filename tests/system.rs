//! LISA on the two model families against PyTorch: `fixtures/make_lisa.py` made the numbers.
//!
//! Tolerances are those that correct implementations meet and that a wrong epsilon, a wrong decay,
//! a global step count or a moment kept too long breaks: losses 1e-5; weights 1e-5 at the 99.9th
//! percentile and 5e-4 at most, GPT-2's key bias left out (its exact gradient is 0). Where another
//! device than flex rounds other sums, losses of twelve steps may be 2e-5 apart.
//!
//! They run on `Device::default()`: on flex where no other backend is compiled in, on what
//! BURN_DEVICE names where there are several.

#[path = "system/devices.rs"]
mod devices;
#[path = "system/hostile.rs"]
mod hostile;
#[path = "system/learner.rs"]
mod learner;
#[path = "system/models.rs"]
mod models;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::ParamGroup;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{DType, Device, FloatDType, Int, Tensor};
use lisa::optimizer::Decay;
use lisa::policy::{Draw, SamplingPolicy};
use lisa::{Lisa, LisaConfig, OnFreeze, PolicyConfig};
use lisa_lm::checkpoint::{SaveOptions, save};
use lisa_lm::model::Input;
use lisa_lm::{CausalLm, Checkpoint};
use serde_json::Value;

const FAMILIES: [&str; 2] = ["llama", "gpt2"];

/// What everything here runs on.
fn device() -> Device {
    Device::default().autodiff()
}

/// How far losses may be apart.
fn of_losses() -> f32 {
    if Device::default() == Device::flex() {
        1e-5
    } else {
        2e-5
    }
}

fn fixture(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(family)
}

fn numbers(family: &str) -> Value {
    let text = std::fs::read_to_string(fixture(family).join("fixture.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The layers of each window in the fixtures.
#[derive(Debug)]
struct Windows;

impl SamplingPolicy for Windows {
    fn name(&self) -> String {
        "windows".into()
    }
    fn draw(&self, draw: &Draw) -> Vec<usize> {
        [[0, 2], [1, 3], [0, 1]][draw.period as usize % 3].to_vec()
    }
}

fn tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, t)| (name.to_string(), (t.shape().to_vec(), t.data().to_vec())))
        .collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|c| f32::from_le_bytes(c.try_into().unwrap()))
        .collect()
}

fn ints(family: &str, name: &str, device: &Device) -> Tensor<2, Int> {
    let (shape, bytes) = tensors(&fixture(family).join("reference.safetensors"))
        .remove(name)
        .unwrap();
    let values: Vec<i64> = bytes
        .chunks_exact(8)
        .map(|c| i64::from_le_bytes(c.try_into().unwrap()))
        .collect();
    Tensor::<1, Int>::from_data(values.as_slice(), device).reshape([shape[0], shape[1]])
}

fn load(family: &str, device: &Device) -> CausalLm {
    Checkpoint::open(fixture(family))
        .unwrap()
        .load(device, None)
        .unwrap()
}

fn adamw(decay: f32) -> AdamWConfig {
    AdamWConfig::new()
        .with_epsilon(1e-8)
        .with_weight_decay(decay)
}

fn config(on_freeze: OnFreeze) -> LisaConfig {
    LisaConfig::new()
        .with_sampling_period(4)
        .with_on_freeze(on_freeze)
}

/// Trains on the fixture's batch; the loss before each step.
fn train(
    lisa: &mut Lisa,
    mut model: CausalLm,
    family: &str,
    steps: usize,
    lr: f64,
) -> (CausalLm, Vec<f32>) {
    let device = device();
    let tokens = ints(family, "input_ids", &device);
    let mut losses = Vec::new();
    for _ in 0..steps {
        let loss = model.loss(&Input::new(tokens.clone()), tokens.clone());
        losses.push(loss.clone().into_scalar::<f32>());
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = lisa.step(lr, model, grads);
    }
    (model, losses)
}

fn assert_losses(found: &[f32], wanted: &Value, what: &str) {
    let wanted: Vec<f32> = wanted
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l.as_f64().unwrap() as f32)
        .collect();
    assert_eq!(found.len(), wanted.len());
    let pairs = || found.iter().zip(&wanted);
    let largest = pairs().fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    println!("{what}: losses differ by {largest:e} at most");
    for (step, (a, b)) in pairs().enumerate() {
        let near = (a - b).abs() < of_losses();
        assert!(near, "{what}, step {step}: {a} is not {b}");
    }
}

/// The tensors of a model as it is saved.
fn saved(model: &CausalLm) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    save(model, dir.path(), &SaveOptions::default()).unwrap();
    tensors(&dir.path().join("model.safetensors"))
}

fn assert_weights(model: &CausalLm, family: &str, file: &str) {
    let ours = saved(model);
    let mut differences = Vec::new();
    for (name, (shape, theirs)) in tensors(&fixture(family).join(file)) {
        let (our_shape, ours) = &ours[&name];
        assert_eq!(*our_shape, shape, "{name}");
        let theirs = floats(&theirs);
        let third = theirs.len() / 3;
        for (i, (a, b)) in floats(ours).iter().zip(&theirs).enumerate() {
            let key_bias = name.ends_with("c_attn.bias") && (third..2 * third).contains(&i);
            if !key_bias {
                differences.push((a - b).abs());
            }
        }
    }
    differences.sort_by(f32::total_cmp);
    let at = |share: f64| differences[((differences.len() - 1) as f64 * share) as usize];
    let (most, rest) = (at(0.999), at(1.0));
    let what = format!(
        "{family} {file}: weights differ by {most:e} at the 99.9th percentile, {rest:e} at most"
    );
    println!("{what}");
    assert!(most < 1e-5 && rest < 5e-4, "{what}");
}

#[test]
fn twelve_steps_are_pytorchs_with_moments_dropped_and_kept() {
    for family in FAMILIES {
        for (name, on_freeze) in [
            ("drop", OnFreeze::Drop),
            ("keep", OnFreeze::Keep),
            ("keep", OnFreeze::Offload),
        ] {
            let model = load(family, &device());
            let (mut lisa, model) = config(on_freeze)
                .with_policy(PolicyConfig::custom(Windows))
                .init(adamw(0.01), model)
                .unwrap();
            let (model, losses) = train(&mut lisa, model, family, 12, 1e-3);
            assert_losses(&losses, &numbers(family)["runs"][name]["loss"], name);
            assert_weights(&model, family, &format!("final_{name}.safetensors"));
        }
    }
}

#[test]
fn global_norm_clipping_and_groups_without_decay_are_pytorchs() {
    for family in FAMILIES {
        let config = config(OnFreeze::Keep)
            .with_max_grad_norm(Some(1.0))
            .with_policy(PolicyConfig::custom(Windows));
        let wanted = &numbers(family)["runs"]["keep_hf_groups_clip1"]["loss"];
        let model = load(family, &device());
        let (lisa, model) = config.init(adamw(0.01), model).unwrap();
        // transformers decays neither norms nor biases.
        let plain = ParamGroup::from_regex(r"(bias|gamma|beta)$").unwrap();
        let mut lisa = lisa.with_group(plain, adamw(0.0));
        let (model, losses) = train(&mut lisa, model, family, 12, 1e-3);
        assert_losses(&losses, wanted, family);
        // They are the parameters of rank 0 and 1.
        let config = config.with_decay(Decay::Matrices);
        let (mut lisa, start) = config.init(adamw(0.01), load(family, &device())).unwrap();
        let (by_rank, losses) = train(&mut lisa, start, family, 12, 1e-3);
        assert_losses(&losses, wanted, family);
        // On wgpu, two equal runs differ in the last digit.
        if Device::default() == Device::flex() {
            assert_eq!(saved(&by_rank), saved(&model), "{family}");
        }
    }
}

#[test]
fn a_masked_and_padded_batch_has_pytorchs_loss() {
    let device = Device::default();
    for family in FAMILIES {
        let model = load(family, &device);
        let padding = ints(family, "attention_mask", &device).equal_scalar(0);
        let input = Input::new(ints(family, "input_ids", &device)).with_padding(padding);
        let loss = model
            .loss(&input, ints(family, "masked_labels", &device))
            .into_scalar::<f32>();
        let wanted = numbers(family)["masked"]["loss"].as_f64().unwrap() as f32;
        assert!(
            (loss - wanted).abs() < 1e-5,
            "{family}: {loss} is not {wanted}"
        );
    }
}

#[test]
fn bf16_with_masters_tracks_f32_and_plain_bf16_at_1e_5_does_not() {
    if !device().supports_dtype(DType::BF16) {
        println!("this device has no bf16");
        return;
    }
    let fall = |half: bool, masters: bool| {
        let model = load("llama", &device());
        let model = if half {
            model.cast(FloatDType::BF16)
        } else {
            model
        };
        let (mut lisa, model) = config(OnFreeze::Drop)
            .with_sampling_period(200)
            .with_master_weights(masters)
            .with_policy(PolicyConfig::custom(Windows))
            .init(adamw(0.01), model)
            .unwrap();
        let (_, losses) = train(&mut lisa, model, "llama", 150, 1e-5);
        losses[0] - losses[149]
    };
    let (exact, masters, plain) = (fall(false, true), fall(true, true), fall(true, false));
    println!("loss fell by {exact} in f32, {masters} with masters, {plain} without");
    assert!(
        (masters / exact - 1.0).abs() < 0.3,
        "masters {masters}, f32 {exact}"
    );
    assert!(plain.abs() < 0.3 * exact, "plain {plain}, f32 {exact}");
}

#[test]
fn a_trained_model_saved_and_loaded_is_the_same_bit_for_bit() {
    for family in FAMILIES {
        let device = device();
        let model = load(family, &device);
        let (mut lisa, model) = config(OnFreeze::Drop)
            .with_policy(PolicyConfig::custom(Windows))
            .init(adamw(0.01), model)
            .unwrap();
        let (model, _) = train(&mut lisa, model, family, 3, 1e-3);
        let dir = tempfile::tempdir().unwrap();
        let options = SaveOptions {
            max_shard_bytes: 100_000,
            ..SaveOptions::default()
        };
        save(&model, dir.path(), &options).unwrap();
        let again = Checkpoint::open(dir.path())
            .unwrap()
            .load(&device, None)
            .unwrap();
        assert_eq!(saved(&model), saved(&again));
    }
}
