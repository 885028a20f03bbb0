//! [`FullWeights`]: quantizes frozen layers on the device, and keeps their full-precision weights
//! in host memory.
//!
//! Trained weights are never rounded: the weights of a layer are copied to the host before the
//! layer is quantized, and they are restored when the layer becomes active. Tests:
//! `lisa/tests/quantized.rs`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::{FrozenWeights, LayerMap};

/// The full-precision weights of the parameters that are quantized now, in host memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct FullWeights {
    weights: HashMap<ParamId, Arc<TensorData>>,
}

impl FullWeights {
    pub(crate) fn bytes(&self) -> u64 {
        let sizes = self.weights.values().map(|data| data.as_bytes().len());
        sizes.sum::<usize>() as u64
    }

    /// Replaces the ids of parameters that have new ids.
    pub(crate) fn rename(&mut self, new_id: &HashMap<ParamId, ParamId>) {
        let old = std::mem::take(&mut self.weights);
        let renamed = old.into_iter();
        self.weights = renamed
            .filter_map(|(id, data)| Some((*new_id.get(&id)?, data)))
            .collect();
    }

    /// Restores the full-precision weights of the trainable parameters, on the device of the
    /// quantized weights.
    pub(crate) fn restore<M: Module>(&mut self, model: M, trainable: &HashSet<ParamId>) -> M {
        if self.weights.is_empty() {
            return model;
        }
        model.map(&mut Restore {
            full: self,
            trainable: Some(trainable),
            device: None,
        })
    }

    /// The model with all weights in full precision, on `device`.
    pub(crate) fn whole<M: Module>(&self, model: M, device: &Device) -> M {
        self.clone().take(model, device)
    }

    /// The same without copies of the weights that are kept here: they are moved into the model.
    pub(crate) fn take<M: Module>(&mut self, model: M, device: &Device) -> M {
        model.map(&mut Restore {
            full: self,
            trainable: None,
            device: Some(device),
        })
    }

    /// The full-precision weights of a parameter that is quantized now.
    pub(crate) fn of(&self, id: ParamId) -> Option<&Arc<TensorData>> {
        self.weights.get(&id)
    }

    /// Quantizes the parameters of layers that are not `trainable` and not quantized yet. If
    /// `device` is given, the whole model moves there, one parameter at a time.
    pub(crate) fn quantize<M: Module>(
        &mut self,
        model: M,
        kind: FrozenWeights,
        (map, trainable): (&LayerMap, &HashSet<ParamId>),
        device: Option<&Device>,
    ) -> M {
        if kind == FrozenWeights::Exact && device.is_none() {
            return model;
        }
        let parameters = map.parameters().iter().enumerate();
        let frozen = parameters
            .filter(|(i, p)| map.layer_of(*i).is_some() && kind.scheme(&p.shape).is_some())
            .map(|(_, p)| p.id)
            .filter(|id| !trainable.contains(id));
        let model = model.map(&mut Quantize {
            frozen: frozen.collect(),
            full: self,
            kind,
            device,
        });
        if let Some(device) = device {
            // Frees the memory that the transfer used.
            device.memory_cleanup();
        }
        model
    }
}

struct Restore<'a> {
    full: &'a mut FullWeights,
    /// `None`: all parameters.
    trainable: Option<&'a HashSet<ParamId>>,
    device: Option<&'a Device>,
}

impl ModuleMapper for Restore<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let trainable = self.trainable;
        if trainable.is_some_and(|trainable| !trainable.contains(&param.id)) {
            return param;
        }
        let (id, tensor, mapper) = param.consume();
        let found = self.full.weights.remove(&id);
        let here = tensor.device();
        let device = self.device.unwrap_or(&here);
        let tensor = match found {
            // If the tensor is in full precision, it was loaded later and is newer.
            Some(data) if !tensor.dtype().is_float() => {
                let dtype = data.dtype();
                Tensor::from_data(Arc::unwrap_or_clone(data), (device, dtype))
            }
            _ if self.device.is_some() => moved(tensor, device),
            _ => tensor,
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}

struct Quantize<'a> {
    frozen: HashSet<ParamId>,
    full: &'a mut FullWeights,
    kind: FrozenWeights,
    device: Option<&'a Device>,
}

impl ModuleMapper for Quantize<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let frozen = self.frozen.contains(&id) && tensor.dtype().is_float();
        let tensor = match self.kind.scheme(&tensor.dims()) {
            Some(scheme) if frozen => {
                let (here, dtype) = (tensor.device(), tensor.dtype());
                let data = tensor.clone().detach().into_data();
                let tensor = match self.device {
                    // The data is already in host memory, and is copied to the device from there.
                    Some(device) if *device != here => {
                        Tensor::from_data(data.clone(), (device, dtype))
                    }
                    _ => tensor.detach(),
                };
                self.full.weights.insert(id, Arc::new(data));
                tensor.quantize_dynamic(&scheme)
            }
            _ => match self.device {
                Some(device) => moved(tensor, device),
                None => tensor,
            },
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}

/// Moves a parameter's value to another device. Whether it requires gradients does not change.
fn moved<const D: usize>(tensor: Tensor<D>, device: &Device) -> Tensor<D> {
    if tensor.device() == *device {
        return tensor;
    }
    if !tensor.dtype().is_float() {
        return tensor.to_device(device);
    }
    let trains = tensor.is_require_grad() && device.is_autodiff();
    let dtype: DType = tensor.dtype();
    let tensor = Tensor::from_data(tensor.into_data(), (device, dtype));
    if trains {
        tensor.require_grad()
    } else {
        tensor
    }
}
