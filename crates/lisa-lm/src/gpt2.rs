//! GPT-2: learned positions, projections stored `[in, out]`, biases everywhere.
//!
//! Fields have the names of Hugging Face's tensors. Tests: with `model.rs`, against transformers.

use burn::module::Module;
use burn::nn::{Embedding, LayerNorm, Linear};
use burn::tensor::activation::{gelu, gelu_approximate};
use burn::tensor::{Device, Int, Tensor};
use lisa::Cuts;

use crate::attention::{attend, merge_heads, split_heads};
use crate::cache::LayerCache;
use crate::config::Gpt2Config;
use crate::input::{Context, Input, MaskShape};
use crate::layers::{embedded, embedding, layer_norm, linear};
use crate::lora::{Gpt2Lora, project};

/// Attention with as many key heads as query heads.
#[derive(Module, Debug)]
pub struct Gpt2Attention {
    /// Queries, keys and values beside each other: `n_embd` to `3 * n_embd`.
    pub c_attn: Linear,
    /// Back: `n_embd` to `n_embd`.
    pub c_proj: Linear,
}

/// `c_proj(gelu(c_fc(x)))`.
#[derive(Module, Debug)]
pub struct Gpt2Mlp {
    /// `n_embd` to `n_inner`.
    pub c_fc: Linear,
    /// Back.
    pub c_proj: Linear,
}

/// One layer: attention and MLP, each behind a norm and added to the residual stream.
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
