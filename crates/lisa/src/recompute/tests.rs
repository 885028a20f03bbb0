//! Gradients with recomputation against those of plain autodiff.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::{LayeredModel, Pass};
use crate::visit::{FloatVisitor, ModulePath, visit_floats};
use crate::{FreezeMask, LayerMap};

mod segments;
mod sublayers;

/// Gradients by path of their parameter.
type Values = BTreeMap<String, Vec<f32>>;

fn values<M: Module>(model: &M, grads: &GradientsParams) -> Values {
    struct Read<'a>(&'a GradientsParams, Values);
    impl FloatVisitor for Read<'_> {
        fn visit_float<const D: usize>(&mut self, path: &ModulePath, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.0.get::<D>(param.id) {
                let values = grad.into_data().iter::<f32>().collect();
                self.1.insert(path.to_string(), values);
            }
        }
    }
    let mut read = Read(grads, Values::new());
    visit_floats(model, &mut read);
    read.1
}

/// Freezes all parameters whose paths begin with none of these names.
fn only<M: Module>(model: M, names: &[&str]) -> M {
    let map = LayerMap::find(&model).unwrap();
    let listed = |path: &str| names.iter().any(|name| path.starts_with(name));
    let all = map.parameters().iter();
    let trainable: Vec<_> = all.clone().filter(|p| listed(&p.path)).collect();
    FreezeMask::new(all.map(|p| p.id)).change(model, trainable.iter().map(|p| p.id))
}

/// The gradients that a backward pass hands over, and the paths of their parameters in the order in
/// which they are handed over.
fn handed_over<M: LayeredModel>(pass: Pass<M>, model: M) -> (Values, Vec<Vec<String>>) {
    let (mut all, mut order) = (Values::new(), Vec::new());
    let handed = pass.backward_with(model, |model, grads| {
        let part = values(&model, &grads);
        order.push(part.keys().cloned().collect());
        for (path, grad) in part {
            let before = all.insert(path, grad);
            assert!(before.is_none(), "handed over twice");
        }
        model
    });
    assert!(handed.is_ok());
    (all, order)
}
