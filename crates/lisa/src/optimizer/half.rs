//! [`HalfWeights`]: whether the half-precision weights of a model are those of master weights.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, FloatDType, Tensor, TensorData};

/// The half-precision weights of a model. State kept: the tensors, which are not copied.
pub(crate) struct HalfWeights(HashMap<ParamId, Box<dyn Fn(TensorData) -> bool>>);

impl HalfWeights {
    /// Those of this model. Cost: one visit of the module.
    pub(crate) fn of<M: Module>(model: &M) -> Self {
        let mut weights = Self(HashMap::new());
        model.visit(&mut weights);
        weights
    }

    /// Whether the weights of a parameter are these master weights, as a step casts them. Cost: both
    /// in host memory, and the master weights on the device.
    pub(crate) fn are_cast_of(&self, id: ParamId, master: TensorData) -> bool {
        self.0
            .get(&id)
            .is_some_and(|are_cast_of| are_cast_of(master))
    }
}

impl ModuleVisitor for HalfWeights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let weight = param.val();
        let dtype = match weight.dtype() {
            DType::BF16 => FloatDType::BF16,
            DType::F16 => FloatDType::F16,
            _ => return,
        };
        let weight = weight.detach();
        let are_cast_of = move |master: TensorData| {
            let master = Tensor::<D>::from_data(master, (&weight.device(), DType::F32));
            master.cast(dtype).into_data() == weight.to_data()
        };
        self.0.insert(param.id, Box::new(are_cast_of));
    }
}
