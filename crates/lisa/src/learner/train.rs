//! The steps of burn-train: `TrainStep` and `InferenceStep` of a [`LisaModule`].

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams};
use burn::train::{InferenceStep, TrainOutput, TrainStep};

use super::module::LisaModule;

impl<M: Module + TrainStep> TrainStep for LisaModule<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: Self::Input) -> TrainOutput<Self::Output> {
        TrainStep::step(self.get_ref(), item)
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        mut grads: GradientsParams,
    ) -> Self {
        let board = self.board();
        board.measure(self.lisa(), self.get_ref(), std::iter::once(&mut grads));
        self.stepped(optim, |lisa, model| lisa.step(lr_module, model, grads))
    }

    fn optimize_multi(
        self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        mut grads: MultiGradientsParams,
    ) -> Self {
        let all = grads.grads.iter_mut().map(|(grads, _)| grads);
        self.board().measure(self.lisa(), self.get_ref(), all);
        self.stepped(optim, |lisa, model| {
            lisa.step_multi(lr_module, model, grads)
        })
    }
}

impl<M: Module + InferenceStep> InferenceStep for LisaModule<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: Self::Input) -> Self::Output {
        self.get_ref().step(item)
    }
}
