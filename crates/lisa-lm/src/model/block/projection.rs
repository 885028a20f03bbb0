//! [`Projection`]: a linear map, with an optional LoRA adapter.

use burn::module::{Module, Param, ParamId};
use burn::nn::Initializer;
use burn::tensor::{Device, Distribution, Tensor};

use crate::model::ops;

/// `x W + b`. With a LoRA adapter: `x W + b + s (x A) B`, without computing `W + s A B`.
///
/// A quantized weight is dequantized for each matmul.
#[derive(Module, Debug)]
pub struct Projection {
    /// `[in, out]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The adapter that [`with_lora`](crate::CausalLm::with_lora) adds.
    pub lora: Option<LoraAdapter>,
}

/// The two matrices of a LoRA adapter, for a projection of `[in, out]`.
#[derive(Module, Debug)]
pub struct LoraAdapter {
    /// `[in, rank]`; initialized from a uniform distribution within `1 / sqrt(in)`.
    pub a: Param<Tensor<2>>,
    /// `[rank, out]`; initialized to 0, so that a new adapter does not change the output.
    pub b: Param<Tensor<2>>,
    scale: f64,
}

impl Projection {
    /// A projection with normally distributed weights and a bias of 0, both lazily initialized.
    pub(crate) fn new([from, to]: [usize; 2], bias: bool, deviation: f64, device: &Device) -> Self {
        let normal = Initializer::Normal {
            mean: 0.0,
            std: deviation,
        };
        Self {
            weight: normal.init([from, to], device),
            bias: bias.then(|| Initializer::Zeros.init([to], device)),
            lora: None,
        }
    }

    /// `[batch, seq, in]` to `[batch, seq, out]`.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
        if !weight.dtype().is_float() {
            // Burn's matmul with a quantized weight is slower. The dequantized weight has the
            // device's default dtype, which may differ from the model's dtype.
            let weight = weight.dequantize().cast(x.dtype());
            return ops::linear(x, weight, bias);
        }
        let Some(lora) = &self.lora else {
            return ops::linear(x, weight, bias);
        };
        let low = ops::linear(x.clone(), lora.a.val(), None) * lora.scale;
        ops::linear(x, weight, bias) + ops::linear(low, lora.b.val(), None)
    }

    /// Adds an adapter of this rank, in the weight's dtype and on its device.
    pub(crate) fn add_lora(&mut self, rank: usize, scale: f64) {
        let weight = self.weight.val();
        let ([from, to], options) = (weight.dims(), (&weight.device(), weight.dtype()));
        let bound = (from as f64).powf(-0.5);
        let a = Tensor::random([from, rank], Distribution::Uniform(-bound, bound), options);
        let b = Tensor::zeros([rank, to], options);
        let param = |tensor: Tensor<2>| Param::initialized(ParamId::new(), tensor.require_grad());
        self.lora = Some(LoraAdapter {
            a: param(a),
            b: param(b),
            scale,
        });
    }

    /// Adds the product `s A B` of the adapter to the weight, and removes the adapter.
    pub(crate) fn merge_lora(&mut self) {
        if let Some(lora) = self.lora.take() {
            let product = (lora.a.val().matmul(lora.b.val()) * lora.scale).detach();
            self.weight = self.weight.clone().map(|weight| weight + product);
        }
    }
}
