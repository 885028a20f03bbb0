//! Checks of the record of LoRA's optimizer before it is used. Burn panics on state without a
//! parameter, of another rank or of another shape, and ignores unknown state.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::ModuleOptimizer;
use burn::tensor::{DType, Tensor};
use burn_pack::{Reader, Scalar};

/// The maximum size of a record's metadata.
const METADATA_BYTES: u32 = 64 << 20;
/// The offset of the metadata's length in a burnpack file.
const METADATA_SIZE_AT: usize = 6;
/// The largest integer in an optimizer's state, which counts steps.
const LARGEST_COUNT: u64 = 1 << 48;
/// The name under which Burn stores a parameter's rank.
const RANK: &str = "__rank";

/// Loads the state of this optimizer, whose state tensors have the shapes and dtypes of their
/// parameters. The file may come from an untrusted source.
///
/// # Errors
///
/// The file cannot be read, or has state that does not fit a parameter of the model.
pub(crate) fn load(
    optimizer: ModuleOptimizer,
    path: &Path,
    model: &impl Module,
) -> Result<ModuleOptimizer> {
    let tensors = check(path, &shapes(model))?;
    let optimizer = optimizer.load(path)?;
    let loaded = optimizer.to_record().len();
    ensure!(
        loaded == tensors,
        "it has {tensors} tensors, and the optimizer uses {loaded} of them"
    );
    Ok(optimizer)
}

/// The number of tensors in the record of a file, if all its state fits these parameters.
fn check(path: &Path, shapes: &HashMap<u64, (Vec<usize>, DType)>) -> Result<usize> {
    // Opening a pipe would wait for a writer.
    ensure!(path.metadata()?.is_file(), "it is not a regular file");
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut head = [0; METADATA_SIZE_AT + 4];
    file.read_exact(&mut head)?;
    let [.., a, b, c, d] = head;
    let metadata = u32::from_le_bytes([a, b, c, d]);
    ensure!(
        metadata <= METADATA_BYTES && u64::from(metadata) <= length,
        "its header claims {metadata} bytes of metadata, but the file has {length} bytes and the \
         limit is {METADATA_BYTES}"
    );
    let reader = Reader::from_file_exact(path)?;
    let shape_of = |name: &str| {
        let id = name.split_once('.').and_then(|(id, _)| id.parse().ok());
        let shape = id.and_then(|id| Some((id, shapes.get(&id)?)));
        shape.ok_or_else(|| anyhow::anyhow!("`{name}` belongs to no parameter of the model"))
    };
    for (name, value) in reader.scalars() {
        let (_, (shape, _)) = shape_of(name)?;
        let is_rank = name.ends_with(RANK);
        let fits = match *value {
            Scalar::UInt(value) if is_rank => value == shape.len() as u64,
            Scalar::UInt(value) => value <= LARGEST_COUNT,
            Scalar::Int(value) => !is_rank && value.unsigned_abs() <= LARGEST_COUNT,
            _ => !is_rank,
        };
        ensure!(fits, "`{name}` is {value:?}");
    }
    let tensors = reader.into_tensors()?;
    let mut total = 0;
    for tensor in &tensors {
        let (id, (shape, wanted)) = shape_of(&tensor.name)?;
        let (name, found) = (&tensor.name, &tensor.shape[..]);
        ensure!(
            tensor.param_id == Some(id),
            "`{name}` has another parameter id than its name"
        );
        let dtype = tensor.dtype;
        if dtype != *wanted || found != shape {
            bail!(
                "`{name}` has shape {found:?} and dtype {dtype:?}, but the parameter has shape \
                 {shape:?} and dtype {wanted:?}"
            );
        }
        total += tensor.byte_len() as u64;
    }
    // Tensors that overlap in the file would need more memory than the file has.
    ensure!(
        total <= length,
        "its tensors have {total} bytes, but the file has only {length}"
    );
    Ok(tensors.len())
}

/// The shapes and dtypes of a model's parameters by their ids.
fn shapes(model: &impl Module) -> HashMap<u64, (Vec<usize>, DType)> {
    struct Shapes(HashMap<u64, (Vec<usize>, DType)>);
    impl ModuleVisitor for Shapes {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let shape = param.lazy_shape().iter().copied().collect();
            let dtype = param.val().dtype();
            self.0.insert(param.id.val(), (shape, dtype));
        }
    }
    let mut found = Shapes(HashMap::new());
    model.visit(&mut found);
    found.0
}

#[cfg(test)]
mod tests {
    use burn::module::{Lora, ParamGroup};
    use burn::optim::{AdamWConfig, GradientsParams};
    use burn::tensor::{Bytes, Device, Int};
    use burn_pack::{Tensor as PackTensor, Writer};
    use lisa_lm::ModelConfig;
    use lisa_lm::model::{CausalLm, Input, config::LlamaConfig};

    use super::*;

    /// A model with adapters, and its optimizer after a step.
    fn trained() -> (CausalLm, ModuleOptimizer) {
        let device = Device::flex().autodiff();
        let model = ModelConfig::Llama(LlamaConfig::new(16, 8, 1, 2));
        let matrices = ParamGroup::from_regex(r"\.layers\.\d+\..*weight$").unwrap();
        let lora = Lora::new(2, 4.0).set_param_group(matrices);
        let model = model.init(&device).unwrap().apply_lora(lora);
        let mut optimizer = AdamWConfig::new().init();
        let tokens = burn::tensor::Tensor::<2, Int>::from_data([[1, 2, 3]], &device);
        let loss = model.loss(&Input::new(tokens.clone()), tokens);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let model = optimizer.step(1e-3, model, grads);
        (model, optimizer)
    }

    /// What loading the record says after a change of its tensors and scalars.
    fn refusal(
        change: impl FnOnce(&mut Vec<PackTensor>, &mut Vec<(String, Scalar)>),
    ) -> Result<(), String> {
        let (model, optimizer) = trained();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("optimizer.bpk");
        let reader = Reader::from_bytes(optimizer.into_bytes().unwrap()).unwrap();
        let mut scalars: Vec<_> = reader.scalars().clone().into_iter().collect();
        let metadata = reader.metadata().clone();
        let mut tensors = reader.into_tensors().unwrap();
        change(&mut tensors, &mut scalars);
        let mut writer = Writer::new(tensors);
        for (name, value) in scalars {
            writer = writer.with_scalar(&name, value);
        }
        for (key, value) in &metadata {
            writer = writer.with_metadata(key, value);
        }
        std::fs::write(&path, writer.into_bytes().unwrap().to_vec()).unwrap();
        let loaded = load(AdamWConfig::new().init(), &path, &model);
        loaded.map(drop).map_err(|error| error.to_string())
    }

    /// The first tensor with other parts.
    fn replaced(tensors: &mut [PackTensor], dtype: DType, shape: &[usize], id: Option<u64>) {
        let bytes = vec![0; shape.iter().product::<usize>() * dtype.size()];
        let bytes = Bytes::from_bytes_vec(bytes);
        let name = tensors[0].name.clone();
        tensors[0] = PackTensor::new(name, dtype, shape.to_vec(), id, bytes);
    }

    #[test]
    fn a_record_of_lora_is_loaded_and_a_hostile_one_is_refused() {
        assert_eq!(refusal(|_, _| ()), Ok(()));
        let shape = |tensors: &[PackTensor]| tensors[0].shape[..].to_vec();
        let cases: Vec<(Result<(), String>, &str)> = vec![
            (
                refusal(|tensors, _| {
                    let shape = shape(tensors);
                    replaced(tensors, DType::F32, &shape, None);
                }),
                "another parameter id",
            ),
            (
                refusal(|tensors, _| {
                    let id = tensors[0].param_id;
                    replaced(tensors, DType::F32, &[1, 1, 1], id);
                }),
                "has shape [1, 1, 1]",
            ),
            (
                refusal(|tensors, _| {
                    let (shape, id) = (shape(tensors), tensors[0].param_id);
                    replaced(tensors, DType::I64, &shape, id);
                }),
                "dtype I64",
            ),
            (
                refusal(|tensors, _| {
                    let (shape, id) = (shape(tensors), tensors[0].param_id);
                    replaced(tensors, DType::BF16, &shape, id);
                }),
                "and dtype F32",
            ),
            (
                refusal(|tensors, _| tensors[0].name = "1.momentum.moment_1".into()),
                "belongs to no parameter",
            ),
            (
                refusal(|_, scalars| {
                    let rank = scalars.iter_mut().find(|(name, _)| name.ends_with(RANK));
                    rank.unwrap().1 = Scalar::UInt(9);
                }),
                "__rank` is UInt(9)",
            ),
            (
                refusal(|_, scalars| {
                    let time = scalars.iter_mut().find(|(name, _)| !name.ends_with(RANK));
                    time.unwrap().1 = Scalar::UInt(u64::MAX);
                }),
                "is UInt(",
            ),
            (
                refusal(|tensors, _| drop(tensors.remove(0))),
                "the optimizer uses",
            ),
        ];
        for (found, expected) in cases {
            let found = found.unwrap_err();
            assert!(found.contains(expected), "`{expected}` is not in: {found}");
        }
    }
}
