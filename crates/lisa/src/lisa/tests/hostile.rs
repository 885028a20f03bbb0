//! Invalid records are refused before they are used, with an error that names the cause.

use burn::optim::{AdaGradConfig, AdamConfig, LambConfig, RmsPropConfig};
use burn::tensor::Bytes;
use burn_pack::{Reader, Scalar, Writer};

use super::*;

/// What loading a record said that was changed so; nothing where it was loaded.
fn refusal(change: impl FnOnce(&mut Parts)) -> String {
    loaded(change).err().unwrap_or_default()
}

/// A record after three steps, its parts changed by `change`, loaded: the layers that are active then.
fn loaded(change: impl FnOnce(&mut Parts)) -> Result<Vec<usize>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.lisa");
    let config = LisaConfig::new().with_sampling_period(2);
    let (mut lisa, model) = init(&config);
    let _ = train(&mut lisa, model, 0..3);
    lisa.save(&path).unwrap();
    let mut parts = Parts::read(&path);
    change(&mut parts);
    parts.write(&path);
    let (mut lisa, model) = init(&config);
    let before = model.bits();
    match lisa.load(&path, model.clone()) {
        Ok(model) => {
            let active = lisa.active_layers().to_vec();
            // What was accepted must be usable.
            let _ = train(&mut lisa, model, 3..7);
            Ok(active)
        }
        Err(error) => {
            assert_eq!((lisa.steps(), model.bits()), (0, before));
            Err(error.to_string())
        }
    }
}

struct Parts {
    tensors: Vec<burn_pack::Tensor>,
    scalars: std::collections::BTreeMap<String, Scalar>,
    metadata: std::collections::BTreeMap<String, String>,
}

impl Parts {
    fn read(path: &std::path::Path) -> Self {
        let bytes = Bytes::from_bytes_vec(std::fs::read(path).unwrap());
        let reader = Reader::from_bytes(bytes).unwrap();
        let (scalars, metadata) = (reader.scalars().clone(), reader.metadata().clone());
        let mut tensors = reader.into_tensors().unwrap();
        // A weight comes first, whatever the ids of this run are.
        tensors.sort_by_key(|tensor| tensor.shape.len() != 2);
        Self {
            tensors,
            scalars,
            metadata,
        }
    }

    fn write(self, path: &std::path::Path) {
        let mut writer = Writer::new(self.tensors);
        for (name, value) in self.scalars {
            writer = writer.with_scalar(&name, value);
        }
        for (name, value) in &self.metadata {
            writer = writer.with_metadata(name, value);
        }
        std::fs::write(path, writer.into_bytes().unwrap().to_vec()).unwrap();
    }

    fn replace(&mut self, at: usize, dtype: DType, shape: &[usize]) {
        let tensor = &self.tensors[at];
        let bytes = vec![0; shape.iter().product::<usize>() * dtype.size()];
        let bytes = Bytes::from_bytes_vec(bytes);
        let (name, id) = (tensor.name.clone(), tensor.param_id);
        self.tensors[at] = burn_pack::Tensor::new(name, dtype, shape.to_vec(), id, bytes);
    }

    fn run(&mut self, change: impl FnOnce(&mut serde_json::Value)) {
        let run = self.metadata.get_mut("lisa").unwrap();
        let mut value = serde_json::from_str(run).unwrap();
        change(&mut value);
        *run = value.to_string();
    }
}

#[test]
fn an_unchanged_record_is_loaded() {
    assert_eq!(refusal(|_| ()), "");
}

#[test]
fn a_record_of_another_version_is_refused_by_its_version() {
    let message = refusal(|parts| {
        parts.run(|run| {
            run["format"] = 2.into();
            run.as_object_mut().unwrap().remove("decay");
        });
    });
    assert!(message.contains("its format version is 2"), "{message}");
    let message = refusal(|parts| parts.run(|run| run["format"] = 0.into()));
    assert!(message.contains("its format version is 0"), "{message}");
}

#[test]
fn the_state_of_every_optimizer_fits() {
    fn check<C: OptimizerConfig + Clone>(name: &str, optimizer: C) {
        let config = LisaConfig::new().with_sampling_period(2);
        for make in [net as fn(&Device) -> Net, to_half] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("run.lisa");
            let start = || {
                let (lisa, model) = config.init(optimizer.clone(), make(&device())).unwrap();
                let biases = ParamGroup::from_predicate("bias");
                (lisa.with_group(biases, adamw()), model)
            };
            let (mut lisa, model) = start();
            let _ = train(&mut lisa, model, 0..3);
            lisa.save(&path).unwrap();
            let held = lisa.get_ref().to_record().len();
            let (mut lisa, model) = start();
            if let Err(error) = lisa.load(&path, model) {
                panic!("{name}: {error}");
            }
            assert_eq!(lisa.get_ref().to_record().len(), held, "{name}");
        }
    }
    let momentum = || MomentumConfig::new();
    check("AdamW", adamw());
    check("AMSGrad", AdamWConfig::new().with_amsgrad(true));
    check("Adam", AdamConfig::new());
    check("SGD", SgdConfig::new());
    check("momentum", SgdConfig::new().with_momentum(Some(momentum())));
    check("Lion", LionConfig::new());
    check("Adafactor", AdafactorConfig::new());
    check("Adan", AdanConfig::new());
    check("AdaGrad", AdaGradConfig::new());
    check("RmsProp", RmsPropConfig::new().with_centered(true));
    check("Lamb", LambConfig::new());
    check("Muon", MuonConfig::new());
}

#[test]
fn moments_of_another_shape_or_type_are_refused() {
    let shapes: [&[usize]; 6] = [&[], &[4], &[4, 5], &[1, 4], &[4, 4, 1], &[0, 4]];
    for shape in shapes {
        let message = refusal(|parts| parts.replace(0, DType::F32, shape));
        assert!(
            message.contains(&format!("has shape {shape:?}")),
            "{message}"
        );
    }
    let message = refusal(|parts| parts.replace(0, DType::I64, &[4, 4]));
    assert!(message.contains("dtype I64"), "{message}");
    let message = refusal(|parts| {
        for tensor in &mut parts.tensors {
            tensor.name = tensor.name.replace("moments.", "moments.slice7.");
        }
    });
    assert!(message.contains("has shape"), "{message}");
}

#[test]
fn numbers_that_no_run_reaches_are_refused() {
    for (end, value) in [
        ("time", Scalar::UInt(u64::MAX)),
        ("time", Scalar::Int(i64::MIN)),
        ("__rank", Scalar::UInt(99)),
        ("__rank", Scalar::UInt(1)),
    ] {
        let message = refusal(|parts| {
            let mut values = parts.scalars.iter_mut().filter(|(name, value)| {
                // The rank of a weight, which is 2: a bias has 1.
                name.ends_with(end) && (end == "time" || matches!(value, Scalar::UInt(2)))
            });
            *values.next().unwrap().1 = value;
        });
        assert!(message.contains(&format!("is {value:?}")), "{message}");
    }
    let message = refusal(|parts| parts.run(|run| run["step"] = u64::MAX.into()));
    assert!(message.contains("its step is"), "{message}");
}

#[test]
fn state_of_another_optimizer_is_refused_and_not_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.lisa");
    let config = LisaConfig::new();
    let lion = LionConfig::new();
    let (mut lisa, model) = config.init(lion, net(&device())).unwrap();
    let _ = train(&mut lisa, model, 0..1);
    lisa.save(&path).unwrap();
    let (mut lisa, model) = init(&config);
    let message = lisa.load(&path, model).unwrap_err().to_string();
    assert!(
        message.contains("does not belong to this run's optimizer"),
        "{message}"
    );
    // A leaf that is gone.
    let message = refusal(|parts| drop(parts.tensors.remove(0)));
    assert!(
        message.contains("does not belong to this run's optimizer"),
        "{message}"
    );
}

#[test]
fn drawn_layers_are_put_in_order_and_must_be_there() {
    let active = loaded(|parts| parts.run(|run| run["active"] = vec![3, 1, 3, 0].into()));
    assert_eq!(active.unwrap(), [0, 1, 3]);
    let message = refusal(|parts| parts.run(|run| run["active"] = vec![u64::MAX].into()));
    assert!(message.contains("its active layer is"), "{message}");
}

#[test]
fn tensors_that_lie_over_one_another_are_refused() {
    // Burn reads a tensor where its entry says; here all say the same place, ten times the file.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.lisa");
    let (mut lisa, model) = init(&LisaConfig::new());
    let _ = train(&mut lisa, model, 0..1);
    lisa.save(&path).unwrap();
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(std::fs::read(&path).unwrap())).unwrap();
    let tensors = reader.into_tensors().unwrap();
    let total: usize = tensors.iter().map(burn_pack::Tensor::byte_len).sum();
    assert!(crate::lisa::record::check_sizes(&tensors, total as u64).is_ok());
    assert!(crate::lisa::record::check_sizes(&tensors, total as u64 - 1).is_err());
}

#[cfg(unix)]
#[test]
fn a_pipe_or_device_is_refused_before_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for path in [
        pipe.as_path(),
        std::path::Path::new("/dev/zero"),
        dir.path(),
    ] {
        let (mut lisa, model) = init(&LisaConfig::new());
        let message = lisa.load(path, model).unwrap_err().to_string();
        assert!(message.contains("not a regular file"), "{message}");
    }
}

#[test]
fn metadata_that_the_file_does_not_have_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.lisa");
    let (lisa, _) = init(&LisaConfig::new());
    lisa.save(&path).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    for claimed in [u32::MAX, 99 << 20, bytes.len() as u32 + 1] {
        bytes[6..10].copy_from_slice(&claimed.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let (mut lisa, model) = init(&LisaConfig::new());
        let message = lisa.load(&path, model).unwrap_err().to_string();
        assert!(
            message.contains(&format!("claims {claimed} bytes")),
            "{message}"
        );
    }
}
