//! [`Tied`]: keeps the gradients of tied parameters until the end of a backward pass.

use std::collections::HashSet;

use burn::module::{Module, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::gradients::add_one;
use crate::visit::{FloatVisitor, ModulePath, visit_floats};
use crate::{ErrorKind, LisaError};

/// State of a backward pass that hands gradients over as soon as they are computed: the sum of the
/// gradients of tied parameters, and which parameters already had gradients.
pub(super) struct Tied {
    ids: Vec<ParamId>,
    sum: GradientsParams,
    seen: HashSet<ParamId>,
    /// The first parameter that got gradients twice and is not in `ids`.
    twice: Option<String>,
}

impl Tied {
    pub(super) fn new(tied: Vec<ParamId>) -> Self {
        Self {
            ids: tied,
            sum: GradientsParams::new(),
            seen: HashSet::new(),
            twice: None,
        }
    }

    /// Takes the gradients of tied parameters out of `grads`, and returns the others; `None` if no
    /// update may follow.
    pub(super) fn hold_back<M: Module>(
        &mut self,
        model: &M,
        grads: GradientsParams,
    ) -> Option<GradientsParams> {
        let mut sort = Sort { tied: self, grads };
        visit_floats(model, &mut sort);
        let grads = sort.grads;
        (!grads.is_empty() && self.twice.is_none()).then_some(grads)
    }

    /// Moves the gradients of tied parameters out, so that more can be added to them.
    pub(super) fn take(&mut self) -> GradientsParams {
        std::mem::take(&mut self.sum)
    }

    /// The gradients of tied parameters that were kept; `None` if there are none.
    pub(super) fn finish(self) -> Result<Option<GradientsParams>, LisaError> {
        match self.twice {
            Some(path) => Err(LisaError::new(
                ErrorKind::Layers,
                format!(
                    "`{path}` got gradients twice in one backward pass, so some parameters may have \
                     been updated and others not"
                ),
            )
            .with_help(
                "name it in LayeredModel::tied, or use Pass::backward and step",
            )),
            None => Ok((!self.sum.is_empty()).then_some(self.sum)),
        }
    }
}

struct Sort<'a> {
    tied: &'a mut Tied,
    grads: GradientsParams,
}

impl FloatVisitor for Sort<'_> {
    fn visit_float<const D: usize>(&mut self, path: &ModulePath, param: &Param<Tensor<D>>) {
        if self.grads.get::<D>(param.id).is_none() {
            return;
        }
        if self.tied.ids.contains(&param.id) {
            if let Some(grad) = self.grads.remove::<D>(param.id) {
                add_one(&mut self.tied.sum, param.id, grad);
            }
        } else if !self.tied.seen.insert(param.id) {
            self.tied.twice = Some(path.to_string());
        }
    }
}
