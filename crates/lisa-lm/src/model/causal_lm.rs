//! [`CausalLm`]: a causal language model of any supported family.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::Embedding;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor};
use lisa::recompute::Cuts;

use crate::error::Error;
use crate::labels::IGNORED;
use crate::model::block::{Block, Projection};
use crate::model::cache::{KvCache, LayerCache};
use crate::model::config::ModelConfig;
use crate::model::context::Context;
use crate::model::decoder::Decoder;
use crate::model::head::Head;
use crate::model::input::{BatchTensors, Input};
use crate::model::lora_config::LoraConfig;

/// A causal language model. Load one with [`Checkpoint`](crate::Checkpoint), or create one with
/// [`ModelConfig::init`].
///
/// [`forward`](Self::forward) calls [`embed`](Self::embed), every [`layer`](Self::layer) in order,
/// and [`head`](Self::head). These are public, so that you can run the layers one by one. A
/// parameter's path is the name of its tensor in a Llama checkpoint, for every family:
/// `model.layers.0.mlp.up_proj.weight`. The parameters of norms are `gamma` and `beta`, as in Burn.
/// Models in half precision need no configuration of the device: every tensor is created with its
/// dtype.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use lisa_lm::ModelConfig;
/// use lisa_lm::model::{Input, config::LlamaConfig};
///
/// let device = Device::default().autodiff();
/// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// let tokens = Tensor::<2, Int>::from_data([[1, 2, 3, 4]], &device);
/// let input = Input::new(tokens.clone());
/// assert_eq!(model.forward(&input).dims(), [1, 4, 64]);
///
/// let loss = model.loss(&input, tokens);
/// // The same layer by layer. The target of a position is the next token, and the last has none.
/// let context = model.context(&input);
/// let mut h = model.embed(&input, &context);
/// for index in 0..model.num_layers() {
///     h = model.layer(index, h, &context);
/// }
/// let targets = Tensor::<2, Int>::from_data([[2, 3, 4, -100]], &device);
/// let same = model.next_token_loss_of(h, targets);
/// assert!(same.all_close(loss.clone(), None, None));
/// let gradients = loss.backward();
/// # let _ = gradients;
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct CausalLm {
    /// All parameters except the head.
    pub model: Decoder,
    /// The weight of the head, `[hidden, vocab]`. `None` if the head is tied: it uses the weight of
    /// the embedding.
    pub lm_head: Option<Projection>,
    #[module(skip)]
    config: ModelConfig,
    #[module(skip)]
    lora: Option<LoraConfig>,
}

impl ModelConfig {
    /// A new model with random weights, in the device's default dtype. For reproducible weights,
    /// seed the device first.
    ///
    /// # Errors
    ///
    /// As [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> Result<CausalLm, Error> {
        self.validate()?;
        Ok(CausalLm::new(self, device).materialize())
    }
}

impl CausalLm {
    /// The path of the stack of layers.
    pub const LAYERS: &'static str = "model.layers";
    /// The path of the head.
    pub const HEAD: &'static str = "lm_head";
    /// The names of the embeddings and the head: the path of each of their parameters contains one of
    /// them. A model with rotary positions has no `embed_positions`, and one with a tied head no
    /// `lm_head`.
    pub const OUTER: [&'static str; 3] = ["embed_tokens", "embed_positions", Self::HEAD];

    /// With lazily initialized parameters. The configuration must be valid.
    pub(crate) fn new(config: &ModelConfig, device: &Device) -> Self {
        let spec = config.spec();
        let (sizes, deviation) = ([spec.hidden_size, spec.vocab_size], spec.init.deviation);
        let head = (!spec.tied_head).then(|| Projection::new(sizes, false, deviation, device));
        Self {
            model: Decoder::new(spec, device),
            lm_head: head,
            config: config.clone(),
            lora: None,
        }
    }

    /// The logits of the next token at each position: `[batch, seq, vocab]`, in the model's dtype.
    ///
    /// The logits have `batch * seq * vocab` elements.
    ///
    /// # Panics
    ///
    /// Panics on ids outside the vocabulary, and with GPT-2 on positions without an embedding.
    /// Check against [`ModelConfig::vocab_size`] and [`ModelConfig::max_positions`].
    #[must_use]
    pub fn forward(&self, input: &Input) -> Tensor<3> {
        self.head(self.hidden(input))
    }

    /// The mean cross entropy of labels, `[batch, seq]`, as in transformers: the label of a
    /// position is predicted from the position before, the first label of each row is not used, and
    /// labels of -100 are ignored. In packed rows the first label of each text must be -100.
    ///
    /// The softmax is in f32. If all labels are ignored the loss is 0, with gradients of 0.
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward), and on labels outside the vocabulary.
    #[must_use]
    pub fn loss(&self, input: &Input, labels: Tensor<2, Int>) -> Tensor<1> {
        let h = self.hidden(input);
        let [batch, seq, width] = h.dims();
        if seq < 2 {
            return self.next_token_loss_of(h, labels.full_like(IGNORED));
        }
        let h = h.slice([0..batch, 0..seq - 1, 0..width]);
        self.next_token_loss_of(h, labels.slice([0..batch, 1..seq]))
    }

    /// The mean cross entropy of targets, `[batch, seq]`, which are already shifted: the target of
    /// a position is the token to predict there, as in
    /// [`BatchTensors`](crate::model::BatchTensors). Everything else is as in [`loss`](Self::loss).
    ///
    /// # Panics
    ///
    /// As [`loss`](Self::loss).
    #[must_use]
    pub fn next_token_loss(&self, input: &Input, targets: Tensor<2, Int>) -> Tensor<1> {
        self.next_token_loss_of(self.hidden(input), targets)
    }

    /// The [loss](Self::next_token_loss) of a batch over its own targets. If the batch has weights,
    /// it is the mean weighted by them: the sum of `weight * loss` divided by the sum of the weights,
    /// over the targets that are not -100, as `CrossEntropyLoss` of PyTorch weighs its classes. If
    /// that sum is 0, the loss is 0.
    ///
    /// # Panics
    ///
    /// As [`loss`](Self::loss).
    #[must_use]
    pub fn batch_loss(&self, batch: BatchTensors) -> Tensor<1> {
        self.loss_of(self.hidden(&batch.input), batch.targets, batch.weights)
    }

    /// The same as [`next_token_loss`](Self::next_token_loss) for the hidden state after the last
    /// layer, `[batch, seq, hidden]`.
    ///
    /// # Panics
    ///
    /// Panics on targets outside the vocabulary.
    #[must_use]
    pub fn next_token_loss_of(&self, h: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<1> {
        self.loss_of(h, targets, None)
    }

    /// Reads more tokens, `[batch, seq]`, and returns the logits of the last position,
    /// `[batch, 1, vocab]`.
    ///
    /// Rows have no padding. Use a model without autodiff (`model.valid()`); otherwise the autodiff
    /// graph grows with every token.
    ///
    /// # Panics
    ///
    /// Panics on ids outside the vocabulary, on no tokens (`seq` is 0), on a cache of another model or
    /// batch size, and with GPT-2 on more tokens than positions.
    #[must_use]
    pub fn read(&self, tokens: Tensor<2, Int>, cache: &mut KvCache) -> Tensor<3> {
        assert_eq!(
            cache.layers_mut().count(),
            self.num_layers(),
            "the cache is for a model with another number of layers"
        );
        let [batch, seq] = tokens.dims();
        assert!(seq > 0, "there is no token to read");
        let input = Input::new(tokens);
        let context = self.model.context(&input, cache.len());
        let mut h = self.embed(&input, &context);
        for (block, cache) in self.model.layers.iter().zip(cache.layers_mut()) {
            h = run(block, h, &context, Some(cache));
        }
        cache.advance(seq);
        let width = h.dims()[2];
        self.head(h.slice([0..batch, seq - 1..seq, 0..width]))
    }

    /// The masks and positions of a batch. The cost is small compared with a layer.
    #[must_use]
    pub fn context(&self, input: &Input) -> Context {
        self.model.context(input, 0)
    }

    /// The hidden state before the first layer: `[batch, seq, hidden]`.
    #[must_use]
    pub fn embed(&self, input: &Input, context: &Context) -> Tensor<3> {
        let weight_of = |embedding: &Embedding| embedding.weight.val();
        self.model.embed(input, context, weight_of)
    }

    /// The hidden state after layer `index`, given the hidden state before it.
    ///
    /// # Panics
    ///
    /// Panics if there is no such layer.
    #[must_use]
    pub fn layer(&self, index: usize, h: Tensor<3>, context: &Context) -> Tensor<3> {
        run(&self.model.layers[index], h, context, None)
    }

    /// The final norm and the logits: `[batch, seq, hidden]` to `[batch, seq, vocab]`.
    #[must_use]
    pub fn head(&self, h: Tensor<3>) -> Tensor<3> {
        self.logits().forward(self.model.norm.forward(h))
    }

    /// Casts every parameter to this dtype, one after the other. A parameter that requires
    /// gradients still does.
    #[must_use]
    pub fn cast(self, dtype: FloatDType) -> Self {
        struct Cast(FloatDType);
        impl ModuleMapper for Cast {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let trains = param.is_require_grad();
                let (id, tensor, mapper) = param.consume();
                // Detached after the cast: a cast of a detached tensor would not be a leaf.
                let tensor = tensor.cast(self.0).detach();
                let tensor = if trains {
                    tensor.require_grad()
                } else {
                    tensor
                };
                Param::from_mapped_value(id, tensor, mapper)
            }
        }
        self.map(&mut Cast(dtype))
    }

    /// The number of layers.
    #[must_use]
    pub fn num_layers(&self) -> usize {
        self.model.layers.len()
    }

    /// The number of elements of all parameters. A tied head counts once. Initializes nothing.
    #[must_use]
    pub fn num_parameters(&self) -> usize {
        self.num_params()
    }

    /// The configuration of the model.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The configuration of the LoRA adapters, if the model has some.
    #[must_use]
    pub fn lora(&self) -> Option<&LoraConfig> {
        self.lora.as_ref()
    }

    pub(crate) fn set_lora(&mut self, lora: Option<LoraConfig>) {
        self.lora = lora;
    }

    /// Sets the configuration after the parameters have changed.
    pub(crate) fn set_config(&mut self, config: ModelConfig) {
        self.model.set_spec(config.spec());
        self.config = config;
    }

    /// The dtype of the embedding. All parameters of a loaded model have it.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.model.embed_tokens.weight.val().dtype()
    }

    /// The device of the model.
    #[must_use]
    pub fn device(&self) -> Device {
        self.model.embed_tokens.weight.val().device()
    }

    /// The mean cross entropy for the hidden state after the last layer, weighted if there are
    /// weights.
    pub(crate) fn loss_of(
        &self,
        h: Tensor<3>,
        targets: Tensor<2, Int>,
        weights: Option<Tensor<2>>,
    ) -> Tensor<1> {
        self.logits()
            .loss(self.model.norm.forward(h), targets, weights)
    }

    /// The part of the head after the norm.
    pub(crate) fn logits(&self) -> Head<'_> {
        match &self.lm_head {
            Some(head) => Head::Own(head),
            None => Head::Tied(&self.model.embed_tokens),
        }
    }

    /// The hidden state after the last layer.
    fn hidden(&self, input: &Input) -> Tensor<3> {
        let context = self.context(input);
        let start = self.embed(input, &context);
        (0..self.num_layers()).fold(start, |h, index| self.layer(index, h, &context))
    }
}

fn run(
    block: &Block,
    h: Tensor<3>,
    context: &Context,
    cache: Option<&mut LayerCache>,
) -> Tensor<3> {
    let h = block.attend(h, context, cache);
    block.feed(h, &mut Cuts::none())
}

#[cfg(test)]
mod tests;
