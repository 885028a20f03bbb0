//! [`Activation`]: the activation functions of the feed-forward network.

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, gelu_approximate, silu};

#[cfg(feature = "custom-backward")]
mod recomputed;

/// An activation function.
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
        self.of(x)
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
        self.of(gate) * up
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
