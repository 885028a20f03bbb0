//! LoRA adapters on the projections of a [`CausalLm`].
//!
//! Burn's own LoRA computes `W + s A B` in each forward pass, which keeps a matrix of each
//! projection for the backward pass. Here, the adapter is applied in a second matmul.

use burn::module::Module;

use crate::error::{Error, ErrorKind};
use crate::model::causal_lm::CausalLm;

impl CausalLm {
    /// Freezes the model and adds a LoRA adapter of this rank, scaled by `alpha / rank`, to every
    /// projection of every layer. For reproducible adapters, seed the device first.
    ///
    /// The outputs do not change. [Save](crate::checkpoint::save) the model only after
    /// [`merge_lora`](Self::merge_lora): a checkpoint cannot contain adapters.
    ///
    /// # Errors
    ///
    /// The rank is 0.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::tensor::Device;
    /// use lisa_lm::{ModelConfig, model::config::LlamaConfig};
    ///
    /// let device = Device::default().autodiff();
    /// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
    /// let before = model.num_parameters();
    /// let model = model.with_lora(4, 8.0)?;
    /// let up = &model.model.layers[0].mlp.up_proj;
    /// let lora = up.lora.as_ref().expect("every projection has an adapter");
    /// assert_eq!((lora.a.dims(), lora.b.dims()), ([16, 4], [4, 64]));
    /// assert!(lora.a.is_require_grad() && !up.weight.is_require_grad());
    /// assert_eq!(model.merge_lora().num_parameters(), before);
    /// # Ok::<(), lisa_lm::Error>(())
    /// ```
    pub fn with_lora(self, rank: usize, alpha: f64) -> Result<Self, Error> {
        if rank == 0 {
            return Err(
                Error::new(ErrorKind::Config, "the rank of the LoRA adapters is 0")
                    .with_help("give at least 1"),
            );
        }
        let mut model = self.no_grad();
        for block in &mut model.model.layers {
            for projection in block.projections_mut() {
                projection.add_lora(rank, alpha / rank as f64);
            }
        }
        Ok(model)
    }

    /// Adds each adapter to the weight of its projection and removes it. The weights stay frozen.
    #[must_use]
    pub fn merge_lora(mut self) -> Self {
        for block in &mut self.model.layers {
            for projection in block.projections_mut() {
                projection.merge_lora();
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use burn::optim::{GradientsParams, SgdConfig};
    use burn::tensor::{Device, Int, Tensor};

    use crate::model::block::Projection;
    use crate::model::config::{Gpt2Config, LlamaConfig, ModelConfig};
    use crate::model::input::Input;

    #[test]
    fn adapters_start_at_zero_train_alone_and_merge() {
        let device = Device::default().autodiff();
        let configs = [
            (ModelConfig::Llama(LlamaConfig::new(32, 8, 2, 2)), 7),
            (ModelConfig::Gpt2(Gpt2Config::new(32, 8, 2, 2)), 4),
        ];
        for (config, paths) in configs {
            device.seed(3);
            let plain = config.init(&device).unwrap();
            let tokens = Tensor::<2, Int>::from_data([[1, 2, 3, 4]], &device);
            let input = Input::new(tokens.clone());
            let before = plain.forward(&input).into_data();
            let model = plain.with_lora(2, 4.0).unwrap();
            assert_eq!(model.forward(&input).into_data(), before);

            let grads = model.loss(&input, tokens.clone()).backward();
            let grads = GradientsParams::from_grads(grads, &model);
            assert_eq!(grads.len(), 2 * 2 * paths);
            let model = SgdConfig::new().init().step(10.0, model, grads);
            let trained = model.forward(&input).into_data();
            let merged = model.merge_lora();
            let same = merged.forward(&input).into_data();
            for (a, b) in trained.iter::<f32>().zip(same.iter::<f32>()) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
            assert!(
                before
                    .iter::<f32>()
                    .zip(same.iter::<f32>())
                    .any(|(a, b)| (a - b).abs() > 1e-4)
            );
        }
    }

    #[test]
    fn every_projection_of_a_layer_has_an_adapter_of_its_shape() {
        let device = Device::default().autodiff();
        let shapes = |config: ModelConfig| {
            let model = config.init(&device).unwrap().with_lora(4, 8.0).unwrap();
            let mut block = model.model.layers[0].clone();
            let shapes = |p: &mut Projection| {
                let lora = p.lora.as_ref().unwrap();
                assert_eq!(lora.b.val().abs().max().into_scalar::<f32>(), 0.0);
                [lora.a.dims(), lora.b.dims()]
            };
            block.projections_mut().map(shapes).collect::<Vec<_>>()
        };
        let wide = |from, to| [[from, 4], [4, to]];
        let (square, up, down) = (wide(16, 16), wide(16, 64), wide(64, 16));
        assert_eq!(
            shapes(ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2))),
            [square, square, square, square, up, up, down]
        );
        assert_eq!(
            shapes(ModelConfig::Gpt2(Gpt2Config::new(64, 16, 2, 2))),
            [wide(16, 48), square, up, down]
        );
    }
}
