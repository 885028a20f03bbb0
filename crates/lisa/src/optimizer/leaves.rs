//! [`Leaves`]: the state in an optimizer's record, by parameter, so that it can be checked and
//! assigned to parameters with other ids.

use std::collections::{BTreeMap, HashMap};

use burn::module::ParamId;
use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::tensor::{DType, TensorData};
use burn_pack::{Scalar, Tensor, Writer};

use super::bytes::StateBytes;
use super::deferred::deferred;
use super::offload::is_offloaded;
use super::shapes::is_master;
use crate::LayerMap;

/// The tensors and scalars of a record, named `ID.leaf` and so on by the parameter's id.
pub(crate) struct Leaves {
    tensors: Vec<(ParamId, Tensor)>,
    scalars: Vec<(ParamId, String, Scalar)>,
}

impl Leaves {
    /// Assigns the state of a record to other parameters: `new_id` has their ids by the ids in the
    /// record. No tensor is read.
    pub(crate) fn read(
        tensors: Vec<Tensor>,
        scalars: BTreeMap<String, Scalar>,
        new_id: &HashMap<String, ParamId>,
    ) -> Result<Self, String> {
        let rename = |name: &str| -> Result<(ParamId, String), String> {
            name.split_once('.')
                .and_then(|(id, rest)| {
                    let id = *new_id.get(id)?;
                    Some((id, format!("{}.{rest}", id.val())))
                })
                .ok_or_else(|| format!("`{name}` belongs to no parameter of the model"))
        };
        let mut renamed = Vec::with_capacity(tensors.len());
        for mut tensor in tensors {
            let (id, name) = rename(&tensor.name)?;
            (tensor.name, tensor.param_id) = (name, Some(id.val()));
            renamed.push((id, tensor));
        }
        let scalars = scalars.into_iter().map(|(name, value)| {
            let (id, name) = rename(&name)?;
            Ok((id, name, value))
        });
        Ok(Self {
            tensors: renamed,
            scalars: scalars.collect::<Result<_, String>>()?,
        })
    }

    /// The state of a run's own optimizer.
    pub(super) fn of(
        optimizer: &ModuleOptimizer,
        new_id: &HashMap<ParamId, ParamId>,
    ) -> Result<Self, String> {
        let (reader, tensors) = deferred(optimizer).map_err(|e| e.to_string())?;
        let scalars = reader.scalars().clone();
        let names = new_id.iter();
        let names = names.map(|(old, new)| (old.val().to_string(), *new));
        Self::read(tensors, scalars.into_iter().collect(), &names.collect())
    }

    /// The leaves with float tensors of these dtypes, given the parameter and the name of a tensor;
    /// `None` leaves a tensor as it is.
    pub(super) fn cast(
        mut self,
        dtype: impl Fn(ParamId, &str) -> Option<DType>,
    ) -> Result<Self, String> {
        for (id, tensor) in &mut self.tensors {
            let wanted = dtype(*id, &tensor.name).filter(|wanted| *wanted != tensor.dtype);
            let Some(wanted) = wanted.filter(|_| tensor.dtype.is_float()) else {
                continue;
            };
            let parts = tensor.clone().into_parts().map_err(|e| e.to_string())?;
            let (name, dtype, shape, id, bytes) = parts;
            let data = TensorData::try_from_bytes(bytes, shape.clone(), dtype)
                .map_err(|e| format!("`{name}`: {e}"))?
                .convert_dtype(wanted);
            *tensor = Tensor::new(name, wanted, shape, id, data.into_bytes());
        }
        Ok(self)
    }

    /// The leaves without the master weights that are not `kept`. Cost: reads one tensor of master
    /// weights after the other.
    #[cfg(feature = "train")]
    pub(super) fn with_masters(
        self,
        kept: impl Fn(ParamId, TensorData) -> bool,
    ) -> Result<Self, String> {
        let mut tensors = Vec::with_capacity(self.tensors.len());
        for (id, tensor) in self.tensors {
            if is_master(&tensor.name) {
                let bytes = tensor.to_bytes().map_err(|e| e.to_string())?;
                let data = TensorData::try_from_bytes(bytes, tensor.shape.clone(), tensor.dtype);
                if !kept(id, data.map_err(|e| format!("`{}`: {e}", tensor.name))?) {
                    continue;
                }
            }
            tensors.push((id, tensor));
        }
        Ok(Self { tensors, ..self })
    }

    /// The tensors, with the parameters that they belong to.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (ParamId, &Tensor)> {
        self.tensors.iter().map(|(id, tensor)| (*id, tensor))
    }

    /// The scalars, with the parameters that they belong to, and their names.
    pub(crate) fn scalars(&self) -> impl Iterator<Item = (ParamId, &str, Scalar)> {
        self.scalars
            .iter()
            .map(|(id, name, value)| (*id, &name[..], *value))
    }

    /// The bytes of the state of each parameter, and whether it is offloaded.
    pub(super) fn bytes(&self) -> BTreeMap<ParamId, (StateBytes, bool)> {
        let mut bytes: BTreeMap<ParamId, (StateBytes, bool)> = BTreeMap::new();
        for (id, tensor) in &self.tensors {
            let (size, _) = bytes.entry(*id).or_default();
            if is_master(&tensor.name) {
                size.master += tensor.byte_len() as u64;
            } else {
                size.state += tensor.byte_len() as u64;
            }
        }
        for (id, name, value) in &self.scalars {
            let (_, offloaded) = bytes.entry(*id).or_default();
            *offloaded |= is_offloaded(name, *value);
        }
        bytes
    }

    /// The record of these leaves. Cost: a copy of the state in host memory.
    pub(crate) fn into_record(self, map: &LayerMap) -> Result<OptimizerRecord, String> {
        let tensors = self.tensors.into_iter().map(|(_, tensor)| tensor);
        let mut writer = Writer::new(tensors.collect());
        for (_, name, value) in self.scalars {
            writer = writer.with_scalar(&name, value);
        }
        for parameter in map.parameters() {
            writer = writer.with_metadata(&parameter.id.val().to_string(), &parameter.path);
        }
        let bytes = writer.into_bytes().map_err(|e| e.to_string())?;
        OptimizerRecord::from_bytes(bytes).map_err(|e| e.to_string())
    }
}
