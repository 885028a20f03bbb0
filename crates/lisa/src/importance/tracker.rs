//! [`NormTracker`]: mean norms of a model's weights over a run. Tests:
//! `importance/tracker/tests.rs`.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, FloatDType, Tensor};

use super::WeightNorms;
use crate::{ErrorKind, LayerMap, LisaError};

/// Gathers the L2 norm of each layer, and of each parameter outside the layers, over a run.
///
/// A layer's norm is that of all its numbers together. Parameters are known by their paths, so the
/// models of one run may be different copies. Of a LoRA model give the merged one: the merged
/// weights are then seen, or by [`observe_update`](Self::observe_update) the update alone. Cost of
/// an observation: a sum of squares over all weights; the norms stay on the device, and nothing
/// waits for it before [`norms`](Self::norms). State kept: one number for each norm.
///
/// # Example
///
/// ```
/// use burn::module::{Module, Param};
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use lisa::importance::NormTracker;
///
/// #[derive(Module, Debug)]
/// struct Model {
///     embed: Linear,
///     layers: Vec<Linear>,
/// }
///
/// let device = Device::flex().autodiff();
/// let linear = |value: f32| Linear {
///     weight: Param::from_tensor(Tensor::full([3, 3], value, &device)),
///     bias: None,
/// };
/// let model = |value: f32| Model { embed: linear(1.0), layers: vec![linear(value), linear(2.0)] };
///
/// let base = model(1.0);
/// let mut weights = NormTracker::new(&base, &[])?;
/// let mut update = weights.clone();
/// for value in [1.0, 2.0] {
///     weights.observe(&model(value))?;
///     update.observe_update(&model(value), &base)?;
/// }
/// let norms = weights.norms()?;
/// assert_eq!(norms.layers, [("layers.0".into(), 4.5), ("layers.1".into(), 6.0)]);
/// assert_eq!(norms.outside, [("embed.weight".into(), 3.0)]);
/// assert_eq!(update.norms()?.layers[0].1, 1.5);
/// # Ok::<(), lisa::LisaError>(())
/// ```
#[derive(Clone, Debug)]
pub struct NormTracker {
    layers: Vec<String>,
    outside: Vec<String>,
    /// By path of a parameter: the place of its norm, layers first, and its shape.
    places: HashMap<String, (usize, Vec<usize>)>,
    sum: Option<Tensor<1>>,
    observations: u64,
}

impl NormTracker {
    /// A tracker for models of this structure. `stacks`: the paths of the stacks of layers as in
    /// [`LisaConfig::layers`](crate::LisaConfig::layers); empty: the stack is found.
    ///
    /// # Errors
    ///
    /// As [`LayerMap::find`] and [`LayerMap::at`].
    pub fn new<M: Module>(model: &M, stacks: &[String]) -> Result<Self, LisaError> {
        let map = if stacks.is_empty() {
            LayerMap::find(model)?
        } else {
            LayerMap::at(model, stacks)?
        };
        let layers: Vec<String> = map.layers().iter().map(|l| l.path.clone()).collect();
        let mut outside = Vec::new();
        let mut places = HashMap::new();
        for (i, parameter) in map.parameters().iter().enumerate() {
            let place = map.layer_of(i).unwrap_or_else(|| {
                outside.push(parameter.path.clone());
                layers.len() + outside.len() - 1
            });
            places.insert(parameter.path.clone(), (place, parameter.shape.clone()));
        }
        Ok(Self {
            layers,
            outside,
            places,
            sum: None,
            observations: 0,
        })
    }

    /// Takes in the norms of a model's weights. Quantized ones count as what they stand for.
    ///
    /// # Errors
    ///
    /// A model of another structure; nothing of it is then taken in.
    pub fn observe<M: Module>(&mut self, model: &M) -> Result<(), LisaError> {
        self.take(model, None)
    }

    /// Takes in the norms of the differences between a model's weights and those of `base`, another
    /// copy of it, as of before training. Cost: as [`observe`](Self::observe), with one copy of
    /// the largest parameter.
    ///
    /// # Errors
    ///
    /// As [`observe`](Self::observe), for either.
    pub fn observe_update<M: Module>(&mut self, model: &M, base: &M) -> Result<(), LisaError> {
        let mut gather = Gather::default();
        base.visit(&mut gather);
        self.take(model, Some(gather))
    }

    fn take<M: Module>(&mut self, model: &M, base: Option<Gather>) -> Result<(), LisaError> {
        let mut squares = Squares {
            places: &self.places,
            base,
            path: Vec::new(),
            sums: vec![None; self.layers.len() + self.outside.len()],
            seen: 0,
            wrong: None,
        };
        model.visit(&mut squares);
        let Squares {
            sums, seen, wrong, ..
        } = squares;
        let found = sums.iter().flatten().next().map(Tensor::device);
        let device = match (wrong, found) {
            (None, Some(device)) if seen == self.places.len() => device,
            (wrong, _) => {
                let what = wrong.unwrap_or_else(|| {
                    format!(
                        "it has {seen} parameters and that had {}",
                        self.places.len()
                    )
                });
                return Err(LisaError::new(
                    ErrorKind::Layers,
                    format!(
                        "the model is not of the structure that norms are tracked of: {what}; merge \
                         a LoRA model first, and make a tracker for each kind of model"
                    ),
                ));
            }
        };
        let norms = sums.into_iter().map(|sum| match sum {
            Some(sum) => sum.to_device(&device).sqrt(),
            None => Tensor::zeros([1], (&device, DType::F32)),
        });
        let norms = Tensor::cat(norms.collect(), 0);
        self.sum = Some(match self.sum.take() {
            Some(sum) => {
                let norms = norms.to_device(&sum.device());
                sum + norms
            }
            None => norms,
        });
        self.observations += 1;
        Ok(())
    }

    /// The mean norms. Waits for the device; the tracker may go on.
    ///
    /// # Errors
    ///
    /// No observation yet.
    pub fn norms(&self) -> Result<WeightNorms, LisaError> {
        let Some(sum) = &self.sum else {
            return Err(LisaError::new(
                ErrorKind::Policy,
                "no norms were observed, so they have no mean; observe the model first",
            ));
        };
        let data = sum.clone().into_data();
        let mut means = data.iter::<f64>().map(|sum| sum / self.observations as f64);
        let mut name = |paths: &[String]| -> Vec<(String, f64)> {
            paths.iter().cloned().zip(means.by_ref()).collect()
        };
        Ok(WeightNorms {
            observations: self.observations,
            layers: name(&self.layers),
            outside: name(&self.outside),
        })
    }
}

/// The tensors of a module by path; no copies.
#[derive(Default)]
struct Gather {
    path: Vec<String>,
    ids: HashMap<String, ParamId>,
    /// Burn's map of tensors of any rank by id, which is what gradients live in.
    tensors: GradientsParams,
}

impl ModuleVisitor for Gather {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.ids.insert(self.path.join("."), param.id);
        self.tensors.register(param.id, param.val().inner());
    }
}

/// Sums squares by place.
struct Squares<'a> {
    places: &'a HashMap<String, (usize, Vec<usize>)>,
    base: Option<Gather>,
    path: Vec<String>,
    sums: Vec<Option<Tensor<1>>>,
    seen: usize,
    /// The first thing that is not as it should be.
    wrong: Option<String>,
}

impl Squares<'_> {
    /// The weights at this path, or their difference to the base's.
    fn values<const D: usize>(
        &mut self,
        path: &str,
        tensor: Tensor<D>,
    ) -> Result<Tensor<D>, String> {
        let shape = tensor.dims();
        let tensor = exact(tensor);
        let Some(base) = &mut self.base else {
            return Ok(tensor);
        };
        let id = base.ids.get(path).copied();
        match id.and_then(|id| base.tensors.remove::<D>(id)) {
            Some(base) if base.dims() == shape => {
                let base = exact(base).to_device(&tensor.device());
                Ok(tensor - base)
            }
            Some(base) => Err(format!(
                "the base has `{path}` of shape {:?} where it has {shape:?}",
                base.dims()
            )),
            None => Err(format!("the base has no `{path}`")),
        }
    }
}

impl ModuleVisitor for Squares<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.wrong.is_some() {
            return;
        }
        let path = self.path.join(".");
        let tensor = param.val().inner();
        let Some((place, shape)) = self.places.get(&path) else {
            self.wrong = Some(format!("it has `{path}`, which that had not"));
            return;
        };
        if tensor.dims()[..] != shape[..] {
            let found = tensor.dims();
            self.wrong = Some(format!(
                "it has `{path}` of shape {found:?} where that had {shape:?}"
            ));
            return;
        }
        let place = *place;
        self.seen += 1;
        match self.values(&path, tensor) {
            Ok(values) => {
                let square = values.square().sum();
                self.sums[place] = Some(match self.sums[place].take() {
                    Some(sum) => {
                        let square = square.to_device(&sum.device());
                        sum + square
                    }
                    None => square,
                });
            }
            Err(wrong) => self.wrong = Some(wrong),
        }
    }
}

/// The numbers that a tensor stands for, as f32.
fn exact<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    tensor.dequantize().cast(FloatDType::F32)
}

#[cfg(test)]
mod tests;
