//! The parts that layers are made of, with the weights of a new model.
//!
//! Weights are normal with the configuration's `initializer_range`, biases 0, norms 1, as
//! transformers has them. Everything is lazy until it is loaded or drawn.

use burn::module::Param;
use burn::nn::{
    Embedding, EmbeddingConfig, Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig,
    RmsNorm, RmsNormConfig,
};
use burn::tensor::{Device, Tensor};

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

pub(crate) fn layer_norm(width: usize, epsilon: f64, device: &Device) -> LayerNorm {
    LayerNormConfig::new(width)
        .with_epsilon(epsilon)
        .init(device)
}

/// What a head makes of hidden states: its own projection, or the embedding's weight turned round.
pub(crate) fn logits(h: Tensor<3>, head: Option<&Linear>, embedding: &Embedding) -> Tensor<3> {
    if let Some(head) = head {
        head.forward(h)
    } else {
        let weight = embedding.weight.val().transpose();
        burn::tensor::module::linear(h, weight, None)
    }
}
