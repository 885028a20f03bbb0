//! Steps of the models that are one operation, forward and backward, on flex.
//!
//! Burn 0.22 does not fuse operations on the CPU, and its exponential takes one number at a time. With
//! the feature `flex`, tensors of f32 on a flex device are taken by the kernels of this folder, through
//! Burn's backend extensions; each function gives none for all other tensors, and without the feature,
//! and its caller writes the step out in Burn's operations. Both give the same numbers up to rounding.
//!
//! `rows.rs` runs a kernel over rows, `kernels.rs` says what becomes of a row, `ops.rs`, `attention.rs` and
//! `product.rs` put it on the tape.
//! Tests: `fused/tests.rs`.

/// Queries in a block of attention: of the scores, those of keys behind the block's last query are not
/// computed.
pub(crate) const BLOCK: usize = 128;

#[cfg(feature = "flex")]
mod attention;
#[cfg(feature = "flex")]
mod kernels;
#[cfg(feature = "flex")]
mod ops;
#[cfg(feature = "flex")]
mod product;
#[cfg(feature = "flex")]
mod rows;
#[cfg(all(test, feature = "flex"))]
mod tests;

#[cfg(feature = "flex")]
pub(crate) use {
    attention::attention,
    ops::{cross_entropy, loss_and_gradient, rms_norm, rotate, swiglu, takes},
    product::{embed, product},
};

#[cfg(not(feature = "flex"))]
pub(crate) use without::*;

/// What there is without the feature: nothing.
#[cfg(not(feature = "flex"))]
mod without {
    use burn::tensor::{Bool, DType, Device, Int, Tensor};

    pub(crate) fn takes(_: &Device, _: DType) -> bool {
        false
    }

    pub(crate) fn swiglu(_: &Tensor<3>, _: &Tensor<3>) -> Option<Tensor<3>> {
        None
    }

    pub(crate) fn product<const D: usize>(_: &Tensor<D>, _: &Tensor<2>) -> Option<Tensor<D>> {
        None
    }

    pub(crate) fn embed(_: &Tensor<2>, _: &Tensor<2, Int>) -> Option<Tensor<3>> {
        None
    }

    pub(crate) fn rms_norm<const D: usize>(
        _: &Tensor<D>,
        _: &Tensor<1>,
        _: f64,
    ) -> Option<Tensor<D>> {
        None
    }

    pub(crate) fn rotate(_: &Tensor<4>, _: &Tensor<4>, _: &Tensor<4>) -> Option<Tensor<4>> {
        None
    }

    pub(crate) fn attention(
        _: &Tensor<4>,
        _: &Tensor<4>,
        _: &Tensor<4>,
        _: Option<&Tensor<4, Bool>>,
    ) -> Option<Tensor<4>> {
        None
    }

    #[allow(clippy::result_large_err)] // What was given comes back.
    pub(crate) fn cross_entropy(
        logits: Tensor<2>,
        _: &Tensor<1, Int>,
    ) -> Result<Tensor<1>, Tensor<2>> {
        Err(logits)
    }

    #[allow(clippy::result_large_err)] // What was given comes back.
    pub(crate) fn loss_and_gradient(
        logits: Tensor<2>,
        _: &Tensor<1, Int>,
    ) -> Result<(Tensor<1>, Tensor<2>), Tensor<2>> {
        Err(logits)
    }
}
