//! GPT-2: learned positions, projections stored `[in, out]`, biases everywhere.
//!
//! Fields have the names of Hugging Face's tensors. Tests: with `model.rs`, against transformers.

use burn::module::Module;
use burn::nn::{Embedding, LayerNorm, Linear};
use burn::tensor::activation::{gelu, gelu_approximate};
use burn::tensor::{Device, Int, Tensor};
use lisa::recompute::Cuts;

use crate::model::attention::{attend, merge_heads, split_heads};
use crate::model::cache::LayerCache;
use crate::model::config::Gpt2Config;
use crate::model::input::{Context, Input, MaskShape};
use crate::model::layers::{embedded, embedding, layer_norm, linear};
use crate::model::lora::{Gpt2Lora, project};

/// Attention with as many key heads as query heads.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use lisa_lm::{CausalLm, Gpt2Config, ModelConfig};
///
/// # let device = Device::default();
/// let model = ModelConfig::Gpt2(Gpt2Config::new(64, 16, 2, 2)).init(&device)?;
/// let CausalLm::Gpt2(gpt2) = &model else { panic!("not GPT-2") };
/// let attention = &gpt2.transformer.h[0].attn;
/// let h = Tensor::<3>::ones([1, 4, 16], &device);
/// let all = attention.c_attn.forward(h);
/// assert_eq!(all.dims(), [1, 4, 48]);
/// // Queries, keys and values.
/// let parts = all.chunk(3, 2);
/// assert!(parts.len() == 3 && parts.iter().all(|part| part.dims() == [1, 4, 16]));
/// assert_eq!(attention.c_proj.weight.dims(), [16, 16]);
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct Gpt2Attention {
    /// Queries, keys and values beside each other: `n_embd` to `3 * n_embd`.
    pub c_attn: Linear,
    /// Back: `n_embd` to `n_embd`.
    pub c_proj: Linear,
}

/// `c_proj(gelu(c_fc(x)))`.
///
/// # Example
///
/// ```
/// use burn::tensor::activation::gelu_approximate;
/// use burn::tensor::{Device, Tensor};
/// use lisa_lm::{CausalLm, Gpt2Config, ModelConfig};
///
/// # let device = Device::default();
/// let model = ModelConfig::Gpt2(Gpt2Config::new(64, 16, 2, 2)).init(&device)?;
/// let CausalLm::Gpt2(gpt2) = &model else { panic!("not GPT-2") };
/// let mlp = &gpt2.transformer.h[0].mlp;
/// let inner = gelu_approximate(mlp.c_fc.forward(Tensor::<3>::ones([1, 4, 16], &device)));
/// assert_eq!(inner.dims(), [1, 4, gpt2.config().n_inner]);
/// assert_eq!(mlp.c_proj.forward(inner).dims(), [1, 4, 16]);
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct Gpt2Mlp {
    /// `n_embd` to `n_inner`.
    pub c_fc: Linear,
    /// Back.
    pub c_proj: Linear,
}

/// One layer: attention and MLP, each behind a norm and added to the residual stream.
///
/// # Example
///
/// ```
/// use burn::module::Module;
/// use burn::tensor::{Device, Int, Tensor};
/// use lisa_lm::{CausalLm, Gpt2Config, Input, ModelConfig};
///
/// # let device = Device::default();
/// let model = ModelConfig::Gpt2(Gpt2Config::new(64, 16, 2, 2)).init(&device)?;
/// let input = Input::new(Tensor::<2, Int>::from_data([[1, 2, 3, 4]], &device));
/// let context = model.context(&input);
/// let h = model.layer(0, model.embed(&input, &context), &context);
/// assert_eq!(h.dims(), [1, 4, 16]);
/// let CausalLm::Gpt2(gpt2) = &model else { panic!("not GPT-2") };
/// let layer = &gpt2.transformer.h[0];
/// assert_eq!(layer.num_params(), 3280);
/// assert!(layer.lora.is_none());
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct Gpt2Layer {
    /// The norm before attention.
    pub ln_1: LayerNorm,
    /// Attention.
    pub attn: Gpt2Attention,
    /// The norm before the MLP.
    pub ln_2: LayerNorm,
    /// The MLP.
    pub mlp: Gpt2Mlp,
    /// Side paths beside the matrices; none but with LoRA.
    pub lora: Option<Gpt2Lora>,
}

/// Embeddings, layers, final norm.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use lisa_lm::{CausalLm, Gpt2Config, Input, ModelConfig};
///
/// # let device = Device::default();
/// let model = ModelConfig::Gpt2(Gpt2Config::new(64, 16, 2, 2)).init(&device)?;
/// let CausalLm::Gpt2(gpt2) = &model else { panic!("not GPT-2") };
/// let parts = &gpt2.transformer;
/// assert_eq!((parts.wte.weight.dims(), parts.wpe.weight.dims()), ([64, 16], [1024, 16]));
/// assert_eq!(parts.h.len(), 2);
///
/// let ids = |ids: [i32; 3]| Tensor::<2, Int>::from_data([ids], &device);
/// let input = Input::new(ids([7, 8, 9]));
/// let h = model.embed(&input, &model.context(&input));
/// let by_hand = parts.wte.forward(ids([7, 8, 9])) + parts.wpe.forward(ids([0, 1, 2]));
/// assert_eq!(h.into_data(), by_hand.into_data());
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct Gpt2Model {
    /// Tokens: `[vocab, n_embd]`.
    pub wte: Embedding,
    /// Positions: `[n_positions, n_embd]`.
    pub wpe: Embedding,
    /// The stack.
    pub h: Vec<Gpt2Layer>,
    /// The norm behind the stack.
    pub ln_f: LayerNorm,
}

/// GPT-2 with its head.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use lisa_lm::{CausalLm, Gpt2Config, Input, ModelConfig};
///
/// # let device = Device::default();
/// let config = Gpt2Config { tie_word_embeddings: false, ..Gpt2Config::new(64, 16, 2, 2) };
/// let model = ModelConfig::Gpt2(config.clone()).init(&device)?;
/// let CausalLm::Gpt2(gpt2) = &model else { panic!("not GPT-2") };
/// assert_eq!(gpt2.config(), &config);
/// let head = gpt2.lm_head.as_ref().map(|head| head.weight.dims());
/// assert_eq!(head, Some([16, 64]));
///
/// let tokens = Tensor::<2, Int>::from_data([[1, 2, 3]], &device);
/// assert_eq!(model.forward(&Input::new(tokens)).dims(), [1, 3, 64]);
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct Gpt2ForCausalLm {
    /// All but the head.
    pub transformer: Gpt2Model,
    /// The head; none where it is the embedding's weight.
    pub lm_head: Option<Linear>,
    #[module(skip)]
    config: Gpt2Config,
}

impl Gpt2Layer {
    fn new(config: &Gpt2Config, device: &Device) -> Self {
        let (width, inner, std) = (config.n_embd, config.n_inner, config.initializer_range);
        let norm = || layer_norm(width, config.layer_norm_epsilon, device);
        // What is added to the residual stream is scaled down by the number of additions.
        let residual = std / (2.0 * config.n_layer as f64).sqrt();
        Self {
            ln_1: norm(),
            attn: Gpt2Attention {
                c_attn: linear(width, 3 * width, true, std, device),
                c_proj: linear(width, width, true, residual, device),
            },
            ln_2: norm(),
            mlp: Gpt2Mlp {
                c_fc: linear(width, inner, true, std, device),
                c_proj: linear(inner, width, true, residual, device),
            },
            lora: None,
        }
    }
}

impl Gpt2Attention {
    fn forward(
        &self,
        h: Tensor<3>,
        context: &Context,
        heads: usize,
        (lora, cache): (Option<&Gpt2Lora>, Option<&mut LayerCache>),
    ) -> Tensor<3> {
        let width = h.dims()[2];
        let all = project(&self.c_attn, lora.map(|l| &l.c_attn), h);
        let part = |index| {
            let part = all.clone().narrow(2, index * width, width);
            split_heads(part, heads)
        };
        let (q, k, v) = (part(0), part(1), part(2));
        let (k, v) = match cache {
            Some(cache) => cache.append(k, v),
            None => (k, v),
        };
        let weighted = merge_heads(attend(q, k, v, context.full.as_ref()));
        project(&self.c_proj, lora.map(|l| &l.attn_proj), weighted)
    }
}

impl Gpt2ForCausalLm {
    pub(crate) fn new(config: &Gpt2Config, device: &Device) -> Self {
        let (vocab, width, std) = (config.vocab_size, config.n_embd, config.initializer_range);
        let head = || linear(width, vocab, false, std, device);
        Self {
            transformer: Gpt2Model {
                wte: embedding(vocab, width, std, device),
                wpe: embedding(config.n_positions, width, std, device),
                h: (0..config.n_layer)
                    .map(|_| Gpt2Layer::new(config, device))
                    .collect(),
                ln_f: layer_norm(width, config.layer_norm_epsilon, device),
            },
            lm_head: (!config.tie_word_embeddings).then(head),
            config: config.clone(),
        }
    }

    /// What the model was made by.
    #[must_use]
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }

    pub(crate) fn context(&self, input: &Input, past: usize) -> Context {
        let device = self.transformer.wte.weight.val().device();
        let seq = input.tokens.dims()[1];
        let positions = input.positions.clone().unwrap_or_else(|| {
            let (first, end) = (past as i64, (past + seq) as i64);
            Tensor::<1, Int>::arange(first..end, &device).reshape([1, seq])
        });
        Context {
            full: MaskShape { past, groups: 1 }.mask(input, None, &device),
            sliding: None,
            rope: None,
            positions: Some(positions),
        }
    }

    pub(crate) fn embed(&self, input: &Input, context: &Context) -> Tensor<3> {
        let tokens = embedded(&self.transformer.wte, input.tokens.clone());
        match &context.positions {
            Some(positions) => tokens + embedded(&self.transformer.wpe, positions.clone()),
            None => tokens,
        }
    }

    /// The first half of a layer, attention.
    pub(crate) fn attend(
        &self,
        index: usize,
        h: Tensor<3>,
        context: &Context,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let layer = &self.transformer.h[index];
        let lora = layer.lora.as_ref();
        let normed = layer.ln_1.forward(h.clone());
        h + layer
            .attn
            .forward(normed, context, self.config.n_head, (lora, cache))
    }

    /// The second half, the MLP.
    pub(crate) fn feed(&self, index: usize, h: Tensor<3>, cuts: &mut Cuts) -> Tensor<3> {
        let layer = &self.transformer.h[index];
        let lora = layer.lora.as_ref();
        let normed = layer.ln_2.forward(h.clone());
        let inner = project(&layer.mlp.c_fc, lora.map(|l| &l.c_fc), normed);
        let inner = if self.config.gelu_tanh {
            gelu_approximate(inner)
        } else {
            gelu(inner)
        };
        let [inner, h] = cuts.cut([inner, h]);
        h + project(&layer.mlp.c_proj, lora.map(|l| &l.mlp_proj), inner)
    }
}
