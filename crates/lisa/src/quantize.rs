//! Quantized frozen layers: the device holds int8 or int4 of what does not train, the host the
//! exact weights.
//!
//! Nothing that was trained is rounded: a layer that is drawn gets its exact weights back, and one
//! that freezes leaves them on the host before its quantized copy is made. Tests:
//! `lisa/tests/quantized.rs`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::quantization::{QuantScheme, QuantValue, ScaleDtype};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, LayerMap, LisaError};

/// What the device holds of the weights of layers that do not train.
///
/// # Example
///
/// ```
/// use lisa::FrozenWeights;
///
/// // A matrix of 64 rows and 64 columns: a byte, or half of one, for each number, and 64 scales.
/// assert_eq!(FrozenWeights::Int8.bytes(&[64, 64], true), Some(4096 + 256));
/// assert_eq!(FrozenWeights::Int4.bytes(&[64, 64], true), Some(2048 + 256));
/// // Norms stay as they are.
/// assert_eq!(FrozenWeights::Int8.bytes(&[64], true), None);
/// assert!(FrozenWeights::Int8.scheme(&[64, 64]).is_some());
/// assert!(FrozenWeights::Int8.scheme(&[64]).is_none());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FrozenWeights {
    /// The weights themselves.
    #[default]
    Exact,
    /// Matrices as 8-bit integers with an f32 scale for every 64 of them: 8.5 bits a number. Rows
    /// that are no multiple of 64 have a scale for every 32.
    Int8,
    /// The same with 4 bits: 4.5 bits a number. Flex stores them as int8.
    Int4,
}

impl FrozenWeights {
    /// Burn's scheme for a parameter of this shape; none where it stays exact. Matrices are quantized
    /// whose rows are whole blocks of 64 or 32.
    #[must_use]
    pub fn scheme(self, shape: &[usize]) -> Option<QuantScheme> {
        let value = match self {
            Self::Exact => return None,
            Self::Int8 => QuantValue::Q8S,
            Self::Int4 => QuantValue::Q4S,
        };
        let block = block_of(shape)?;
        let scheme = QuantScheme::default().with_value(value);
        Some(scheme.per_block([block], ScaleDtype::F32))
    }

    /// Bytes of a quantized parameter of this shape; none where it stays exact. `packed`: whether
    /// the device stores two 4-bit numbers in a byte, as all but flex do.
    #[must_use]
    pub fn bytes(self, shape: &[usize], packed: bool) -> Option<u64> {
        let bits = match self {
            Self::Exact => return None,
            Self::Int4 if packed => 4,
            Self::Int8 | Self::Int4 => 8,
        };
        let numbers = shape.iter().product::<usize>() as u64;
        Some(numbers * bits / 8 + numbers / u64::from(block_of(shape)?) * 4)
    }
}

/// Whether a device can hold what is asked for. Burn 0.22 has no quantized tensors on LibTorch, and says
/// so with a panic; nothing but its name tells the device.
pub(crate) fn check(kind: FrozenWeights, device: &Device) -> Result<(), LisaError> {
    if kind == FrozenWeights::Exact || !format!("{device:?}").contains("LibTorch") {
        return Ok(());
    }
    Err(LisaError::new(
        ErrorKind::Config,
        format!(
            "frozen weights as {kind:?} were asked for, and the model is on {device:?}, where Burn has no \
             quantized tensors; take FrozenWeights::Exact, or another backend"
        ),
    ))
}

/// Numbers that share a scale.
fn block_of(shape: &[usize]) -> Option<u8> {
    let &[_, width] = shape else {
        return None;
    };
    let fits = |block: &u8| width > 0 && width.is_multiple_of(usize::from(*block));
    [64, 32].into_iter().find(fits)
}

/// The exact weights of what is quantized now, in the host's memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExactWeights {
    weights: HashMap<ParamId, Arc<TensorData>>,
}

impl ExactWeights {
    pub(crate) fn bytes(&self) -> u64 {
        let sizes = self.weights.values().map(|data| data.as_bytes().len());
        sizes.sum::<usize>() as u64
    }

    /// Follows parameters that have new ids.
    pub(crate) fn rename(&mut self, new_id: &HashMap<ParamId, ParamId>) {
        let old = std::mem::take(&mut self.weights);
        let renamed = old.into_iter();
        self.weights = renamed
            .filter_map(|(id, data)| Some((*new_id.get(&id)?, data)))
            .collect();
    }

    /// Gives `awake` their exact weights back, on the device where their quantized ones are.
    pub(crate) fn wake<M: Module>(&mut self, model: M, awake: &HashSet<ParamId>) -> M {
        if self.weights.is_empty() {
            return model;
        }
        model.map(&mut Wake {
            exact: self,
            awake: Some(awake),
            device: None,
            keep: false,
        })
    }

    /// The model with all weights exact, on `device`.
    pub(crate) fn restore<M: Module>(&mut self, model: M, device: Option<&Device>) -> M {
        model.map(&mut Wake {
            exact: self,
            awake: None,
            device,
            keep: true,
        })
    }

    /// Quantizes what is in a layer, is not in `awake` and is not quantized yet; with a `device`,
    /// everything moves there on the way, one parameter at a time.
    pub(crate) fn settle<M: Module>(
        &mut self,
        model: M,
        kind: FrozenWeights,
        (map, awake): (&LayerMap, &HashSet<ParamId>),
        device: Option<&Device>,
    ) -> M {
        let parameters = map.parameters().iter().enumerate();
        let asleep = parameters
            .filter(|(i, p)| map.layer_of(*i).is_some() && kind.scheme(&p.shape).is_some())
            .map(|(_, p)| p.id)
            .filter(|id| !awake.contains(id));
        model.map(&mut Settle {
            asleep: asleep.collect(),
            exact: self,
            kind,
            device,
        })
    }
}

struct Wake<'a> {
    exact: &'a mut ExactWeights,
    /// None: all.
    awake: Option<&'a HashSet<ParamId>>,
    device: Option<&'a Device>,
    /// Whether the exact weights stay on the host as well.
    keep: bool,
}

impl ModuleMapper for Wake<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.awake.is_some_and(|awake| !awake.contains(&param.id)) {
            return param;
        }
        let (id, tensor, mapper) = param.consume();
        let found = if self.keep {
            self.exact.weights.get(&id).cloned()
        } else {
            self.exact.weights.remove(&id)
        };
        let here = tensor.device();
        let device = self.device.unwrap_or(&here);
        let tensor = match found {
            // One that is exact already was loaded anew: it is newer.
            Some(data) if !tensor.dtype().is_float() => {
                let dtype = data.dtype();
                Tensor::from_data((*data).clone(), (device, dtype))
            }
            _ if self.device.is_some() => moved(tensor, device),
            _ => tensor,
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}

struct Settle<'a> {
    asleep: HashSet<ParamId>,
    exact: &'a mut ExactWeights,
    kind: FrozenWeights,
    device: Option<&'a Device>,
}

impl ModuleMapper for Settle<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let asleep = self.asleep.contains(&id) && tensor.dtype().is_float();
        let tensor = match self.kind.scheme(&tensor.dims()) {
            Some(scheme) if asleep => {
                let (here, dtype) = (tensor.device(), tensor.dtype());
                let data = tensor.clone().detach().into_data();
                let tensor = match self.device {
                    // The bits are in the host's memory already: they go there, and not back again.
                    Some(device) if *device != here => {
                        Tensor::from_data(data.clone(), (device, dtype))
                    }
                    _ => tensor.detach(),
                };
                self.exact.weights.insert(id, Arc::new(data));
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

/// A parameter's value on another device, with its requirement of gradients.
fn moved<const D: usize>(tensor: Tensor<D>, device: &Device) -> Tensor<D> {
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
