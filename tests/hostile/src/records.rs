//! Records of LISA and its configuration.

use std::cell::RefCell;
use std::fs;

use burn::config::Config;
use burn::tensor::{Bytes, DType};
use burn_pack::{Reader, Scalar, Tensor, Writer};
use lisa::{Lisa, LisaConfig};
use serde_json::Value;
use tempfile::TempDir;

use crate::json::mutate_value;
use crate::model::{Small, start};
use crate::rng::{Rng, mutate_bytes};

thread_local! {
    static RUN: RefCell<Option<(TempDir, Lisa, Small)>> = const { RefCell::new(None) };
}

/// The configuration of the run whose record is in the corpus.
#[must_use]
pub fn config() -> LisaConfig {
    LisaConfig::new()
        .with_active_layers(2)
        .with_sampling_period(2)
}

/// The record in the corpus: a run of the small model after three steps.
///
/// # Panics
///
/// Where it cannot be made.
#[must_use]
pub fn fresh_record() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (mut lisa, mut model) = start(&config()).unwrap();
    for _ in 0..3 {
        model = model.step(&mut lisa);
    }
    let path = dir.path().join("run.lisa");
    lisa.save(&path).unwrap();
    fs::read(path).unwrap()
}

/// A record: loads it and, where that went well, takes a step and saves.
///
/// # Panics
///
/// Where no folder can be made.
pub fn record(bytes: &[u8]) {
    let (path, mut lisa, model) = RUN.with_borrow_mut(|run| {
        let (dir, lisa, model) = run.get_or_insert_with(|| {
            let (lisa, model) = start(&config()).unwrap();
            (tempfile::tempdir().unwrap(), lisa, model)
        });
        (dir.path().join("run.lisa"), lisa.clone(), model.clone())
    });
    fs::write(&path, bytes).unwrap();
    if let Ok(mut model) = lisa.load(&path, model) {
        for _ in 0..3 {
            model = model.step(&mut lisa);
        }
        let _ = lisa.save(&path);
    }
}

/// A configuration: reads it, starts a run with it, and takes a step.
pub fn lisa_config(bytes: &[u8]) {
    let Ok(config) = LisaConfig::load_binary(bytes) else {
        return;
    };
    let _ = config.to_string();
    if let Ok((mut lisa, model)) = start(&config) {
        let _ = model.step(&mut lisa);
        let _ = lisa.to_string();
    }
}

/// Mutates a record: its run, names, shapes, types and scalars, or its bytes.
#[must_use]
pub fn mutate(rng: &mut Rng, input: &[u8], _corpus: &[Vec<u8>]) -> Vec<u8> {
    if rng.once_in(4) {
        return mutate_bytes(rng, input);
    }
    let Ok(reader) = Reader::from_bytes(Bytes::from_bytes_vec(input.to_vec())) else {
        return mutate_bytes(rng, input);
    };
    let mut metadata = reader.metadata().clone();
    let mut scalars = reader.scalars().clone();
    let Ok(mut tensors) = reader.into_tensors() else {
        return mutate_bytes(rng, input);
    };
    for _ in 0..=rng.below(2) {
        match rng.below(6) {
            0 => {
                let run = metadata
                    .get("lisa")
                    .and_then(|run| serde_json::from_str(run).ok());
                if let Some(mut run) = run {
                    mutate_run(rng, &mut run);
                    metadata.insert("lisa".into(), run.to_string());
                }
            }
            1 if !tensors.is_empty() => {
                let at = rng.below(tensors.len());
                tensors[at] = reshaped(rng, &tensors[at]);
            }
            2 if !tensors.is_empty() => {
                let (from, to) = (rng.below(tensors.len()), rng.below(tensors.len()));
                let name = tensors[from].name.clone();
                tensors[to].name = name;
                if rng.once_in(2) {
                    tensors[to].name.push_str(rng.pick::<&str>(&[
                        ".master",
                        ".",
                        "x",
                        ".slice1.x",
                        "",
                    ]));
                }
            }
            3 if !tensors.is_empty() => drop(tensors.remove(rng.below(tensors.len()))),
            4 => {
                let names: Vec<String> = scalars.keys().cloned().collect();
                if !names.is_empty() {
                    let name = rng.pick(&names).clone();
                    let value = match rng.below(7) {
                        0 => Scalar::UInt(u64::MAX),
                        1 => Scalar::Int(i64::MIN),
                        2 => Scalar::Float(f64::NAN),
                        3 => Scalar::Bool(true),
                        4 => Scalar::UInt(rng.below(20) as u64),
                        5 => Scalar::UInt(0),
                        _ => {
                            scalars.remove(&name);
                            continue;
                        }
                    };
                    scalars.insert(name, value);
                }
            }
            _ => {
                let names: Vec<String> = metadata.keys().cloned().collect();
                if !names.is_empty() {
                    let name = rng.pick(&names).clone();
                    let value = metadata.remove(&name).unwrap_or_default();
                    metadata.insert(rng.pick(&names).clone(), value);
                }
            }
        }
    }
    let mut writer = Writer::new(tensors);
    for (key, value) in &metadata {
        writer = writer.with_metadata(key, value);
    }
    for (key, value) in &scalars {
        writer = writer.with_scalar(key, *value);
    }
    match writer.into_bytes() {
        Ok(bytes) => bytes.to_vec(),
        Err(_) => mutate_bytes(rng, input),
    }
}

fn mutate_run(rng: &mut Rng, run: &mut Value) {
    mutate_value(rng, run, &[]);
}

/// The tensor with another shape or type.
fn reshaped(rng: &mut Rng, tensor: &Tensor) -> Tensor {
    let dtype = *rng.pick(&[
        DType::F32,
        DType::F32,
        DType::F64,
        DType::BF16,
        DType::I64,
        DType::U8,
    ]);
    let shape: Vec<usize> = match rng.below(8) {
        0 => vec![],
        1 => vec![0],
        2 => vec![4],
        3 => vec![4, 4],
        4 => vec![1, 4],
        5 => vec![4, 5],
        6 => vec![1; 1 + rng.below(9)],
        _ => vec![2, 2, 4],
    };
    let bytes = shape.iter().product::<usize>() * dtype.size();
    let data = Bytes::from_bytes_vec(vec![1; bytes]);
    Tensor::new(tensor.name.clone(), dtype, shape, tensor.param_id, data)
}
