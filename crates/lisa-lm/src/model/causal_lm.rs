//! [`CausalLm`]: a causal language model of any supported family.
//!
//! `forward` is `embed`, every `layer` in turn, `head`; the parts are public for whoever runs the
//! layers one by one. Tests: `model/tests.rs`, against transformers.

use burn::module::{Module, ModuleVisitor, ParamId};
use burn::tensor::{DType, Device, FloatDType, Int, Tensor};

use lisa::memory::{Activations, Footprint};
use lisa::recompute::{Cuts, HeadPass, LayeredModel};

use crate::model::attention;
use crate::model::cache::LayerCache;
use crate::model::config::ModelConfig;
use crate::model::fused;
use crate::model::gpt2::Gpt2ForCausalLm;
use crate::model::input::{BatchTensors, Context, Input};
use crate::model::layers::{Projection, normed};
use crate::model::llama::LlamaForCausalLm;
use crate::model::loss::{cross_entropy, head_pass};
use crate::text::encode::IGNORED;

/// A causal language model. Load one with [`Checkpoint`](crate::Checkpoint), or make a new one with
/// [`ModelConfig::init`].
///
/// Parameters have the names that Hugging Face gives them, behind the name of the variant:
/// `Llama.model.layers.0.mlp.up_proj.weight`, `Gpt2.transformer.h.0.ln_1.gamma`. Half-precision
/// models need no configuration of the device: every tensor is made with the dtype it has to have.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use lisa_lm::{Input, LlamaConfig, ModelConfig};
///
/// let device = Device::default().autodiff();
/// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// let tokens = Tensor::<2, Int>::from_data([[1, 2, 3, 4]], &device);
/// let input = Input::new(tokens.clone());
/// assert_eq!(model.forward(&input).dims(), [1, 4, 64]);
///
/// let loss = model.loss(&input, tokens);
/// // The same by hand: the target at a place is the next token, and the last has none.
/// let context = model.context(&input);
/// let mut h = model.embed(&input, &context);
/// for index in 0..model.num_layers() {
///     h = model.layer(index, h, &context);
/// }
/// let targets = Tensor::<2, Int>::from_data([[2, 3, 4, -100]], &device);
/// let by_hand = model.next_token_loss_of(h, targets);
/// assert!(by_hand.all_close(loss.clone(), None, None));
/// let gradients = loss.backward();
/// # let _ = gradients;
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // There is one of them, and it is not moved about.
pub enum CausalLm {
    /// Llama, Mistral, Qwen2, Qwen3.
    Llama(LlamaForCausalLm),
    /// GPT-2.
    Gpt2(Gpt2ForCausalLm),
}

impl CausalLm {
    /// The logits of the next token at each place: `[batch, seq, vocab]`, in the model's dtype.
    ///
    /// Costs, besides the layers, `batch * seq * vocab` numbers.
    ///
    /// # Panics
    ///
    /// Ids outside the vocabulary, and for GPT-2 positions that have no embedding: check against
    /// [`ModelConfig::vocab_size`] and [`ModelConfig::max_positions`].
    #[must_use]
    pub fn forward(&self, input: &Input) -> Tensor<3> {
        self.head(self.hidden(input))
    }

    /// The mean loss over the labels, `[batch, seq]`, as transformers has it: the label at a place
    /// is predicted from the place before, the first of each row is never predicted, and -100 is
    /// ignored. For packed rows the first label of each text must be -100.
    ///
    /// The softmax is in f32. Labels that are all ignored give 0, with gradients of 0.
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward), and labels outside the vocabulary.
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

    /// The mean loss over targets that are shifted already, as those of
    /// [`BatchTensors`](crate::BatchTensors) are: the target at a place is what the model should
    /// say there. The rest is as in [`loss`](Self::loss).
    ///
    /// # Panics
    ///
    /// As [`loss`](Self::loss).
    #[must_use]
    pub fn next_token_loss(&self, input: &Input, targets: Tensor<2, Int>) -> Tensor<1> {
        self.next_token_loss_of(self.hidden(input), targets)
    }

    /// The same from the hidden states behind the last layer, `[batch, seq, hidden]`.
    ///
    /// # Panics
    ///
    /// Targets outside the vocabulary.
    #[must_use]
    pub fn next_token_loss_of(&self, h: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<1> {
        let logits = self.head(h);
        let [batch, seq, vocab] = logits.dims();
        cross_entropy(
            logits.reshape([batch * seq, vocab]),
            targets.reshape([batch * seq]),
        )
    }

    /// What the layers need to know of a batch. Costs little beside a layer.
    #[must_use]
    pub fn context(&self, input: &Input) -> Context {
        self.context_after(input, 0)
    }

    /// The residual stream before the first layer: `[batch, seq, hidden]`.
    #[must_use]
    pub fn embed(&self, input: &Input, context: &Context) -> Tensor<3> {
        match self {
            Self::Llama(model) => model.embed(input),
            Self::Gpt2(model) => model.embed(input, context),
        }
    }

    /// The residual stream behind layer `index`, given that before it.
    ///
    /// # Panics
    ///
    /// A layer that is not there.
    #[must_use]
    pub fn layer(&self, index: usize, h: Tensor<3>, context: &Context) -> Tensor<3> {
        self.layer_cached(index, h, context, None)
    }

    /// Final norm and projection: `[batch, seq, hidden]` to `[batch, seq, vocab]`.
    #[must_use]
    pub fn head(&self, h: Tensor<3>) -> Tensor<3> {
        self.projection().forward(self.normed(h))
    }

    /// How many layers there are.
    #[must_use]
    pub fn num_layers(&self) -> usize {
        match self {
            Self::Llama(model) => model.model.layers.len(),
            Self::Gpt2(model) => model.transformer.h.len(),
        }
    }

    /// How many numbers the parameters have; a tied head counts once. None is initialised for it.
    #[must_use]
    pub fn num_parameters(&self) -> usize {
        self.num_params()
    }

    /// What the model was made by.
    #[must_use]
    pub fn config(&self) -> ModelConfig {
        match self {
            Self::Llama(model) => ModelConfig::Llama(model.config().clone()),
            Self::Gpt2(model) => ModelConfig::Gpt2(model.config().clone()),
        }
    }

    /// The dtype of the embedding, which is that of all parameters of a loaded model.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.embedding().dtype()
    }

    /// Where the model is.
    #[must_use]
    pub fn device(&self) -> Device {
        self.embedding().device()
    }

    fn embedding(&self) -> Tensor<2> {
        match self {
            Self::Llama(model) => model.model.embed_tokens.weight.val(),
            Self::Gpt2(model) => model.transformer.wte.weight.val(),
        }
    }

    /// The final norm.
    fn normed(&self, h: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Llama(model) => normed(&model.model.norm, h),
            Self::Gpt2(model) => model.transformer.ln_f.forward(h),
        }
    }

    /// What makes logits of it.
    fn projection(&self) -> Projection<'_> {
        match self {
            Self::Llama(model) => match &model.lm_head {
                Some(head) => Projection::Own(head),
                None => Projection::Tied(&model.model.embed_tokens),
            },
            Self::Gpt2(model) => match &model.lm_head {
                Some(head) => Projection::Own(head),
                None => Projection::Tied(&model.transformer.wte),
            },
        }
    }

    fn hidden(&self, input: &Input) -> Tensor<3> {
        let context = self.context(input);
        let start = self.embed(input, &context);
        (0..self.num_layers()).fold(start, |h, index| self.layer(index, h, &context))
    }

    pub(crate) fn context_after(&self, input: &Input, past: usize) -> Context {
        match self {
            Self::Llama(model) => model.context(input, past),
            Self::Gpt2(model) => model.context(input, past),
        }
    }

    pub(crate) fn layer_cached(
        &self,
        index: usize,
        h: Tensor<3>,
        context: &Context,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let h = self.attend(index, h, context, cache);
        self.feed(index, h, &mut Cuts::none())
    }

    /// The first half of a layer, attention.
    fn attend(
        &self,
        index: usize,
        h: Tensor<3>,
        context: &Context,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        match self {
            Self::Llama(model) => model.attend(index, h, context, cache),
            Self::Gpt2(model) => model.attend(index, h, context, cache),
        }
    }

    /// The second half, the MLP.
    fn feed(&self, index: usize, h: Tensor<3>, cuts: &mut Cuts) -> Tensor<3> {
        match self {
            Self::Llama(model) => model.feed(index, h, cuts),
            Self::Gpt2(model) => model.feed(index, h, cuts),
        }
    }
}

/// Batches are those of [`BatchTensors`]; the loss is [`CausalLm::next_token_loss`].
impl LayeredModel for CausalLm {
    type Batch = BatchTensors;
    type Context = Context;

    fn context(&self, batch: &BatchTensors) -> Context {
        Self::context(self, &Input::from(batch.clone()))
    }

    fn num_layers(&self) -> usize {
        Self::num_layers(self)
    }

    fn embed(&self, batch: &BatchTensors, context: &Context) -> Tensor<3> {
        Self::embed(self, &Input::from(batch.clone()), context)
    }

    fn layer(&self, index: usize, h: Tensor<3>, context: &Context) -> Tensor<3> {
        Self::layer(self, index, h, context)
    }

    fn sublayers(&self) -> usize {
        2
    }

    fn sublayer(
        &self,
        index: usize,
        sublayer: usize,
        h: Tensor<3>,
        context: &Context,
        cuts: &mut Cuts,
    ) -> Tensor<3> {
        match sublayer {
            0 => self.attend(index, h, context, None),
            _ => self.feed(index, h, cuts),
        }
    }

    fn visit_layer<V: ModuleVisitor>(&self, index: usize, visitor: &mut V) {
        match self {
            Self::Llama(model) => model.model.layers[index].visit(visitor),
            Self::Gpt2(model) => model.transformer.h[index].visit(visitor),
        }
    }

    fn head_loss(&self, h: Tensor<3>, batch: &BatchTensors, _: &Context) -> Tensor<1> {
        self.next_token_loss_of(h, batch.targets.clone())
    }

    fn head_pass(&self, h: Tensor<3>, batch: &BatchTensors, _: &Context) -> HeadPass {
        head_pass(self.normed(h), &self.projection(), batch.targets.clone())
    }

    fn tied(&self) -> Vec<ParamId> {
        match self.projection() {
            Projection::Own(_) => Vec::new(),
            Projection::Tied(embedding) => vec![embedding.weight.id],
        }
    }
}

/// Counted from what the layers leave on Burn's tape; `compare` shows it beside what was measured.
impl Footprint for CausalLm {
    fn activations(&self, batch: usize, sequence: usize, dtype: FloatDType) -> Activations {
        let number = DType::from(dtype).size();
        let tokens = batch * sequence;
        let config = self.config();
        let (width, heads) = match &config {
            ModelConfig::Llama(config) => (config.hidden_size, config.num_attention_heads),
            ModelConfig::Gpt2(config) => (config.n_embd, config.n_head),
        };
        let device = match self {
            Self::Llama(model) => model.model.embed_tokens.weight.lazy_device(),
            Self::Gpt2(model) => model.transformer.wte.weight.lazy_device(),
        };
        let fused = fused::takes(&device, dtype.into());
        let (block, per_score) = if fused {
            (fused::BLOCK, 4)
        } else {
            // Exponentials in f32, once more in half precision, and the mask.
            let cast = if number < 4 { number } else { 0 };
            (attention::block_of(sequence), 4 + 1 + cast)
        };
        let scores = batch * heads * attention::scores_kept(sequence, block) * per_score;
        // Of numbers for each token.
        let (frozen, training, norms) = match &config {
            ModelConfig::Llama(config) => {
                let q = config.num_attention_heads * config.head_dim;
                let kv = config.num_key_value_heads * config.head_dim;
                let inner = config.intermediate_size;
                // Norms in one operation keep their input whether they train or not.
                let (again, norms) = if fused {
                    (0, 0)
                } else {
                    (q + 2 * inner, 2 * width)
                };
                let frozen = 2 * width + q + 2 * kv + 2 * inner;
                (frozen + again, norms + 2 * width + q + inner, norms)
            }
            ModelConfig::Gpt2(config) => (
                13 * width + 6 * config.n_inner,
                5 * width + config.n_inner,
                2 * width,
            ),
        };
        let per = |numbers: usize| (tokens * numbers * number) as u64;
        let sublayer = |numbers: usize, scores: usize, weights: usize| {
            per(numbers) + (scores + weights * number) as u64
        };
        // Attention and all of its weights; the MLP, whose last product is cut off, and its weights.
        let (attend, feed) = match &config {
            ModelConfig::Llama(config) => {
                let q = config.num_attention_heads * config.head_dim;
                let kv = config.num_key_value_heads * config.head_dim;
                let inner = config.intermediate_size;
                let (norm, again) = if fused { (0, 0) } else { (width, 2 * inner) };
                (
                    sublayer(
                        norm + 2 * width + 3 * q + 2 * kv,
                        scores,
                        2 * width * (q + kv),
                    ),
                    sublayer(norm + again + 2 * width + 3 * inner, 0, 2 * width * inner),
                )
            }
            ModelConfig::Gpt2(config) => (
                sublayer(9 * width, scores, 4 * width * width),
                sublayer(5 * width + 7 * config.n_inner, 0, width * config.n_inner),
            ),
        };
        Activations {
            sublayer: attend.max(feed),
            frozen_layer: per(frozen) + scores as u64,
            active_layer: per(frozen + training) + scores as u64,
            norms: per(norms),
            hidden: per(width),
            logits: per(config.vocab_size()),
            tied_head: matches!(self.projection(), Projection::Tied(_)),
            custom_head: true,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
