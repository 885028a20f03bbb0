//! [`FullWeights`]: quantizes frozen layers on the device, and keeps their full-precision weights
//! in host memory.
//!
//! Trained weights are never rounded: the weights of a layer are copied to the host before the
//! layer is quantized, and they are restored when the layer becomes active. Tests:
//! `lisa/tests/quantized.rs`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};

use crate::transfer::{is_on, moved, others_moved};
use crate::visit::{FloatVisitor, ModulePath, visit_floats};
use crate::{ErrorKind, FrozenWeights, LayerMap, LisaError};

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
        // Clones share the running statistics of norms, which would move with the copy. `valid` makes
        // new ones.
        let copy = self.clone().take(model.valid(), &device.clone().inner());
        let trains = model.devices().iter().any(Device::is_autodiff);
        if trains && device.is_autodiff() {
            copy.train()
        } else {
            copy
        }
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

    /// The full-precision weights of a parameter that is quantized now.
    pub(crate) fn of(&self, id: ParamId) -> Option<&Arc<TensorData>> {
        self.weights.get(&id)
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

/// Refuses a model with layers that its run has quantized: another run would take the rounded weights
/// for the weights of the model. `ours` is the map of the run, `theirs` that of the model.
pub(crate) fn check_exact(ours: &LayerMap, theirs: &LayerMap) -> Result<(), LisaError> {
    let quantized = quantized_since(ours, theirs);
    let Some(first) = quantized.first() else {
        return Ok(());
    };
    let message = format!(
        "this run has quantized {} parameters of the model, first `{first}`, and another run would \
         begin with the rounded weights",
        quantized.len()
    );
    Err(LisaError::new(ErrorKind::Layers, message)
        .with_help("give the model that `Lisa::take_exact` returns"))
}

/// Refuses a model with layers that its run has quantized, for a record of another step: the full-precision
/// weights that the run keeps are those of `step`, its own. `ours` is the map of the run, `theirs` that of
/// the model.
pub(crate) fn check_step(ours: &LayerMap, theirs: &LayerMap, step: u64) -> Result<(), LisaError> {
    let quantized = quantized_since(ours, theirs);
    let Some(first) = quantized.first() else {
        return Ok(());
    };
    let message = format!(
        "{} parameters of the model are quantized, first `{first}`, and the full-precision weights \
         that this run keeps are those of its step {step}, not of the step of the record",
        quantized.len()
    );
    Err(LisaError::new(ErrorKind::Layers, message).with_help(
        "load the record with the full-precision weights of its step: those that \
         `Lisa::save_weights` wrote or `Lisa::exact` returned",
    ))
}

/// The paths of parameters that are quantized in a model and were not when its run began. `ours` is the
/// map of the run, `theirs` that of the model.
fn quantized_since<'a>(ours: &LayerMap, theirs: &'a LayerMap) -> Vec<&'a str> {
    let pairs = ours.parameters().iter().zip(theirs.parameters());
    let quantized = pairs.filter(|(our, their)| our.dtype.is_float() && !their.dtype.is_float());
    quantized.map(|(_, their)| their.path.as_str()).collect()
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
