//! LoRA trains as PEFT does (`tests/fixtures/make_lora.py`). The settings of LISA, and dropout, are in
//! `trainer/tests/`.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, TensorData};
use lisa_lm::Checkpoint;
use lisa_lm::model::Input;
use serde_json::Value;

use super::*;
use crate::settings::Flags;
use crate::train::saved::adapter::begun_with;

mod config;
mod dropout;
mod some_layers;

fn fixture(family: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join("tests/fixtures").join(family)
}

/// The shape and the bytes of a tensor in a safetensors file.
fn tensor(path: &Path, name: &str) -> (Vec<usize>, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let entry = &header[name];
    let range: [usize; 2] = serde_json::from_value(entry["data_offsets"].clone()).unwrap();
    let data = &bytes[8 + length..];
    let shape = serde_json::from_value(entry["shape"].clone()).unwrap();
    (shape, data[range[0]..range[1]].to_vec())
}

/// The losses of the steps and the logits after them, with this norm of the gradients.
fn trained(family: &str, max_grad_norm: f64) -> (Vec<f64>, Vec<f32>) {
    let folder = fixture(family);
    let mut flags = Flags::default();
    flags.input.model = Some(folder.clone());
    flags.method.adapter = Some(folder.join("lora"));
    flags.training.weight_decay = Some(0.01);
    flags.training.max_grad_norm = Some(max_grad_norm);
    let settings = flags.with_adapter().unwrap().resolve(None).unwrap();
    assert_eq!(settings.method.method, Method::Lora);
    let device = Device::flex().autodiff();
    let model = Checkpoint::open(&folder)
        .unwrap()
        .load(&device, None)
        .unwrap();
    let model = begun_with(&settings.method, model, (&folder, ""), false).unwrap();
    let (mut trainer, mut model) = Trainer::new(&settings, model, &device).unwrap();

    let (shape, bytes) = tensor(&folder.join("reference.safetensors"), "input_ids");
    let ids: Vec<i64> = bytes
        .chunks(8)
        .map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &device);
    let input = Input::new(ids.clone());
    let mut losses = Vec::new();
    for _ in 0..6 {
        let loss = model.loss(&input, ids.clone());
        losses.push(f64::from(loss.clone().into_scalar::<f32>()));
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        trainer.check(&model, &grads).unwrap();
        model = trainer.step(1e-2, model, grads).unwrap();
    }
    let logits = model.forward(&input);
    let [rows, length, vocab] = logits.dims();
    let last = logits.slice([0..rows, length - 4..length, 0..vocab]);
    (losses, last.into_data().iter().collect())
}

#[test]
fn lora_steps_have_the_losses_and_logits_of_peft() {
    for family in ["llama", "gpt2"] {
        let folder = fixture(family).join("lora");
        let text = fs::read_to_string(folder.join("fixture.json")).unwrap();
        let fixture: Value = serde_json::from_str(&text).unwrap();
        let expected: Vec<f64> = serde_json::from_value(fixture["losses"].clone()).unwrap();
        let (losses, logits) = trained(family, 0.1);
        for (found, expected) in losses.iter().zip(&expected) {
            assert!((found - expected).abs() < 2e-5, "{family}: {losses:?}");
        }
        let (_, bytes) = tensor(&folder.join("reference.safetensors"), "end");
        for (found, bytes) in logits.iter().zip(bytes.chunks(4)) {
            let expected = f32::from_le_bytes(bytes.try_into().unwrap());
            assert!(
                (found - expected).abs() < 2e-4,
                "{family}: {found} {expected}"
            );
        }
        // The steps depend on the norm.
        let (unclipped, _) = trained(family, 0.0);
        assert!((unclipped[5] - expected[5]).abs() > 1e-4, "{family}");
    }
}
