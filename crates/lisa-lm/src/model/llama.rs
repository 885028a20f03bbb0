//! The Llama family: Llama, Mistral, Qwen2 and Qwen3.
//!
//! Fields have the names of Hugging Face's tensors, so that a parameter's path is its name in a
//! checkpoint. Tests: with `model.rs`, against transformers.

use burn::module::Module;
use burn::nn::{Embedding, Linear, RmsNorm};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};
use lisa::recompute::Cuts;

use crate::model::attention::LlamaAttention;
use crate::model::cache::LayerCache;
use crate::model::config::LlamaConfig;
use crate::model::fused;
use crate::model::input::{Context, Input, MaskShape};
use crate::model::layers::{embedded, embedding, linear, normed, rms_norm};
use crate::model::lora::{LlamaLora, project};
use crate::model::rope::RopeTables;

/// What new parts are made by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape<'a> {
    pub(crate) config: &'a LlamaConfig,
    pub(crate) device: &'a Device,
}

/// `down(silu(gate(x)) * up(x))`.
///
/// # Example
///
/// ```
/// use burn::tensor::activation::silu;
/// use burn::tensor::{Device, Tensor};
/// use lisa_lm::{CausalLm, LlamaConfig, ModelConfig};
///
/// # let device = Device::default();
/// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// let CausalLm::Llama(llama) = &model else { panic!("not a Llama") };
/// let mlp = &llama.model.layers[0].mlp;
/// let x = Tensor::<3>::ones([1, 4, 16], &device);
/// let inner = silu(mlp.gate_proj.forward(x.clone())) * mlp.up_proj.forward(x);
/// assert_eq!(inner.dims(), [1, 4, llama.config().intermediate_size]);
/// assert_eq!(mlp.down_proj.forward(inner).dims(), [1, 4, 16]);
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct LlamaMlp {
    /// What is let through.
    pub gate_proj: Linear,
    /// What is there.
    pub up_proj: Linear,
    /// Back to the width of the residual stream.
    pub down_proj: Linear,
}

/// One layer: attention and MLP, each behind a norm and added to the residual stream.
///
/// # Example
///
/// ```
/// use burn::module::Module;
/// use burn::tensor::{Device, Int, Tensor};
/// use lisa_lm::{CausalLm, Input, LlamaConfig, ModelConfig};
///
/// # let device = Device::default();
/// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// let input = Input::new(Tensor::<2, Int>::from_data([[1, 2, 3, 4]], &device));
/// let context = model.context(&input);
/// let h = model.layer(0, model.embed(&input, &context), &context);
/// assert_eq!(h.dims(), [1, 4, 16]);
/// let CausalLm::Llama(llama) = &model else { panic!("not a Llama") };
/// let layer = &llama.model.layers[0];
/// assert_eq!(layer.num_params(), 4128);
/// assert!(layer.lora.is_none());
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct LlamaLayer {
    /// The norm before attention.
    pub input_layernorm: RmsNorm,
    /// Attention.
    pub self_attn: LlamaAttention,
    /// The norm before the MLP.
    pub post_attention_layernorm: RmsNorm,
    /// The MLP.
    pub mlp: LlamaMlp,
    /// Side paths beside the matrices; none but with LoRA.
    pub lora: Option<LlamaLora>,
}

/// Embedding, layers, final norm.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use lisa_lm::{CausalLm, Input, LlamaConfig, ModelConfig};
///
/// # let device = Device::default();
/// let model = ModelConfig::Llama(LlamaConfig::new(64, 16, 2, 2)).init(&device)?;
/// let CausalLm::Llama(llama) = &model else { panic!("not a Llama") };
/// let parts = &llama.model;
/// assert_eq!(parts.embed_tokens.weight.dims(), [64, 16]);
/// assert_eq!((parts.layers.len(), parts.norm.gamma.dims()), (2, [16]));
///
/// let tokens = Tensor::<2, Int>::from_data([[7, 8, 9]], &device);
/// let input = Input::new(tokens.clone());
/// let h = model.embed(&input, &model.context(&input));
/// assert_eq!(h.into_data(), parts.embed_tokens.forward(tokens).into_data());
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct LlamaModel {
    /// `[vocab, hidden]`.
    pub embed_tokens: Embedding,
    /// The stack.
    pub layers: Vec<LlamaLayer>,
    /// The norm behind the stack.
    pub norm: RmsNorm,
}

/// A model of the Llama family with its head.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use lisa_lm::{CausalLm, LlamaConfig, ModelConfig};
///
/// # let device = Device::default();
/// let config = LlamaConfig { tie_word_embeddings: true, ..LlamaConfig::new(64, 16, 2, 2) };
/// let model = ModelConfig::Llama(config.clone()).init(&device)?;
/// let CausalLm::Llama(llama) = &model else { panic!("not a Llama") };
/// assert_eq!(llama.config(), &config);
///
/// // The embedding's weight is the head.
/// assert!(llama.lm_head.is_none());
/// let weight = llama.model.embed_tokens.weight.val();
/// let h = Tensor::<3>::ones([1, 4, 16], &device);
/// let by_hand = llama.model.norm.forward(h.clone()).matmul(weight.transpose().unsqueeze());
/// assert!(model.head(h).all_close(by_hand, Some(1e-4), Some(1e-5)));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct LlamaForCausalLm {
    /// All but the head.
    pub model: LlamaModel,
    /// The head; none where it is the embedding's weight.
    pub lm_head: Option<Linear>,
    #[module(skip)]
    config: LlamaConfig,
}

impl LlamaLayer {
    fn new(shape: Shape, slides: bool) -> Self {
        let Shape { config, device } = shape;
        let norm = || rms_norm(config.hidden_size, config.rms_norm_eps, device);
        let new = |from, to| linear(from, to, config.mlp_bias, config.initializer_range, device);
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        Self {
            input_layernorm: norm(),
            self_attn: LlamaAttention::new(&shape, slides),
            post_attention_layernorm: norm(),
            mlp: LlamaMlp {
                gate_proj: new(hidden, inner),
                up_proj: new(hidden, inner),
                down_proj: new(inner, hidden),
            },
            lora: None,
        }
    }
}

impl LlamaMlp {
    /// Adds what it makes of `x` to `h`.
    fn forward(
        &self,
        x: Tensor<3>,
        h: Tensor<3>,
        lora: Option<&LlamaLora>,
        cuts: &mut Cuts,
    ) -> Tensor<3> {
        let gate = project(&self.gate_proj, lora.map(|l| &l.gate), x.clone());
        let up = project(&self.up_proj, lora.map(|l| &l.up), x);
        let through = fused::swiglu(&gate, &up).unwrap_or_else(|| silu(gate) * up);
        let [through, h] = cuts.cut([through, h]);
        h + project(&self.down_proj, lora.map(|l| &l.down), through)
    }
}

impl LlamaForCausalLm {
    pub(crate) fn new(config: &LlamaConfig, device: &Device) -> Self {
        let shape = Shape { config, device };
        let (vocab, hidden, std) = (
            config.vocab_size,
            config.hidden_size,
            config.initializer_range,
        );
        let layers = config
            .sliding_layers
            .iter()
            .map(|slides| LlamaLayer::new(shape, *slides));
        Self {
            model: LlamaModel {
                embed_tokens: embedding(vocab, hidden, std, device),
                layers: layers.collect(),
                norm: rms_norm(hidden, config.rms_norm_eps, device),
            },
            lm_head: (!config.tie_word_embeddings)
                .then(|| linear(hidden, vocab, false, std, device)),
            config: config.clone(),
        }
    }

    /// What the model was made by.
    #[must_use]
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    pub(crate) fn context(&self, input: &Input, past: usize) -> Context {
        let weight = self.model.embed_tokens.weight.val();
        let (device, dtype) = (weight.device(), weight.dtype());
        let config = &self.config;
        let seq = input.tokens.dims()[1];
        let groups = config.num_attention_heads / config.num_key_value_heads;
        let shape = MaskShape { past, groups };
        let (rope, width, options) = (&config.rope, config.head_dim, (&device, dtype));
        let tables = match &input.positions {
            Some(positions) => RopeTables::at(rope, width, positions.clone(), options),
            None => RopeTables::range(rope, width, past, seq, options),
        };
        let has = |slides: bool| config.sliding_layers.contains(&slides);
        let mask = |window| shape.mask(input, window, &device);
        Context {
            full: has(false).then(|| mask(None)).flatten(),
            sliding: has(true).then(|| mask(config.sliding_window)).flatten(),
            rope: Some(tables),
            positions: None,
        }
    }

    pub(crate) fn embed(&self, input: &Input) -> Tensor<3> {
        embedded(&self.model.embed_tokens, input.tokens.clone())
    }

    /// The first half of a layer, attention.
    pub(crate) fn attend(
        &self,
        index: usize,
        h: Tensor<3>,
        context: &Context,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let layer = &self.model.layers[index];
        let x = normed(&layer.input_layernorm, h.clone());
        h + layer.self_attn.forward(
            x,
            context,
            self.config.head_dim,
            (layer.lora.as_ref(), cache),
        )
    }

    /// The second half, the MLP.
    pub(crate) fn feed(&self, index: usize, h: Tensor<3>, cuts: &mut Cuts) -> Tensor<3> {
        let layer = &self.model.layers[index];
        let x = normed(&layer.post_attention_layernorm, h.clone());
        layer.mlp.forward(x, h, layer.lora.as_ref(), cuts)
    }
}
