//! Checks of a record before any of it is used: its sizes must match the file, and its state must
//! fit the parameters. Burn's optimizers panic on state of another shape, and ignore unknown state.
//! Tests: `lisa/tests/hostile.rs`.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use burn::module::ParamId;
use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::tensor::DType;
use burn_pack::{MAX_FILE_SIZE, MAX_TENSOR_COUNT, MAX_TENSOR_SIZE, Reader, Scalar, Tensor, Writer};

use super::cause::Cause;
use crate::LayerMap;
use crate::layers::Parameter;
use crate::optimizer::{Leaves, StateShapes, is_offloaded};
use crate::saved::LARGEST_COUNT;

/// The maximum size of a record's metadata (paths and shapes). It is enough for hundreds of
/// thousands of tensors.
pub(super) const METADATA_BYTES: u32 = 64 << 20;
/// The offset of the metadata's length in a burnpack file.
const METADATA_SIZE_AT: usize = 6;
/// The name under which Burn stores a parameter's rank.
const RANK: &str = "__rank";

/// Opens a record: a regular file that is as large as its metadata says. Returns its size in bytes, too.
pub(super) fn open(path: &Path) -> Result<(Reader, u64), Cause> {
    // Opening a pipe would wait for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err("it is not a regular file".into());
    }
    let mut head = [0; METADATA_SIZE_AT + 4];
    let mut file = File::open(path)?;
    file.read_exact(&mut head)?;
    let length = file.metadata()?.len();
    let [.., a, b, c, d] = head;
    let metadata = u32::from_le_bytes([a, b, c, d]);
    if metadata > METADATA_BYTES || u64::from(metadata) + head.len() as u64 > length {
        return Err(format!(
            "its header claims {metadata} bytes of metadata, but the file has {length} bytes and \
             the limit is {METADATA_BYTES}"
        )
        .into());
    }
    drop(file);
    Ok((Reader::from_file_exact(path)?, length))
}

/// Refuses tensors that overlap in the file: the sum of their sizes is at most the size of the
/// file.
pub(crate) fn sizes(tensors: &[Tensor], length: u64) -> Result<(), String> {
    let total = tensors
        .iter()
        .map(|tensor| tensor.byte_len() as u64)
        .fold(0, u64::saturating_add);
    if total > length {
        return Err(format!(
            "its tensors have {total} bytes, but the file has only {length}"
        ));
    }
    Ok(())
}

/// Refuses a record that Burn would write but not read.
pub(super) fn readable(tensors: &[Tensor]) -> Result<(), String> {
    let sizes = tensors.iter().map(|tensor| tensor.byte_len() as u64);
    in_limits(tensors.len(), sizes.clone().sum(), sizes.max().unwrap_or(0))
}

fn in_limits(count: usize, total: u64, largest: u64) -> Result<(), String> {
    let limits = [
        (count as u64, MAX_TENSOR_COUNT as u64, "tensors"),
        (total, MAX_FILE_SIZE, "bytes"),
        (largest, MAX_TENSOR_SIZE as u64, "bytes in one tensor"),
    ];
    match limits.iter().find(|(found, limit, _)| found > limit) {
        Some((found, limit, what)) => Err(format!(
            "it would have {found} {what}, and Burn reads at most {limit}"
        )),
        None => Ok(()),
    }
}

/// The state of each parameter in a record, by the parameter's index in the map.
#[derive(Default)]
pub(super) struct States(BTreeMap<usize, State>);

#[derive(Default)]
struct State {
    tensors: Vec<Tensor>,
    scalars: Vec<(String, Scalar)>,
}

impl States {
    /// The state that was read from a record.
    pub(super) fn of(leaves: &Leaves, map: &LayerMap) -> Result<Self, String> {
        let mut states = Self::default();
        let index = |id: ParamId| {
            map.index_of(id)
                .ok_or_else(|| "a parameter of the record is not in the model".to_owned())
        };
        for (id, tensor) in leaves.tensors() {
            let state = states.0.entry(index(id)?).or_default();
            state.tensors.push(tensor.clone());
        }
        for (id, name, value) in leaves.scalars() {
            let state = states.0.entry(index(id)?).or_default();
            state.scalars.push((name.to_owned(), value));
        }
        Ok(states)
    }

    /// Refuses state that does not fit its parameter, and state that the optimizer does not know.
    ///
    /// `shapes` returns the shapes of a parameter's state. `optimizer`, which will load the record,
    /// first loads the state of one parameter of each kind as a test. Cost: a copy of the state of
    /// these parameters, on `Device::default()`, where Burn loads it.
    pub(super) fn fit(
        self,
        map: &LayerMap,
        shapes: impl Fn(&Parameter) -> StateShapes,
        optimizer: &ModuleOptimizer,
    ) -> Result<(), String> {
        // The smallest parameter of each kind of state.
        let mut kinds: HashMap<(StateShapes, Vec<String>), (usize, State)> = HashMap::new();
        for (index, state) in self.0 {
            let parameter = &map.parameters()[index];
            let shapes = shapes(parameter);
            state.fits(parameter, shapes)?;
            if state.is_bare() {
                continue;
            }
            match kinds.entry((shapes, state.kind())) {
                Entry::Vacant(kind) => drop(kind.insert((index, state))),
                Entry::Occupied(mut kind) => {
                    if parameter.len() < map.parameters()[kind.get().0].len() {
                        kind.insert((index, state));
                    }
                }
            }
        }
        for (index, state) in kinds.into_values() {
            let (tensors, scalars) = (state.tensors.len(), state.scalars.len());
            let first = state.name().to_owned();
            let record = state.record(&map.parameters()[index])?;
            let loaded = optimizer.clone().load_record(record).to_record();
            let bytes = loaded.into_bytes().map_err(|e| e.to_string())?;
            let again = Reader::from_bytes(bytes).map_err(|e| e.to_string())?;
            if (again.tensor_names().len(), again.scalars().len()) != (tensors, scalars) {
                return Err(format!(
                    "the state with `{first}` does not belong to this run's optimizer"
                ));
            }
        }
        Ok(())
    }
}

impl State {
    /// The structure of the state: names without the parameter's id, and kinds of scalars.
    fn kind(&self) -> Vec<String> {
        let leaf = |name: &str| name.split_once('.').map_or("", |(_, leaf)| leaf).to_owned();
        let kind = |value: &Scalar| match value {
            Scalar::Int(_) | Scalar::UInt(_) => "whole",
            Scalar::Float(_) => "number",
            Scalar::Bool(_) => "truth",
        };
        let scalars = self.scalars.iter();
        let scalars = scalars.map(|(name, value)| format!("{}={}", leaf(name), kind(value)));
        let tensors = self.tensors.iter().map(|tensor| leaf(&tensor.name));
        tensors.chain(scalars).collect()
    }

    /// Whether it is that of an optimizer without state: Burn records the rank, and the run whether
    /// the state is offloaded.
    fn is_bare(&self) -> bool {
        let mut scalars = self.scalars.iter();
        self.tensors.is_empty()
            && scalars.all(|(name, value)| name.ends_with(RANK) || is_offloaded(name, *value))
    }

    fn name(&self) -> &str {
        let tensor = self.tensors.first().map(|tensor| tensor.name.as_str());
        let scalar = || self.scalars.first().map(|(name, _)| name.as_str());
        tensor.or_else(scalar).unwrap_or("")
    }

    fn fits(&self, parameter: &Parameter, shapes: StateShapes) -> Result<(), String> {
        let refuse = |name: &str, what: String| {
            let path = &parameter.path;
            Err(format!("`{name}`, of `{path}`, {what}"))
        };
        let leaves: Vec<(&str, &[usize])> = self
            .tensors
            .iter()
            .map(|tensor| (tensor.name.as_str(), &tensor.shape[..]))
            .collect();
        for tensor in &self.tensors {
            let name = tensor.name.as_str();
            if matches!(tensor.dtype, DType::QFloat(_)) {
                return refuse(name, "is quantized, but optimizer state never is".into());
            }
            let float = tensor.dtype.is_float();
            if !shapes.fit(&leaves, name, &parameter.shape) || !(float || shapes.is_free()) {
                return refuse(
                    name,
                    format!(
                        "has shape {:?} and dtype {:?}, but the parameter has shape {:?}",
                        &tensor.shape[..],
                        tensor.dtype,
                        parameter.shape
                    ),
                );
            }
        }
        for (name, value) in &self.scalars {
            let rank = name.ends_with(RANK);
            let fits = match *value {
                Scalar::UInt(value) if rank => value == parameter.shape.len() as u64,
                Scalar::UInt(value) => value <= LARGEST_COUNT,
                Scalar::Int(value) => !rank && value.unsigned_abs() <= LARGEST_COUNT,
                _ => !rank,
            };
            if !fits {
                return refuse(name, format!("is {value:?}"));
            }
        }
        Ok(())
    }

    /// A record of this parameter only; its path determines the group.
    fn record(self, parameter: &Parameter) -> Result<OptimizerRecord, String> {
        let id = parameter.id.val().to_string();
        let mut writer = Writer::new(self.tensors).with_metadata(&id, &parameter.path);
        for (name, value) in self.scalars {
            writer = writer.with_scalar(&name, value);
        }
        let bytes = writer.into_bytes().map_err(|e| e.to_string())?;
        OptimizerRecord::from_bytes(bytes).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_burn_would_not_read_is_refused_before_it_is_written() {
        assert_eq!(in_limits(100_000, 100 << 30, 10 << 30), Ok(()));
        for (found, expected) in [
            (in_limits(100_001, 1, 1), "100001 tensors"),
            (in_limits(1, (100 << 30) + 1, 1), "107374182401 bytes"),
            (in_limits(1, 1, (10 << 30) + 1), "10737418241 bytes in one"),
        ] {
            assert!(found.unwrap_err().contains(expected), "{expected}");
        }
    }
}
