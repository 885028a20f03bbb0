//! LoRA adapters on the linear modules of a [`CausalLm`].
//!
//! Burn's own LoRA computes `W + s A B` in each forward pass, which keeps a matrix of each
//! projection for the backward pass. Here, the adapter is applied in a second matmul, as in PEFT.

use std::collections::BTreeSet;

use burn::module::{Module, Param, ParamId};
use rand_chacha::rand_core::Rng;

use crate::error::{Error, ErrorKind};
use crate::model::block::Projection;
use crate::model::causal_lm::CausalLm;
use crate::model::families::FileNames;
use crate::model::lora_config::{LoraConfig, ends_with};
use crate::model::random::sequence;

impl CausalLm {
    /// Freezes the model and adds new LoRA adapters. Their initial values depend only on the
    /// configuration and its seed. A tied head that gets an adapter becomes a separate parameter,
    /// which shares its values with the embedding.
    ///
    /// The outputs do not change. [`save`](crate::checkpoint::save) can write only a model without
    /// adapters: [merge](Self::merge_lora) them first, or write only the adapters with
    /// [`save_adapter`](crate::checkpoint::save_adapter).
    ///
    /// # Errors
    ///
    /// The model has adapters already; a value is out of range; a name selects no module.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::tensor::Device;
    /// use lisa_lm::ModelConfig;
    /// use lisa_lm::model::{LoraConfig, config::LlamaConfig};
    ///
    /// let device = Device::default().autodiff();
    /// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
    /// let before = model.num_parameters();
    /// let model = model.with_lora(&LoraConfig::new(4))?;
    /// let up = &model.model.layers[0].mlp.up_proj;
    /// let lora = up.lora.as_ref().expect("every projection has an adapter");
    /// assert_eq!((lora.a.dims(), lora.b.dims()), ([16, 4], [4, 64]));
    /// assert!(lora.a.is_require_grad() && !up.weight.is_require_grad());
    /// assert_eq!(model.merge_lora().num_parameters(), before);
    /// # Ok::<(), lisa_lm::Error>(())
    /// ```
    pub fn with_lora(self, config: &LoraConfig) -> Result<Self, Error> {
        config.check()?;
        if self.lora().is_some() {
            return Err(
                Error::new(ErrorKind::Config, "the model has LoRA adapters already")
                    .with_help("merge them first"),
            );
        }
        let mut model = self;
        model.check_modules(config)?;
        if model.lm_head.is_none() && config.names(Self::HEAD) {
            model.untie();
        }
        model = model.no_grad();
        let mut random = sequence(config.seed, 0);
        for (path, in_layers, projection) in model.linear_mut() {
            if config.selects(&path, in_layers) {
                projection.add_lora(config, &mut random);
            }
        }
        model.set_lora(Some(config.clone()));
        Ok(model)
    }

    /// Adds each adapter to the weight of its projection, which keeps its dtype, and removes it. The
    /// weights stay frozen.
    #[must_use]
    pub fn merge_lora(mut self) -> Self {
        for (_, _, projection) in self.linear_mut() {
            projection.merge_lora();
        }
        self.set_lora(None);
        self
    }

    /// Turns on dropout of the adapters' inputs. `seed` determines which elements are dropped. With
    /// `None`, as in a new model, nothing is dropped. No tensor is copied.
    ///
    /// Give each batch another seed, and `None` for evaluation. A backward pass that
    /// [recomputes](lisa::recompute) layers drops the same elements again. The mask of each adapter
    /// is sampled on the host and copied to the device.
    #[must_use]
    pub fn with_dropout(mut self, seed: Option<u64>) -> Self {
        for (index, (_, _, projection)) in self.linear_mut().enumerate() {
            if let Some(lora) = &mut projection.lora {
                lora.set_dropout(seed.map(|seed| sequence(seed, 1 + index as u64).next_u64()));
            }
        }
        self
    }

    /// Returns an error if a name selects no module.
    fn check_modules(&self, config: &LoraConfig) -> Result<(), Error> {
        let mut paths: Vec<String> = self.linear().map(|(path, _)| path).collect();
        if self.lm_head.is_none() {
            paths.push(Self::HEAD.to_owned());
        }
        let unknown = |name: &&String| !paths.iter().any(|path| ends_with(path, name));
        let Some(name) = config.modules.iter().find(unknown) else {
            return Ok(());
        };
        let last = |path: &String| path.rsplit('.').next().unwrap_or_default().to_owned();
        let known: BTreeSet<String> = paths.iter().map(last).collect();
        let known = Vec::from_iter(known).join(", ");
        let message = format!("no linear module of the model is named `{name}`");
        Err(Error::new(ErrorKind::Config, message).with_help(format!(
            "the modules that can have a LoRA adapter are {known}"
        )))
    }

    /// Makes a tied head a projection with the transposed weight of the embedding.
    fn untie(&mut self) {
        let weight = self.model.embed_tokens.weight.val().detach().transpose();
        self.lm_head = Some(Projection {
            weight: Param::initialized(ParamId::new(), weight),
            bias: None,
            lora: None,
        });
        let mut config = self.config().clone();
        config.set_tied(false);
        self.set_config(config);
    }

    /// The linear modules with their paths in transformers, in the order of [`linear_mut`](Self::linear_mut).
    pub(crate) fn linear(&self) -> impl Iterator<Item = (String, &Projection)> {
        let layers = self.model.layers.iter().enumerate();
        let layers = layers.flat_map(move |(index, block)| {
            let projections = block.projections();
            projections.map(move |(name, projection)| (self.linear_path(index, name), projection))
        });
        let head = self.lm_head.iter();
        layers.chain(head.map(|head| (Self::HEAD.to_owned(), head)))
    }

    /// The path in transformers of a linear module, given its layer and its path in that.
    pub(crate) fn linear_path(&self, layer: usize, name: &str) -> String {
        path_of(self.config().file_names(), layer, name)
    }

    /// The linear modules with their paths in transformers, and whether they are of a layer.
    pub(crate) fn linear_mut(&mut self) -> impl Iterator<Item = (String, bool, &mut Projection)> {
        let names = self.config().file_names();
        let head = self.lm_head.iter_mut();
        let head = head.map(|head| (Self::HEAD.to_owned(), false, head));
        let layers = self.model.layers.iter_mut().enumerate();
        let layers = layers.flat_map(move |(index, block)| {
            let projections = block.projections_mut();
            projections
                .map(move |(name, projection)| (path_of(names, index, name), true, projection))
        });
        layers.chain(head)
    }
}

fn path_of(names: &FileNames, layer: usize, name: &str) -> String {
    names.module(&format!("{}.{layer}.{name}", CausalLm::LAYERS))
}

#[cfg(test)]
mod tests {
    use burn::optim::{GradientsParams, SgdConfig};
    use burn::tensor::{Device, Int, Tensor};

    use super::*;
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
            let model = plain.with_lora(&LoraConfig::new(2)).unwrap();
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

    /// The gradient of a logit is at most 2^-23.6, and f16 has steps of 2^-24 there.
    #[test]
    fn an_adapter_of_the_head_has_the_gradients_of_f32_in_f16() {
        use burn::tensor::FloatDType;

        let device = Device::default().autodiff();
        device.seed(3);
        let (vocab, targets) = (12288, 16);
        let plain = ModelConfig::Llama(LlamaConfig::new(vocab, 8, 1, 2));
        let plain = plain.init(&device).unwrap();
        let tokens: Vec<i64> = (0..4 * 257).map(|i| i * 7 % targets).collect();
        let tokens = Tensor::<1, Int>::from_data(&tokens[..], &device).reshape([4, 257]);
        let gradient = |dtype| -> Vec<f32> {
            let model = plain.clone().cast(dtype);
            let config = LoraConfig::new(2).with_modules([CausalLm::HEAD]);
            let mut model = model.with_lora(&config).unwrap();
            // All logits are 0.
            let head = model.lm_head.as_mut().unwrap();
            head.weight = head
                .weight
                .clone()
                .map(|weight| weight.mul_scalar(0.0).detach());
            let grads = model
                .loss(&Input::new(tokens.clone()), tokens.clone())
                .backward();
            let lora = model.lm_head.as_ref().unwrap().lora.as_ref().unwrap();
            let gradient = lora.b.val().grad(&grads).unwrap();
            gradient.into_data().iter::<f32>().collect()
        };
        let (found, expected) = (gradient(FloatDType::F16), gradient(FloatDType::F32));
        for row in 0..2 {
            // The columns of tokens that are no targets.
            for column in targets as usize..vocab {
                let at = row * vocab + column;
                let (found, expected) = (found[at], expected[at]);
                assert!((found / expected - 1.0).abs() < 0.05, "{found} {expected}");
            }
        }
    }

    #[test]
    fn every_projection_of_a_layer_has_an_adapter_of_its_shape() {
        let device = Device::default().autodiff();
        let shapes = |config: ModelConfig| {
            let model = config
                .init(&device)
                .unwrap()
                .with_lora(&LoraConfig::new(4))
                .unwrap();
            let block = &model.model.layers[0];
            let shapes = |(_, p): (&str, &Projection)| {
                let lora = p.lora.as_ref().unwrap();
                assert_eq!(lora.b.val().abs().max().into_scalar::<f32>(), 0.0);
                [lora.a.dims(), lora.b.dims()]
            };
            block.projections().map(shapes).collect::<Vec<_>>()
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

    #[test]
    fn linear_modules_are_the_same_for_reading_and_for_changes() {
        let device = Device::default();
        for config in [
            ModelConfig::Llama(LlamaConfig::new(32, 8, 2, 2)),
            ModelConfig::Gpt2(Gpt2Config::new(32, 8, 2, 2)),
        ] {
            let mut model = config.init(&device).unwrap();
            let read = model
                .linear()
                .map(|(path, linear)| (path, linear.weight.id));
            let read: Vec<_> = read.collect();
            let changed = model
                .linear_mut()
                .map(|(path, _, linear)| (path, linear.weight.id));
            assert_eq!(read, changed.collect::<Vec<_>>());
            let last = [read[2].0.as_str(), read[read.len() - 1].0.as_str()];
            let expected = match config {
                ModelConfig::Llama(_) => ["model.layers.0.self_attn.v_proj", "lm_head"],
                ModelConfig::Gpt2(_) => ["transformer.h.0.mlp.c_fc", "transformer.h.1.mlp.c_proj"],
            };
            assert_eq!(last, expected);
        }
    }

    #[test]
    fn adapters_depend_on_their_seed_only() {
        let device = Device::default();
        let model = ModelConfig::Llama(LlamaConfig::new(32, 8, 2, 2));
        let model = model.init(&device).unwrap();
        let a = |seed| {
            let config = LoraConfig::new(2).with_seed(seed);
            let model = model.clone().with_lora(&config).unwrap();
            let values = |layer: usize| {
                let lora = model.model.layers[layer].mlp.up_proj.lora.as_ref().unwrap();
                lora.a.val().into_data()
            };
            (values(0), values(1))
        };
        let first = a(3);
        device.seed(99);
        assert_eq!(a(3), first);
        assert_ne!(a(4), first);
        assert_ne!(first.0, first.1);
    }

    #[test]
    fn dropout_drops_inputs_of_adapters_by_seed_and_scales_the_others() {
        let device = Device::default().autodiff();
        let config = ModelConfig::Llama(LlamaConfig::new(32, 64, 1, 2));
        let lora = LoraConfig::new(2).with_dropout(0.25);
        let mut model = config.init(&device).unwrap().with_lora(&lora).unwrap();
        // Of an adapter whose A is the identity of one column, the outputs are the inputs.
        let projection = &mut model.model.layers[0].mlp.up_proj;
        let lora = projection.lora.as_mut().unwrap();
        lora.a = lora.a.clone().map(|a| a.ones_like());
        lora.b = lora.b.clone().map(|b| b.ones_like());
        let x = Tensor::<3>::ones([1, 50, 64], &device);
        let sums = |model: &CausalLm| -> Vec<f32> {
            let lora = model.model.layers[0].mlp.up_proj.lora.clone().unwrap();
            // Each output is twice the sum of the inputs for each of two ranks.
            let out = lora.forward(x.clone()).slice([0..1, 0..50, 0..1]);
            (out / 4.0).into_data().iter().collect()
        };
        assert_eq!(sums(&model), [64.0; 50]);
        let one = model.clone().with_dropout(Some(1));
        let dropped = sums(&one);
        let mean = dropped.iter().sum::<f32>() / 50.0;
        // The standard deviation of the mean is 0.65.
        assert!((mean - 64.0).abs() < 3.0, "{mean}");
        assert!(dropped.iter().any(|sum| *sum != dropped[0]));
        for sum in &dropped {
            let kept = sum * 0.75;
            assert!((kept - kept.round()).abs() < 1e-3, "{kept}");
        }
        assert_eq!(sums(&one), dropped);
        assert_ne!(sums(&model.clone().with_dropout(Some(2))), dropped);
        assert_eq!(sums(&one.with_dropout(None)), [64.0; 50]);
    }
}
