//! [`save`]: writes the weights of a model in full precision, one at a time. Tests:
//! `lisa/tests/quantized.rs`.

use std::path::Path;
use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::kind::Basic;
use burn::tensor::quantization::quantized_data_len;
use burn::tensor::{Bool, DType, Int, Tensor, TensorData};
use burn_pack::{Error, Tensor as PackTensor, Writer};

use crate::quantize::FullWeights;
use crate::{ErrorKind, LisaError};

/// Writes the parameters of a module as `Module::save_file` does, with those that are quantized as
/// `full` has them.
pub(crate) fn save<M: Module>(model: &M, full: &FullWeights, path: &Path) -> Result<(), LisaError> {
    let mut collect = Collect {
        full,
        path: Vec::new(),
        tensors: Vec::new(),
    };
    model.visit(&mut collect);
    let written = Writer::new(collect.tensors).write_to_file(path);
    written.map_err(|error| {
        let message = format!("cannot save the weights to `{}`: {error}", path.display());
        LisaError::new(ErrorKind::of_pack(&error), message).with_source(error)
    })
}

/// Tensors that are read while they are written.
struct Collect<'a> {
    full: &'a FullWeights,
    path: Vec<String>,
    tensors: Vec<PackTensor>,
}

impl Collect<'_> {
    fn add(
        &mut self,
        id: ParamId,
        (dtype, shape): (DType, Vec<usize>),
        read: impl Fn() -> Result<TensorData, Error> + Send + Sync + 'static,
    ) {
        let bytes = match dtype {
            DType::QFloat(scheme) => quantized_data_len(&scheme, &shape[..].into()),
            _ => shape.iter().product::<usize>() * dtype.size(),
        };
        let (name, id) = (self.path.join("."), Some(id.val()));
        let read = move || Ok(read()?.into_parts().0);
        let tensor = PackTensor::deferred(name, dtype, shape, id, bytes, read);
        self.tensors.push(tensor);
    }

    fn add_tensor<const D: usize, K: Basic + 'static>(
        &mut self,
        id: ParamId,
        tensor: Tensor<D, K>,
    ) {
        let layout = (tensor.dtype(), tensor.dims().to_vec());
        self.add(id, layout, move || read(tensor.clone()));
    }

    /// The full-precision weights of a quantized parameter.
    fn add_full<const D: usize>(&mut self, param: &Param<Tensor<D>>, data: Arc<TensorData>) {
        let (id, tensor, mapper) = param.clone().consume();
        let (device, shape) = (tensor.device().inner(), tensor.dims());
        let dtype = data.dtype();
        // Burn says only in this way whether there is one.
        if format!("{mapper:?}").contains("save: true") {
            let changed = mapper.on_save(Tensor::<D>::empty(shape, (&device, dtype)));
            self.add(id, (dtype, changed.dims().to_vec()), move || {
                let tensor = Tensor::<D>::from_data((*data).clone(), (&device, dtype));
                read(mapper.on_save(tensor))
            });
        } else {
            self.add(id, (dtype, shape.to_vec()), move || Ok((*data).clone()));
        }
    }
}

/// The values of a tensor in host memory.
fn read<const D: usize, K: Basic>(tensor: Tensor<D, K>) -> Result<TensorData, Error> {
    let failed = |error| Error::ValidationError(format!("{error}"));
    tensor.try_into_data().map_err(failed)
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        match self.full.of(param.id, &tensor) {
            Some(data) => self.add_full(param, Arc::clone(data)),
            None => {
                let tensor = param.transform_for_save().val();
                // `detach` would dequantize.
                let is_float = tensor.dtype().is_float();
                self.add_tensor(param.id, if is_float { tensor.detach() } else { tensor });
            }
        }
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.add_tensor(param.id, param.transform_for_save().val());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.add_tensor(param.id, param.transform_for_save().val());
    }
}
