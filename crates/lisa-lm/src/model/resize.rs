//! More rows in the embeddings, for tokens that were added to a tokenizer.

use burn::module::Param;
use burn::tensor::{FloatDType, Tensor};

use crate::error::{Error, ErrorKind};
use crate::model::causal_lm::CausalLm;

impl CausalLm {
    /// Adds rows to the embedding and, if it is not tied, columns to the head, for token ids up to
    /// `vocab_size - 1`. Each new row is the mean of the old rows, as in transformers, without its
    /// noise. The configuration has the new size, so a saved model has it too.
    ///
    /// Call it before you make an optimizer, and before [`with_lora`](Self::with_lora) adds an
    /// adapter to the head. It needs the memory of a second embedding and head.
    ///
    /// # Errors
    ///
    /// The vocabulary already has more than `vocab_size` tokens; `vocab_size` is above 2^24; or the
    /// head has an adapter and must grow.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::tensor::Device;
    /// use lisa_lm::{ModelConfig, model::config::LlamaConfig};
    ///
    /// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&Device::default())?;
    /// let model = model.resize_embeddings(66)?;
    /// assert_eq!(model.config().vocab_size(), 66);
    /// assert_eq!(model.model.embed_tokens.weight.dims(), [66, 16]);
    /// assert_eq!(model.resize_embeddings(65).unwrap_err().help(), Some("give at least 66"));
    /// # Ok::<(), lisa_lm::Error>(())
    /// ```
    pub fn resize_embeddings(mut self, vocab_size: usize) -> Result<Self, Error> {
        let old = self.config().vocab_size();
        if vocab_size < old {
            let message =
                format!("the vocabulary has {old} tokens, and {vocab_size} are asked for");
            return Err(
                Error::new(ErrorKind::Config, message).with_help(format!("give at least {old}"))
            );
        }
        let config = self.config().clone().with_vocab_size(vocab_size);
        config.validate()?;
        let more = vocab_size - old;
        if more == 0 {
            return Ok(self);
        }
        if self
            .lm_head
            .as_ref()
            .is_some_and(|head| head.lora.is_some())
        {
            let message = format!("the head has a LoRA adapter for {old} tokens");
            return Err(Error::new(ErrorKind::Config, message)
                .with_help("resize the embeddings before adapters are added"));
        }
        let embedding = &mut self.model.embed_tokens.weight;
        *embedding = grown(embedding.clone(), 0, more);
        if let Some(head) = &mut self.lm_head {
            head.weight = grown(head.weight.clone(), 1, more);
            head.bias = head.bias.take().map(|bias| grown(bias, 0, more));
        }
        self.set_config(config);
        Ok(self)
    }
}

/// The parameter with `more` elements along a dimension, each the mean of the old ones.
fn grown<const D: usize>(param: Param<Tensor<D>>, dim: usize, more: usize) -> Param<Tensor<D>> {
    let trains = param.is_require_grad();
    let grown = param.map(|tensor| {
        let tensor = tensor.detach();
        let dtype = tensor.dtype();
        // In half precision a sum over a vocabulary has few correct digits.
        let mean = tensor
            .clone()
            .cast(FloatDType::F32)
            .mean_dim(dim)
            .cast(dtype);
        let rows = mean.repeat_dim(dim, more);
        Tensor::cat(vec![tensor, rows], dim).detach()
    });
    grown.set_require_grad(trains)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int, Tensor, TensorData};

    use super::*;
    use crate::model::config::{Gpt2Config, LlamaConfig, ModelConfig};
    use crate::model::input::Input;

    fn rows(weight: &Tensor<2>) -> Vec<Vec<f32>> {
        let width = weight.dims()[1];
        let values: Vec<f32> = weight.clone().into_data().iter::<f32>().collect();
        values.chunks(width).map(<[f32]>::to_vec).collect()
    }

    /// Old rows are the same, and each new one is the mean of the old.
    fn check(old: &Tensor<2>, new: &Tensor<2>) {
        let (old, new) = (rows(old), rows(new));
        assert_eq!(new[..old.len()], old);
        for row in &new[old.len()..] {
            for (column, value) in row.iter().enumerate() {
                let sum: f32 = old.iter().map(|row| row[column]).sum();
                assert!((value - sum / old.len() as f32).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn new_rows_are_the_mean_of_the_old_in_embedding_and_head() {
        let device = Device::default().autodiff();
        device.seed(5);
        let untied = ModelConfig::Llama(LlamaConfig::new(20, 8, 2, 2));
        let tied = ModelConfig::Gpt2(Gpt2Config::new(20, 8, 2, 2));
        for config in [untied, tied] {
            let model = config.init(&device).unwrap();
            let larger = model.clone().resize_embeddings(23).unwrap();
            let of = |model: &CausalLm| model.model.embed_tokens.weight.val();
            assert_eq!(of(&larger).dims(), [23, 8]);
            check(&of(&model), &of(&larger));
            if let (Some(old), Some(new)) = (&model.lm_head, &larger.lm_head) {
                assert_eq!(new.weight.dims(), [8, 23]);
                check(&old.weight.val().transpose(), &new.weight.val().transpose());
            }
            assert_eq!(larger.config(), &config.with_vocab_size(23));
            assert_eq!(
                larger.model.embed_tokens.weight.id,
                model.model.embed_tokens.weight.id
            );

            // Old logits are the same, and the new rows train.
            let tokens = Tensor::<2, Int>::from_data([[1, 2, 3]], &device);
            let logits = |model: &CausalLm| {
                let logits = model.forward(&Input::new(tokens.clone()));
                logits.slice([0..1, 0..3, 0..20]).into_data()
            };
            assert_eq!(logits(&larger), logits(&model));
            let tokens = Tensor::<2, Int>::from_data([[1, 22, 21, 22]], &device);
            let gradients = larger.loss(&Input::new(tokens.clone()), tokens).backward();
            let gradient = of(&larger).grad(&gradients).unwrap();
            assert!(rows(&gradient)[22].iter().any(|value| *value != 0.0));
        }
    }

    #[test]
    fn a_head_with_an_adapter_is_not_resized() {
        use crate::model::LoraConfig;

        let device = Device::default();
        let model = ModelConfig::Llama(LlamaConfig::new(20, 8, 1, 2));
        let model = model.init(&device).unwrap();
        let with = |module: &str| {
            let config = LoraConfig::new(2).with_modules([module]);
            let model = model.clone().with_lora(&config).unwrap();
            model.resize_embeddings(21)
        };
        let error = with("lm_head").unwrap_err();
        assert_eq!(error.message(), "the head has a LoRA adapter for 20 tokens");
        let larger = with("q_proj").unwrap();
        let tokens = Tensor::<2, Int>::from_data([[20]], &device);
        assert_eq!(larger.forward(&Input::new(tokens)).dims(), [1, 1, 21]);
    }

    #[test]
    fn half_precision_keeps_its_dtype_and_a_mean_of_many_rows_is_exact() {
        let device = Device::default();
        let mut model = ModelConfig::Llama(LlamaConfig::new(4096, 4, 1, 1))
            .init(&device)
            .unwrap();
        let ones = TensorData::new(vec![1.0f32; 4096 * 4], [4096, 4]);
        let ones = Tensor::<2>::from_data(ones, &device).cast(FloatDType::BF16);
        let embedding = model.model.embed_tokens.weight.clone();
        model.model.embed_tokens.weight = embedding.map(|_| ones);
        let model = model.resize_embeddings(4097).unwrap();
        assert_eq!(model.dtype(), burn::tensor::DType::BF16);
        let weight = model.model.embed_tokens.weight.val();
        assert_eq!(rows(&weight.cast(FloatDType::F32))[4096], [1.0; 4]);
    }
}
