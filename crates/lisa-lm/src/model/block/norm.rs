//! [`Norm`]: an RMS norm or a layer norm.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};

use crate::model::ops;
use crate::model::spec::{NormKind, NormSpec};

/// A norm along the last dimension: an RMS norm (Llama), or a layer norm (GPT-2).
#[derive(Module, Debug)]
pub struct Norm {
    /// The scale, `[width]`.
    pub gamma: Param<Tensor<1>>,
    /// The bias, `[width]`; a layer norm has one.
    pub beta: Option<Param<Tensor<1>>>,
    #[module(skip)]
    spec: NormSpec,
}

impl Norm {
    pub(crate) fn new(spec: NormSpec, width: usize, device: &Device) -> Self {
        let is_layer = spec.kind == NormKind::Layer;
        Self {
            gamma: Initializer::Ones.init([width], device),
            beta: is_layer.then(|| Initializer::Zeros.init([width], device)),
            spec,
        }
    }

    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (gamma, epsilon) = (self.gamma.val(), self.spec.epsilon);
        match self.spec.kind {
            NormKind::Rms => ops::rms_norm(x, gamma, epsilon),
            NormKind::Layer => {
                let beta = self.beta.as_ref().map(Param::val);
                ops::layer_norm(x, gamma, beta, epsilon)
            }
        }
    }
}

/// The normalized `x`; `x` unchanged if `norm` is `None`.
pub(crate) fn normed<const D: usize>(norm: Option<&Norm>, x: Tensor<D>) -> Tensor<D> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}
