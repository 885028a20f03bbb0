//! What the learner's module needs from a run. The learner has the optimizer, and the step and the
//! scores come from the model's record.

use std::collections::HashMap;

use burn::module::{Module, ParamId};
use burn::optim::ModuleOptimizer;
use burn::tensor::Device;

use super::Lisa;
use crate::LisaError;
use crate::optimizer::HalfWeights;
use crate::saved::{self, SavedUnit};

impl Lisa {
    /// Exchanges this run's `ModuleOptimizer` with another one.
    pub(crate) fn exchange_optimizer(&mut self, optimizer: &mut ModuleOptimizer) {
        self.optimizer.exchange(optimizer);
    }

    /// Reads from the optimizer's record which parameters have state, after weights or state were loaded,
    /// and releases the state of frozen parameters. Master weights that are not those of the model's
    /// weights are dropped: the next step takes them from the weights. Cost: that of
    /// [`LayerOptimizer::recount`](crate::optimizer::LayerOptimizer::recount).
    pub(crate) fn recount<M: Module>(&mut self, model: M) -> Result<M, LisaError> {
        // State that was loaded into a new run has the ids of the model that was loaded with it.
        let model = if self.optimizer.is_empty() {
            self.adopt(model)?
        } else {
            model
        };
        let (ours, theirs) = (
            self.trainable.map(),
            self.trainable.same(&self.config, &model)?,
        );
        let ids = ours.parameters().iter().zip(theirs.parameters());
        let ids: HashMap<ParamId, ParamId> = ids.map(|(own, new)| (own.id, new.id)).collect();
        let weights = HalfWeights::of(&model);
        self.optimizer.recount(ours, |id, master| {
            ids.get(&id)
                .is_none_or(|id| weights.are_cast_of(*id, master))
        })?;
        // A step gives the state of this run the ids of a model with other ones.
        let is_ours = ids.iter().all(|(own, new)| own == new);
        Ok(if is_ours {
            self.optimizer.release(model, &self.mask)
        } else {
            model
        })
    }

    /// Sets this run to another step, with the scores of that step. The layers are sampled again.
    pub(crate) fn resume(
        &mut self,
        step: u64,
        units: &[SavedUnit],
        device: &Device,
    ) -> Result<(), LisaError> {
        self.sampler = self.sampler.drawn_at(step, &saved::scores(units))?;
        self.sums = saved::sums(units, self.sampler.scores().len(), device);
        Ok(())
    }

    /// Accepts a model of this run whose parameters may have other ids, and applies the freeze mask
    /// to it. The optimizer state does not change, because the learner has the optimizer.
    pub(crate) fn adopt<M: Module>(&mut self, model: M) -> Result<M, LisaError> {
        let map = self.trainable.same(&self.config, &model)?;
        self.trainable.check_dtypes(&map)?;
        self.bind(map);
        let trainable = self.trainable.ids(|layer| self.sampler.is_active(layer));
        Ok(self.mask.change(model, trainable))
    }
}
