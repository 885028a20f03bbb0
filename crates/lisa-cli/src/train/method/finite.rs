//! Parameters whose weights have a NaN or an infinite element.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{FloatDType, Tensor};

use super::layerwise_model::LayerwiseModel;

/// The paths of the parameters whose weights are not all finite. Cost: one pass over the weights, with
/// a copy of one parameter in f32, and a wait for the device, only one if all are finite. If the
/// device does not have all layers in full precision, each is put there in turn, with a wait for each.
pub(crate) fn weights(model: &LayerwiseModel<'_>) -> Vec<String> {
    let mut found = of(model.on_device(), Vec::new());
    for (path, layer) in model.layers() {
        found.extend(of(&layer, vec![path]));
    }
    found
}

/// The same for a module at this path, without its quantized weights.
fn of<M: Module>(module: &M, path: Vec<String>) -> Vec<String> {
    let mut all = Visitor::default();
    module.visit(&mut all);
    if all.sum.is_none_or(|sum| !is_nan(sum)) {
        return Vec::new();
    }
    let mut each = Visitor {
        each: true,
        path,
        ..Visitor::default()
    };
    module.visit(&mut each);
    each.found
}

/// The number of parameters and the first of them, as text.
pub(crate) fn described(paths: &[String]) -> String {
    let first = paths[..paths.len().min(3)].join("`, `");
    format!("in {} parameters, first of `{first}`", paths.len())
}

#[derive(Default)]
struct Visitor {
    /// Whether each parameter is examined, or all of them at once.
    each: bool,
    path: Vec<String>,
    /// 0, or NaN if an element is not finite.
    sum: Option<Tensor<1>>,
    found: Vec<String>,
}

impl ModuleVisitor for Visitor {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let weight = param.val();
        if !weight.dtype().is_float() {
            return;
        }
        // Zero times NaN or infinity is NaN.
        let sum: Tensor<1> = weight.cast(FloatDType::F32).mul_scalar(0.0).sum();
        if !self.each {
            self.sum = Some(match self.sum.take() {
                Some(all) => all + sum,
                None => sum,
            });
        } else if is_nan(sum) {
            self.found.push(self.path.join("."));
        }
    }
}

fn is_nan(sum: Tensor<1>) -> bool {
    sum.into_scalar::<f32>().is_nan()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use lisa_lm::ModelConfig;
    use lisa_lm::model::config::LlamaConfig;

    use super::*;
    use burn::module::ModuleMapper;

    /// Sets the first element of the parameters of this rank and dtype.
    struct Set(usize, f32, FloatDType);

    impl ModuleMapper for Set {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (rank, value, dtype) = (self.0, self.1, self.2);
            param.map(|tensor| {
                let tensor = tensor.cast(dtype);
                if D != rank {
                    return tensor;
                }
                let first = tensor
                    .clone()
                    .slice(std::array::from_fn::<_, D, _>(|_| 0..1))
                    .mul_scalar(0.0)
                    .add_scalar(value);
                tensor.slice_assign(std::array::from_fn::<_, D, _>(|_| 0..1), first)
            })
        }
    }

    #[test]
    fn one_element_that_is_not_finite_is_found_in_every_dtype() {
        let device = Device::flex().autodiff();
        let model = ModelConfig::Llama(LlamaConfig::new(16, 8, 1, 2));
        let model = model.init(&device).unwrap();
        for dtype in [FloatDType::F32, FloatDType::BF16, FloatDType::F16] {
            let found = |value| {
                let model = model.clone().map(&mut Set(1, value, dtype));
                weights(&LayerwiseModel::whole(&model))
            };
            assert_eq!(found(-3.5), Vec::<String>::new(), "{dtype:?}");
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let found = found(value);
                assert_eq!(found.len(), 3, "{dtype:?}: {found:?}");
                assert!(found.iter().all(|path| path.contains("norm")), "{found:?}");
            }
        }
    }
}
