//! Operations of one forward and one backward kernel, for f32 on flex.
//!
//! Burn 0.22 does not fuse operations on the CPU, and its exponential is not vectorized. The kernels here
//! are added to Burn's autodiff graph by its backend extensions. Each function returns `None` (or gives its
//! input back as an error) for tensors of other devices or dtypes. `rows.rs` runs a kernel over rows,
//! `autodiff.rs` adds an operation to the autodiff graph; the other files have one operation each, with what it keeps
//! for its backward pass.

mod attention;
mod autodiff;
mod cross_entropy;
mod embed;
mod linear;
mod rms_norm;
mod rotate;
mod rows;
mod softmax;
mod swiglu;
#[cfg(test)]
mod tests;

pub(crate) use attention::attention;
pub(crate) use autodiff::takes;
pub(crate) use cross_entropy::{cross_entropy, loss_and_gradient};
pub(crate) use embed::embed;
pub(crate) use linear::product;
pub(crate) use rms_norm::rms_norm;
pub(crate) use rotate::rotate;
pub(crate) use swiglu::swiglu;
