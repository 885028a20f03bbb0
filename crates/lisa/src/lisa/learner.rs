//! What the learner's module needs from a run. The learner has the optimizer, and the step and the
//! scores come from the model's record.

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::tensor::Device;

use super::Lisa;
use crate::LisaError;
use crate::saved::{self, SavedUnit};

impl Lisa {
    /// Exchanges this run's `ModuleOptimizer` with another one.
    pub(crate) fn exchange_optimizer(&mut self, optimizer: &mut ModuleOptimizer) {
        self.optimizer.exchange(optimizer);
    }

    /// Reads from the optimizer's record which parameters have state, and releases the state of
    /// frozen parameters. Cost: two copies of each state in all, and one state at a time in host memory.
    pub(crate) fn recount<M: Module>(&mut self, model: M) -> Result<M, LisaError> {
        self.optimizer.recount(self.trainable.map())?;
        Ok(self.optimizer.release(model, &self.mask))
    }

    /// Drops the master weights, after the weights of the model were replaced: the next step takes them
    /// from the new weights. Cost: a copy of the state in host memory, if there are master weights.
    pub(crate) fn drop_masters(&mut self) -> Result<(), LisaError> {
        self.optimizer.drop_masters(self.trainable.map())
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
        self.bind(map);
        let trainable = self.trainable.ids(|layer| self.sampler.is_active(layer));
        Ok(self.mask.change(model, trainable))
    }
}
