//! [`Activation`]: the activation functions of the feed-forward network.

use burn::tensor::activation::{gelu, gelu_approximate, silu};
use burn::tensor::{FloatDType, Tensor};

#[cfg(feature = "custom-backward")]
mod recomputed;

/// An activation function. It is computed in f32, also if the model is in half precision, and rounded
/// once, as in PyTorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x sigmoid(x)`.
    Silu,
    /// The exact GELU.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
}

impl Activation {
    pub(crate) fn apply(self, x: Tensor<3>) -> Tensor<3> {
        if self == Self::Gelu {
            fused!(gelu::<false>(&x));
        }
        if self == Self::GeluTanh {
            fused!(gelu::<true>(&x));
        }
        #[cfg(feature = "custom-backward")]
        if let Some(result) = recomputed::apply(self, &x) {
            return result;
        }
        let dtype = x.dtype();
        self.of(in_f32(x)).cast(dtype)
    }

    /// The activation of `gate`, times `up`.
    pub(crate) fn gated(self, gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
        if self == Self::Silu {
            fused!(swiglu(&gate, &up));
        }
        #[cfg(feature = "custom-backward")]
        if let Some(result) = recomputed::gated(self, &gate, &up) {
            return result;
        }
        let dtype = gate.dtype();
        (self.of(in_f32(gate)) * in_f32(up)).cast(dtype)
    }

    /// In Burn's operations.
    fn of(self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Silu => silu(x),
            Self::Gelu => gelu(x),
            Self::GeluTanh => gelu_approximate(x),
        }
    }
}

fn in_f32(x: Tensor<3>) -> Tensor<3> {
    x.cast(FloatDType::F32)
}
