//! [`FullWeights`]: quantizes frozen layers on the device, and keeps their full-precision weights
//! in host memory.
//!
//! Trained weights are never rounded: the weights of a layer are copied to the host before the
//! layer is quantized, and they are restored when the layer becomes active. This also holds if Burn
//! has dequantized the layer, as `Module::fork` does. Tests: `lisa/tests/quantized.rs`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::quantization::QuantScheme;
use burn::tensor::{Device, Tensor, TensorData};

use crate::layers::Parameter;
use crate::transfer::{is_on, moved, others_moved, placed};
use crate::visit::{FloatVisitor, ModulePath, visit_floats};
use crate::{ErrorKind, FrozenWeights, LayerMap, LisaError};

/// The full-precision weights of the parameters that are quantized now, in host memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct FullWeights {
    weights: HashMap<ParamId, Kept>,
}

/// The full-precision weights of a parameter, and how they were quantized.
#[derive(Clone, Debug)]
struct Kept {
    data: Arc<TensorData>,
    scheme: QuantScheme,
    /// Another device may round some weights to other values.
    device: Device,
}

impl Kept {
    /// Whether a tensor has these weights in rounded form: it is quantized, or has exactly the
    /// values that dequantization returns. Other weights were loaded later, and are newer.
    ///
    /// Cost for a float tensor: a copy of it in host memory, and the weights are quantized again.
    fn is_source_of<const D: usize>(&self, tensor: &Tensor<D>) -> bool {
        if !tensor.dtype().is_float() {
            return true;
        }
        let found = tensor.to_data();
        // Weights that rounding does not change are not rounded.
        if found.shape() != self.data.shape() || found == *self.data {
            return false;
        }
        let full = placed::<D>((*self.data).clone(), false, &self.device);
        let rounded = full.quantize_dynamic(&self.scheme).dequantize();
        rounded.into_data().convert_dtype(found.dtype()) == found
    }
}

impl FullWeights {
    pub(crate) fn bytes(&self) -> u64 {
        let sizes = self.weights.values().map(|kept| kept.data.as_bytes().len());
        sizes.sum::<usize>() as u64
    }

    /// Refuses a model of this run, of which `theirs` is the map and `ours` that of the run, with layers
    /// that another run has quantized: the weights that are kept here are not theirs.
    pub(crate) fn check_quantized(
        &self,
        ours: &LayerMap,
        theirs: &LayerMap,
    ) -> Result<(), LisaError> {
        let pairs = ours.parameters().iter().zip(theirs.parameters());
        let foreign = pairs.filter(|(our, their)| {
            let is_own = our.id == their.id && self.weights.contains_key(&our.id);
            our.dtype.is_float() && !their.dtype.is_float() && !is_own
        });
        let paths: Vec<&str> = foreign.map(|(_, their)| their.path.as_str()).collect();
        not_kept(&paths)
    }

    /// Refuses a model with quantized weights that are not kept here in full precision, except those
    /// that the caller has quantized. `map` is that of the run.
    pub(crate) fn check_kept<M: Module>(&self, model: &M, map: &LayerMap) -> Result<(), LisaError> {
        struct Absent<'a>(&'a FullWeights, &'a LayerMap, Vec<String>);
        impl FloatVisitor for Absent<'_> {
            fn visit_float<const D: usize>(&mut self, path: &ModulePath, param: &Param<Tensor<D>>) {
                let known = self.1.index_of(param.id);
                let by_caller = known.is_some_and(|i| !self.1.parameters()[i].dtype.is_float());
                let kept = by_caller || self.0.weights.contains_key(&param.id);
                if !kept && !param.val().dtype().is_float() {
                    self.2.push(path.to_string());
                }
            }
        }
        let mut absent = Absent(self, map, Vec::new());
        visit_floats(model, &mut absent);
        let paths: Vec<&str> = absent.2.iter().map(String::as_str).collect();
        not_kept(&paths)
    }

    /// Forgets the weights of parameters that are not in this map.
    pub(crate) fn retain(&mut self, map: &LayerMap) {
        self.weights.retain(|id, _| map.index_of(*id).is_some());
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

    /// A copy of the model with all weights in full precision, on `device`.
    pub(crate) fn whole<M: Module>(&self, model: &M, device: &Device) -> M {
        if is_on(model, device) {
            return self.clone().take(model.clone(), device);
        }
        // Clones share the running statistics of norms, which would move with the copy. `train` and
        // `valid` make new ones.
        let trains = device.is_autodiff() && model.devices().iter().any(Device::is_autodiff);
        let copy = if trains {
            model.clone().train()
        } else {
            model.valid()
        };
        self.clone().take(copy, device)
    }

    /// The model with all weights in full precision, on `device`. The weights that are kept here are moved
    /// into it, without copies.
    pub(crate) fn take<M: Module>(&mut self, model: M, device: &Device) -> M {
        let model = model.map(&mut Restore {
            full: self,
            trainable: None,
            device: Some(device),
        });
        others_moved(model, device)
    }

    /// The full-precision weights of a parameter whose tensor has them in rounded form.
    pub(crate) fn of<const D: usize>(
        &self,
        id: ParamId,
        tensor: &Tensor<D>,
    ) -> Option<&Arc<TensorData>> {
        let kept = self.weights.get(&id)?;
        kept.is_source_of(tensor).then_some(&kept.data)
    }

    /// Refuses a model in which weights are rounded because this run has quantized them. `map` is
    /// that of the run; the model has its parameters, maybe with other ids. `why` it needs the
    /// full-precision weights ends the message.
    pub(crate) fn check_exact<M: Module>(
        &self,
        model: &M,
        map: &LayerMap,
        (why, help): (&str, &str),
    ) -> Result<(), LisaError> {
        struct Rounded<'a> {
            full: &'a FullWeights,
            parameters: std::slice::Iter<'a, Parameter>,
            paths: Vec<&'a str>,
        }
        impl ModuleVisitor for Rounded<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let Some(own) = self.parameters.next() else {
                    return;
                };
                let tensor = param.val();
                let is_quantized = own.dtype.is_float() && !tensor.dtype().is_float();
                if is_quantized || self.full.of(own.id, &tensor).is_some() {
                    self.paths.push(&own.path);
                }
            }
        }
        let mut rounded = Rounded {
            full: self,
            parameters: map.parameters().iter(),
            paths: Vec::new(),
        };
        model.visit(&mut rounded);
        let Some(first) = rounded.paths.first() else {
            return Ok(());
        };
        let message = format!(
            "this run has quantized {} parameters of the model, first `{first}`, and {why}",
            rounded.paths.len()
        );
        Err(LisaError::new(ErrorKind::Layers, message).with_help(help))
    }

    /// Quantizes the parameters of layers that are not `trainable` and not quantized yet. If
    /// `device` is given, the whole model moves there, float parameters one at a time.
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
        let Some(device) = device else {
            return model;
        };
        let model = others_moved(model, device);
        // Frees the memory that the transfer used.
        device.memory_cleanup();
        model
    }
}

/// The error of quantized parameters whose full-precision weights are unknown, if there are any.
fn not_kept(paths: &[&str]) -> Result<(), LisaError> {
    let Some(first) = paths.first() else {
        return Ok(());
    };
    let message = format!(
        "{} parameters of the model are quantized, and this run does not have their full-precision \
         weights, first `{first}`",
        paths.len()
    );
    Err(LisaError::new(ErrorKind::Layers, message).with_help(
        "use a model together with the `Lisa` of the same step; to files, write its weights by \
         `Lisa::save_weights`",
    ))
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
        let kept = self.full.weights.remove(&id);
        let here = tensor.device();
        let device = self.device.unwrap_or(&here);
        let tensor = match kept.filter(|kept| kept.is_source_of(&tensor)) {
            Some(kept) => {
                let trains = tensor.is_require_grad();
                placed(Arc::unwrap_or_clone(kept.data), trains, device)
            }
            None => moved(tensor, device),
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
        let here = tensor.device();
        let device = self.device.unwrap_or(&here);
        let frozen = self.frozen.contains(&id) && tensor.dtype().is_float();
        let tensor = match self.kind.scheme(&tensor.dims()) {
            Some(scheme) if frozen => {
                let kept = self.full.of(id, &tensor).cloned();
                let is_rounded = kept.is_some();
                let data = kept.unwrap_or_else(|| Arc::new(tensor.clone().detach().into_data()));
                let tensor = if is_rounded || *device != here {
                    // The data is already in host memory, and is copied to the device from there.
                    placed((*data).clone(), false, device)
                } else {
                    tensor.detach()
                };
                let kept = Kept {
                    data,
                    scheme,
                    device: device.clone().inner(),
                };
                self.full.weights.insert(id, kept);
                tensor.quantize_dynamic(&scheme)
            }
            _ => tensor,
        };
        Param::from_mapped_value(id, moved(tensor, device), mapper)
    }
}
