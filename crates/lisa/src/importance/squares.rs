//! Sums of squares of a model's weights, or of the differences between two copies of the weights.

use std::collections::HashMap;

use burn::module::{Module, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{FloatDType, Tensor};

use crate::squares::{Sum, sum_of_squares};
use crate::visit::{FloatVisitor, ModulePath, visit_floats};

/// The norm that a parameter belongs to, and the shape of the parameter.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The index of its norm.
    pub(super) norm: usize,
    pub(super) shape: Vec<usize>,
}

/// The weights of a model by path. They share their data with the model.
#[derive(Default)]
pub(super) struct Weights {
    ids: HashMap<String, ParamId>,
    /// Burn's type for gradients. Here it maps ids to weights of any rank.
    tensors: GradientsParams,
}

impl Weights {
    pub(super) fn of<M: Module>(model: &M) -> Self {
        let mut weights = Self::default();
        visit_floats(model, &mut weights);
        weights
    }

    /// Removes the tensor at a path, and returns it.
    fn take<const D: usize>(&mut self, path: &str) -> Option<Tensor<D>> {
        let id = *self.ids.get(path)?;
        self.tensors.remove(id)
    }
}

impl FloatVisitor for Weights {
    fn visit_float<const D: usize>(&mut self, path: &ModulePath, param: &Param<Tensor<D>>) {
        self.ids.insert(path.to_string(), param.id);
        self.tensors.register(param.id, param.val().inner());
    }
}

/// Adds the squares of the elements of each norm.
pub(super) struct Squares<'a> {
    places: &'a HashMap<String, Place>,
    base: Option<Weights>,
    sums: Vec<Sum>,
    seen: usize,
    /// The first difference from the expected structure.
    difference: Option<String>,
}

impl<'a> Squares<'a> {
    /// For parameters at these paths, which belong to `norms` norms. The weights of `base` are
    /// subtracted first.
    pub(super) fn new(
        places: &'a HashMap<String, Place>,
        norms: usize,
        base: Option<Weights>,
    ) -> Self {
        Self {
            places,
            base,
            sums: vec![Sum::default(); norms],
            seen: 0,
            difference: None,
        }
    }

    /// The sums, on the devices of the model; `None` for a layer without parameters. The error says
    /// how the structure of the model differs.
    pub(super) fn of<M: Module>(mut self, model: &M) -> Result<Vec<Option<Tensor<1>>>, String> {
        visit_floats(model, &mut self);
        let (found, expected) = (self.seen, self.places.len());
        match self.difference {
            Some(difference) => Err(difference),
            None if found == expected => Ok(self.sums.into_iter().map(Sum::total).collect()),
            None => Err(format!("it has {found} parameters instead of {expected}")),
        }
    }

    /// The index of the norm that a parameter belongs to, and the values of the parameter.
    fn values<const D: usize>(
        &mut self,
        path: &str,
        tensor: Tensor<D>,
    ) -> Result<(usize, Tensor<D>), String> {
        let Some(place) = self.places.get(path) else {
            return Err(format!("it has an unknown parameter `{path}`"));
        };
        let shape = tensor.dims();
        if shape[..] != place.shape[..] {
            let expected = &place.shape;
            return Err(format!(
                "`{path}` has shape {shape:?} instead of {expected:?}"
            ));
        }
        let tensor = full_precision(tensor);
        let Some(base) = &mut self.base else {
            return Ok((place.norm, tensor));
        };
        match base.take::<D>(path) {
            Some(base) if base.dims() == shape => {
                let base = full_precision(base).to_device(&tensor.device());
                Ok((place.norm, tensor - base))
            }
            Some(base) => {
                let found = base.dims();
                Err(format!(
                    "`{path}` has shape {shape:?} and in the base model {found:?}"
                ))
            }
            None => Err(format!("the base model has no `{path}`")),
        }
    }
}

impl FloatVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, path: &ModulePath, param: &Param<Tensor<D>>) {
        if self.difference.is_some() {
            return;
        }
        match self.values(&path.to_string(), param.val().inner()) {
            Ok((norm, values)) => {
                self.seen += 1;
                self.sums[norm].add(sum_of_squares(values));
            }
            Err(difference) => self.difference = Some(difference),
        }
    }
}

/// The values of a tensor, dequantized, as f32.
fn full_precision<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    tensor.dequantize().cast(FloatDType::F32)
}
