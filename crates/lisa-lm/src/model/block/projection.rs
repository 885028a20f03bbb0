//! [`Projection`]: a linear map, with an optional LoRA adapter.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{DType, Device, Tensor};
use rand_chacha::ChaCha8Rng;

use super::adapter::{LoraAdapter, in_dtype};
use crate::model::lora_config::LoraConfig;
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

    /// `[batch, seq, in]` to `[batch, seq, out]`, in the dtype of `x`.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let bias = self
            .bias
            .as_ref()
            .map(|bias| in_dtype(bias.val(), x.dtype()));
        let weight = self.dense_weight(x.dtype());
        match &self.lora {
            None => ops::linear(x, weight, bias),
            Some(lora) => ops::linear(x.clone(), weight, bias) + lora.forward(x),
        }
    }

    /// The weight in this dtype, dequantized if it is quantized.
    pub(crate) fn dense_weight(&self, dtype: DType) -> Tensor<2> {
        let weight = self.weight.val();
        if weight.dtype().is_float() {
            return in_dtype(weight, dtype);
        }
        // Burn's matmul with a quantized weight is slower. The dequantized weight has the device's
        // default dtype, which may differ from the model's dtype.
        weight.dequantize().cast(dtype)
    }

    /// Adds a new adapter on the weight's device.
    pub(crate) fn add_lora(&mut self, config: &LoraConfig, random: &mut ChaCha8Rng) {
        let weight = self.weight.val();
        let options = (&weight.device(), weight.dtype());
        let lora = LoraAdapter::new(weight.dims(), config.rank, options, random);
        self.lora = Some(lora.scaled(config.scale()).dropping(config.dropout));
    }

    /// Adds the product `s A B` of the adapter to the weight, which keeps its dtype, and removes the
    /// adapter.
    pub(crate) fn merge_lora(&mut self) {
        if let Some(lora) = self.lora.take() {
            self.weight = self.weight.clone().map(|weight| lora.added_to(weight));
        }
    }
}
