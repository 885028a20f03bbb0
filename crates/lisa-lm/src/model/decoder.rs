//! [`Decoder`]: embeddings, a stack of layers and a final norm, built from a description.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Initializer};
use burn::tensor::{Device, Int, Tensor};
use lisa::recompute::EmbedPass;

use crate::model::block::{Block, Norm, has_adapter};
use crate::model::context::Context;
use crate::model::input::Input;
use crate::model::mask;
use crate::model::ops;
use crate::model::rope::RopeTables;
use crate::model::spec::DecoderSpec;

/// A decoder without its head.
#[derive(Module, Debug)]
pub struct Decoder {
    /// `[vocab, hidden]`.
    pub embed_tokens: Embedding,
    /// `[positions, hidden]`, if positions are learned (GPT-2's `wpe`).
    pub embed_positions: Option<Embedding>,
    /// The stack.
    pub layers: Vec<Block>,
    /// The norm after the stack.
    pub norm: Norm,
    #[module(skip)]
    spec: DecoderSpec,
}

impl Decoder {
    /// A decoder with lazily initialized parameters.
    pub(crate) fn new(spec: DecoderSpec, device: &Device) -> Self {
        let (hidden, init) = (spec.hidden_size, spec.init);
        let normal = Initializer::Normal {
            mean: 0.0,
            std: init.deviation,
        };
        let embedding = |count| {
            EmbeddingConfig::new(count, hidden)
                .with_initializer(normal.clone())
                .init(device)
        };
        Self {
            embed_tokens: embedding(spec.vocab_size),
            embed_positions: spec.learned_positions.map(embedding),
            layers: (spec.layers.iter())
                .map(|layer| Block::new(&spec.block, *layer, hidden, init, device))
                .collect(),
            norm: Norm::new(spec.block.norm, hidden, device),
            spec,
        }
    }

    pub(crate) fn spec(&self) -> &DecoderSpec {
        &self.spec
    }

    pub(crate) fn set_spec(&mut self, spec: DecoderSpec) {
        self.spec = spec;
    }

    /// The masks and positions of a batch, after `past` tokens that are in a cache.
    pub(crate) fn context(&self, input: &Input, past: usize) -> Context {
        let spec = &self.spec;
        let weight = self.embed_tokens.weight.val();
        let (device, dtype) = (weight.device(), weight.dtype());
        let seq = input.tokens.dims()[1];
        let rope = spec.rope.as_ref().map(|rope| {
            let (width, options) = (spec.block.attention.head_dim, (&device, dtype));
            match &input.positions {
                Some(positions) => RopeTables::at(rope, width, positions.clone(), options),
                None => RopeTables::range(rope, width, past, seq, options),
            }
        });
        let positions = spec.learned_positions.map(|_| {
            input.positions.clone().unwrap_or_else(|| {
                let (first, end) = (past as i64, (past + seq) as i64);
                Tensor::<1, Int>::arange(first..end, &device).reshape([1, seq])
            })
        });
        let mask = |window| mask::of(input, past, window, &device);
        let full = spec.has_full_mask(past + seq).then(|| mask(None)).flatten();
        let sliding = if spec.has_window(past + seq) {
            mask(spec.sliding_window)
        } else {
            full.clone()
        };
        Context {
            full,
            sliding,
            rope,
            positions,
        }
    }

    /// The hidden state before the first layer: `[batch, seq, hidden]`, with weights of the
    /// embeddings that `weight_of` gives.
    pub(crate) fn embed(
        &self,
        input: &Input,
        context: &Context,
        weight_of: impl Fn(&Embedding) -> Tensor<2>,
    ) -> Tensor<3> {
        let tokens = ops::embed(weight_of(&self.embed_tokens), input.tokens.clone());
        match (&self.embed_positions, &context.positions) {
            (Some(embedding), Some(positions)) => {
                tokens + ops::embed(weight_of(embedding), positions.clone())
            }
            _ => tokens,
        }
    }

    /// The same without an autodiff graph, with the backward pass of the embeddings. On the graph if an
    /// embedding has an adapter of Burn.
    pub(crate) fn embed_pass(&self, input: &Input, context: &Context) -> EmbedPass {
        let mut trainable = Vec::new();
        let positions = self.embed_positions.as_ref().zip(context.positions.clone());
        let tokens = Some((&self.embed_tokens, input.tokens.clone()));
        for (embedding, indices) in [tokens, positions].into_iter().flatten() {
            let (param, weight) = (&embedding.weight, embedding.weight.val());
            if param.is_require_grad() {
                let (shape, device) = (weight.dims(), weight.device().inner());
                trainable.push((param.id, shape, device, weight.dtype(), indices.inner()));
            }
        }
        let positions = self.embed_positions.as_ref();
        let mut all = [Some(&self.embed_tokens), positions].into_iter().flatten();
        if all.any(|embedding| has_adapter(&embedding.weight)) {
            return self
                .embed(input, context, |embedding| embedding.weight.val())
                .into();
        }
        let output = self.embed(input, context, |embedding| embedding.weight.val().detach());
        if trainable.is_empty() {
            return output.into();
        }
        EmbedPass::custom(output, move |gradient, grads| {
            let gradient = gradient.inner();
            let [batch, _, width] = gradient.dims();
            for (id, shape, device, dtype, indices) in trainable {
                let before = grads.remove::<2>(id);
                let sum = before.unwrap_or_else(|| ops::zeros(shape, &device, dtype));
                // Rows that share their positions add up.
                let gradient = match indices.dims()[0] {
                    1 if batch > 1 => gradient.clone().sum_dim(0),
                    _ => gradient.clone(),
                };
                let rows = gradient.reshape([-1, width as isize]);
                grads.register(id, ops::add_rows(sum, indices, rows));
            }
        })
    }
}
