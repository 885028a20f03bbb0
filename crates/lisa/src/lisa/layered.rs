//! Steps of [`Lisa`] during the backward pass of a [`LayeredModel`]. Tests: `lisa/tests/layered.rs`.

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::GradientsParams;

use super::Lisa;
use super::prepare::Ready;
use crate::recompute::{LayeredModel, Pass};
use crate::{ErrorKind, LisaError};

impl Lisa {
    /// Updates each part of a model as soon as its gradients are there, so that the gradients of
    /// one part live at a time; at the end of a period, draws the next layers.
    ///
    /// What it does to the weights is bit for bit what [`step`](Self::step) does with the gradients
    /// of [`Pass::backward`]. `pass` must come from this model. Cost: as `step`, with one walk more
    /// of the module tree for each part that trains.
    ///
    /// # Errors
    ///
    /// A configuration with [`max_grad_norm`](crate::LisaConfig::max_grad_norm), which needs all
    /// gradients at once (take [`Pass::backward`] and [`step`](Self::step)), and those of
    /// [`Pass::backward_with`].
    ///
    /// # Example
    ///
    /// ```
    /// # use burn::module::{Module, ModuleVisitor};
    /// # use burn::nn::{Linear, LinearConfig};
    /// # use burn::optim::AdamWConfig;
    /// # use burn::tensor::{Device, Tensor};
    /// use lisa::{LayeredModel, LisaConfig, LisaError, Recompute};
    /// # #[derive(Module, Debug)]
    /// # struct Model { layers: Vec<Linear>, head: Linear }
    /// # impl LayeredModel for Model {
    /// #     type Batch = Tensor<3>;
    /// #     type Context = ();
    /// #     fn context(&self, _: &Tensor<3>) {}
    /// #     fn num_layers(&self) -> usize { self.layers.len() }
    /// #     fn embed(&self, x: &Tensor<3>, (): &()) -> Tensor<3> { x.clone() }
    /// #     fn layer(&self, i: usize, h: Tensor<3>, (): &()) -> Tensor<3> { self.layers[i].forward(h) }
    /// #     fn visit_layer<V: ModuleVisitor>(&self, i: usize, visitor: &mut V) { self.layers[i].visit(visitor); }
    /// #     fn head_loss(&self, h: Tensor<3>, _: &Tensor<3>, (): &()) -> Tensor<1> { self.head.forward(h).mean() }
    /// # }
    /// # let device = Device::flex().autodiff();
    /// # let linear = || LinearConfig::new(4, 4).init(&device);
    /// # let model = Model { layers: (0..6).map(|_| linear()).collect(), head: linear() };
    /// # let batch = Tensor::<3>::ones([1, 2, 4], &device);
    /// let (mut lisa, mut model) = LisaConfig::new().init(AdamWConfig::new().build(), model)?;
    /// let pass = Recompute::new().forward(&model, &batch);
    /// println!("loss {}", pass.loss());
    /// model = lisa.step_layered(1e-3, model, pass)?;
    /// # Ok::<(), LisaError>(())
    /// ```
    pub fn step_layered<M: LayeredModel>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        pass: Pass<M>,
    ) -> Result<M, LisaError> {
        if self.config.max_grad_norm.is_some() {
            return Err(LisaError::new(
                ErrorKind::Config,
                "max_grad_norm needs the gradients of all parameters at once, and a step during \
                 the backward pass has those of one layer; take Pass::backward and Lisa::step, or \
                 leave max_grad_norm out",
            ));
        }
        let lr = lr.into();
        let mut whole = Ready::default();
        let model = pass.backward_with(model, |model, grads| {
            let (model, ready) = self.step_part(&lr, model, grads);
            whole.extend(ready);
            model
        })?;
        Ok(self.finish(model, whole))
    }

    fn step_part<M: LayeredModel>(
        &mut self,
        lr: &ModuleLearningRate,
        model: M,
        mut grads: GradientsParams,
    ) -> (M, Ready) {
        let ready = self.prepare(&model, &mut grads);
        (self.optimizer.step(lr.clone(), model, grads), ready)
    }
}
