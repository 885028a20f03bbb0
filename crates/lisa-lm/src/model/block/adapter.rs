//! [`LoraAdapter`]: the two matrices of a LoRA adapter.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;

use crate::model::ops;
use crate::model::random::{mask, sequence, uniform};

/// The two matrices of a LoRA adapter, for a projection of `[in, out]`.
///
/// They are f32 if the model is in half precision, and are then cast to the model's dtype for each
/// matmul, as PEFT does with automatic mixed precision.
#[derive(Module, Debug)]
pub struct LoraAdapter {
    /// `[in, rank]`; initialized from a uniform distribution within `1 / sqrt(in)`.
    pub a: Param<Tensor<2>>,
    /// `[rank, out]`; initialized to 0, so that a new adapter does not change the output.
    pub b: Param<Tensor<2>>,
    scale: f64,
    #[module(skip)]
    dropout: Dropout,
}

/// Dropout of the adapter's input.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Dropout {
    probability: f64,
    /// The seed of the elements that are dropped; without one, none is.
    seed: Option<u64>,
}

impl LoraAdapter {
    /// A new adapter for a weight of these dimensions, on a device, for a model of a dtype.
    pub(crate) fn new(
        [from, to]: [usize; 2],
        rank: usize,
        (device, dtype): (&Device, DType),
        random: &mut ChaCha8Rng,
    ) -> Self {
        let is_half = matches!(dtype, DType::F16 | DType::BF16);
        let dtype = if is_half { DType::F32 } else { dtype };
        let values = uniform(random, from * rank, (from as f64).powf(-0.5));
        let a = TensorData::new(values, [from, rank]);
        let a = Tensor::from_data(a, (device, dtype));
        let b = Tensor::zeros([rank, to], (device, dtype));
        Self {
            a: trainable(ParamId::new(), a),
            b: trainable(ParamId::new(), b),
            scale: 1.0,
            dropout: Dropout::default(),
        }
    }

    pub(crate) fn scaled(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    pub(crate) fn dropping(mut self, probability: f64) -> Self {
        self.dropout.probability = probability;
        self
    }

    /// Sets the elements that are dropped; `None`: none.
    pub(crate) fn set_dropout(&mut self, seed: Option<u64>) {
        self.dropout.seed = seed;
    }

    /// `s (x A) B`: `[batch, seq, in]` to `[batch, seq, out]`.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let (low, b) = self.factors(x);
        ops::linear(low, b, None)
    }

    /// The factors of the product: `s (x A)`, `[batch, seq, rank]`, and B, both in the dtype of `x`.
    pub(crate) fn factors(&self, x: Tensor<3>) -> (Tensor<3>, Tensor<2>) {
        let dtype = x.dtype();
        let of = |param: &Param<Tensor<2>>| in_dtype(param.val(), dtype);
        let low = ops::linear(self.dropout.apply(x), of(&self.a), None);
        (low * self.scale, of(&self.b))
    }

    /// The weight with `s A B` added, in the dtype of the weight, or that of the adapter if the weight is
    /// quantized. The sum is in f32.
    pub(crate) fn added_to(&self, weight: Tensor<2>) -> Tensor<2> {
        let dtype = weight.dtype();
        let float = |x: Tensor<2>| {
            if x.dtype().is_float() {
                x
            } else {
                x.dequantize()
            }
        };
        let product = float(self.a.val()).matmul(float(self.b.val()));
        let product = (product * self.scale).detach();
        let wide = product.dtype();
        let sum = in_dtype(weight, wide) + product;
        if dtype.is_float() {
            in_dtype(sum, dtype)
        } else {
            sum
        }
    }
}

/// A parameter that requires gradients, if its device has them.
pub(crate) fn trainable(id: ParamId, tensor: Tensor<2>) -> Param<Tensor<2>> {
    let has_gradients = tensor.device().is_autodiff();
    Param::initialized(
        id,
        if has_gradients {
            tensor.require_grad()
        } else {
            tensor
        },
    )
}

/// Whether the value of a parameter has an adapter of Burn in it, which trains instead of the parameter.
pub(crate) fn has_adapter(param: &Param<Tensor<2>>) -> bool {
    param.val().is_tracked() && !param.is_require_grad()
}

impl Dropout {
    fn apply(self, x: Tensor<3>) -> Tensor<3> {
        let Some(seed) = self.seed.filter(|_| self.probability > 0.0) else {
            return x;
        };
        let kept = 1.0 - self.probability;
        let (device, dtype) = (x.device(), x.dtype());
        let values = mask(&mut sequence(seed, 0), x.shape().num_elements(), kept);
        let mask = TensorData::new(values, x.dims());
        x * Tensor::from_data(mask, (&device, dtype))
    }
}

/// The tensor in this dtype of floats. A quantized one is dequantized.
pub(crate) fn in_dtype<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    if tensor.dtype() == dtype {
        return tensor;
    }
    if !tensor.dtype().is_float() {
        return in_dtype(tensor.dequantize(), dtype);
    }
    tensor.cast(match dtype {
        DType::F64 => FloatDType::F64,
        DType::F16 => FloatDType::F16,
        DType::BF16 => FloatDType::BF16,
        _ => FloatDType::F32,
    })
}
