//! [`rms_norm`].

use burn::tensor::{FloatDType, Tensor};

#[cfg(feature = "custom-backward")]
mod recomputed;

/// `x / sqrt(mean(x^2) + epsilon) * gamma` along the last dimension. The quotient is computed in f32,
/// and rounded once, as in transformers.
pub(crate) fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, epsilon: f64) -> Tensor<D> {
    fused!(rms_norm(&x, &gamma, epsilon));
    let gamma: Tensor<D> = gamma.unsqueeze();
    #[cfg(feature = "custom-backward")]
    if let Some(normed) = recomputed::rms_norm(&x, &gamma, epsilon) {
        return normed;
    }
    written_out(x, gamma, epsilon)
}

fn written_out<const D: usize>(x: Tensor<D>, gamma: Tensor<D>, epsilon: f64) -> Tensor<D> {
    let dtype = x.dtype();
    let x = x.cast(FloatDType::F32);
    let scale = scale(x.clone(), epsilon);
    (x * scale).cast(dtype) * gamma
}

/// `1 / sqrt(mean(x^2) + epsilon)`.
fn scale<const D: usize>(x: Tensor<D>, epsilon: f64) -> Tensor<D> {
    // Multiplying by the reciprocal takes half the backward operations of a division.
    (x.square().mean_dim(D - 1) + epsilon).sqrt().recip()
}
