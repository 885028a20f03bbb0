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
/// If it cannot be made.
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

/// Loads a record and, if it is accepted, takes steps and saves.
///
/// # Panics
///
/// If no folder can be made.
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

/// Reads a configuration, starts a run with it, and takes a step.
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

/// Mutates a record: its run, names, shapes, dtypes and scalars, or its bytes.
#[must_use]
pub fn mutate(rng: &mut Rng, input: &[u8], _corpus: &[Vec<u8>]) -> Vec<u8> {
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(input.to_vec()));
    let changed = reader.ok().filter(|_| !rng.once_in(4));
    let changed = changed.and_then(|reader| changed_record(rng, reader));
    changed.unwrap_or_else(|| mutate_bytes(rng, input))
}

fn changed_record(rng: &mut Rng, reader: Reader) -> Option<Vec<u8>> {
    let mut metadata = reader.metadata().clone();
    let mut scalars = reader.scalars().clone();
    let mut tensors = reader.into_tensors().ok()?;
    for _ in 0..=rng.below(2) {
        let at = rng.below(tensors.len());
        match rng.below(6) {
            0 => {
                let mut run: Value = serde_json::from_str(metadata.get("lisa")?).ok()?;
                mutate_value(rng, &mut run, &[]);
                metadata.insert("lisa".into(), run.to_string());
            }
            1 if !tensors.is_empty() => tensors[at] = reshaped(rng, &tensors[at]),
            2 if !tensors.is_empty() => {
                let end = *rng.pick::<&str>(&[".master", ".", "x", ".slice1.x", ""]);
                tensors[at].name = format!("{}{end}", rng.pick(&tensors).name);
            }
            3 if !tensors.is_empty() => drop(tensors.remove(at)),
            4 => {
                let names: Vec<String> = scalars.keys().cloned().collect();
                let value = *rng.pick(&[
                    Scalar::UInt(u64::MAX),
                    Scalar::UInt(0),
                    Scalar::UInt(7),
                    Scalar::Int(i64::MIN),
                    Scalar::Float(f64::NAN),
                    Scalar::Bool(true),
                ]);
                scalars.insert(names.get(rng.below(names.len()))?.clone(), value);
            }
            _ => {
                let names: Vec<String> = metadata.keys().cloned().collect();
                metadata.remove(names.get(rng.below(names.len()))?);
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
    Some(writer.into_bytes().ok()?.to_vec())
}

/// The tensor with another shape and dtype.
fn reshaped(rng: &mut Rng, tensor: &Tensor) -> Tensor {
    let dtypes = [DType::F32, DType::F32, DType::F64, DType::BF16, DType::I64];
    let dtype = *rng.pick(&dtypes);
    let shapes: [&[usize]; 7] = [&[], &[0], &[4], &[4, 4], &[1, 4], &[4, 5], &[1; 9]];
    let shape = rng.pick::<&[usize]>(&shapes).to_vec();
    let bytes = shape.iter().product::<usize>() * dtype.size();
    let data = Bytes::from_bytes_vec(vec![1; bytes]);
    Tensor::new(tensor.name.clone(), dtype, shape, tensor.param_id, data)
}
