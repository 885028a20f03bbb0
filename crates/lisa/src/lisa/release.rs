//! The release pass: the moments of the layers that froze. Tests: `lisa/tests.rs`.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::{Held, Lisa};
use crate::optimizer::RELEASE;
use crate::{FreezeMask, OnFreeze};

impl Lisa {
    /// The release pass: steps what left and still holds state on the device, with one-element
    /// gradients and the release rate, so that each wrapped optimizer lets its state go.
    pub(crate) fn release<M: Module>(&mut self, model: M) -> M {
        if self.config.on_freeze == OnFreeze::Keep {
            return model;
        }
        let mut pass = ReleasePass {
            mask: &self.mask,
            held: &self.held,
            grads: GradientsParams::new(),
            left: Vec::new(),
        };
        model.visit(&mut pass);
        let (grads, left) = (pass.grads, pass.left);
        if left.is_empty() {
            return model;
        }
        for id in left {
            match self.config.on_freeze {
                OnFreeze::Offload => {
                    if let Some(held) = self.held.get_mut(&id) {
                        held.on_host = true;
                    }
                }
                _ => {
                    self.held.remove(&id);
                }
            }
        }
        self.optimizer.step(f64::from_bits(RELEASE), model, grads)
    }
}

struct ReleasePass<'a> {
    mask: &'a FreezeMask,
    held: &'a BTreeMap<ParamId, Held>,
    grads: GradientsParams,
    left: Vec<ParamId>,
}

impl ModuleVisitor for ReleasePass<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let held = self.held.get(&param.id).is_some_and(|held| !held.on_host);
        if held && !self.mask.contains(param.id) {
            let tensor = param.val();
            let options = (&tensor.device().inner(), tensor.dtype());
            self.grads
                .register(param.id, Tensor::<D>::ones([1; D], options));
            self.left.push(param.id);
        }
    }
}
