//! The parts that layers are made of, with the weights of a new model.
//!
//! Weights are normal with the configuration's `initializer_range`, biases 0, norms 1, as
//! transformers has them. Everything is lazy until it is loaded or drawn.

use burn::module::Param;
use burn::nn::{
    Embedding, EmbeddingConfig, Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig,
    RmsNorm, RmsNormConfig,
};
use burn::tensor::{DType, Device, Int, Tensor};

use crate::model::fused;

fn normal(std: f64) -> Initializer {
    Initializer::Normal { mean: 0.0, std }
}

pub(crate) fn linear(from: usize, to: usize, bias: bool, std: f64, device: &Device) -> Linear {
    let config = LinearConfig::new(from, to)
        .with_bias(false)
        .with_initializer(normal(std));
    let bias: Option<Param<Tensor<1>>> = bias.then(|| Initializer::Zeros.init([to], device));
    Linear {
        bias,
        ..config.init(device)
    }
}

pub(crate) fn embedding(count: usize, width: usize, std: f64, device: &Device) -> Embedding {
    EmbeddingConfig::new(count, width)
        .with_initializer(normal(std))
        .init(device)
}

pub(crate) fn rms_norm(width: usize, epsilon: f64, device: &Device) -> RmsNorm {
    RmsNormConfig::new(width).with_epsilon(epsilon).init(device)
}

/// `x / sqrt(mean(x^2) + epsilon) * gamma`, as Burn's `RmsNorm::forward`, by a product with the
/// reciprocal, as transformers has it: a quotient costs twice the steps in backward.
pub(crate) fn normed<const D: usize>(norm: &RmsNorm, x: Tensor<D>) -> Tensor<D> {
    let gamma = norm.gamma.val();
    if let Some(normed) = fused::rms_norm(&x, &gamma, norm.epsilon) {
        return normed;
    }
    let dtype = x.dtype();
    let square = x.clone().cast(DType::F32).square().mean_dim(D - 1);
    let scale = (square + norm.epsilon).sqrt().recip().cast(dtype);
    (x * scale) * gamma.unsqueeze()
}

pub(crate) fn layer_norm(width: usize, epsilon: f64, device: &Device) -> LayerNorm {
    LayerNormConfig::new(width)
        .with_epsilon(epsilon)
        .init(device)
}

/// Rows for tokens, as Burn's `Embedding::forward`: `[batch, seq]` to `[batch, seq, width]`.
pub(crate) fn embedded(embedding: &Embedding, tokens: Tensor<2, Int>) -> Tensor<3> {
    match fused::embed(&embedding.weight.val(), &tokens) {
        Some(rows) => rows,
        None => embedding.forward(tokens),
    }
}

/// `x weight + bias`, as Burn's `linear`.
pub(crate) fn product(x: Tensor<3>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<3> {
    match (fused::product(&x, &weight), bias) {
        (Some(out), None) => out,
        (Some(out), Some(bias)) => out + bias.unsqueeze(),
        (None, bias) => burn::tensor::module::linear(x, weight, bias),
    }
}

/// What a head makes logits with: its own weight, `[width, vocab]`, or the embedding's, `[vocab,
/// width]`, turned round.
pub(crate) enum Projection<'a> {
    /// Its own.
    Own(&'a Linear),
    /// The embedding's.
    Tied(&'a Embedding),
}

impl Projection<'_> {
    /// `[batch, seq, width]` to `[batch, seq, vocab]`.
    pub(crate) fn forward(&self, h: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Own(head) => product(h, head.weight.val(), head.bias.as_ref().map(Param::val)),
            Self::Tied(embedding) => product(h, embedding.weight.val().transpose(), None),
        }
    }

    pub(crate) fn has_bias(&self) -> bool {
        matches!(self, Self::Own(head) if head.bias.is_some())
    }

    /// The parameter.
    pub(crate) fn weight(&self) -> &Param<Tensor<2>> {
        match self {
            Self::Own(head) => &head.weight,
            Self::Tied(embedding) => &embedding.weight,
        }
    }
}
