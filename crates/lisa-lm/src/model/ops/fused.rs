//! Operations with one kernel for the forward pass and one for the backward pass, for f32 on flex. Norms have
//! a second one for the gradients of their weights.
//!
//! Burn 0.22 does not fuse operations on the CPU, and its exponential is not vectorized. The
//! kernels here are added to Burn's autodiff graph by its backend extensions. For tensors of other
//! devices or dtypes, each function returns `None`, or returns its input as an error. `rows.rs`
//! runs a kernel over rows, `autodiff.rs` adds an operation to the autodiff graph. Each other file
//! has one operation, with the state that it keeps for its backward pass; attention has its passes and
//! its memory layouts in a folder.

mod attention;
mod autodiff;
mod gelu;
mod layer_norm;
mod linear;
mod linear_cross_entropy;
mod rms_norm;
mod rotate;
mod rows;
mod softmax;
mod swiglu;
#[cfg(test)]
mod tests;

pub(crate) use attention::{attention, joint_attention};
pub(crate) use gelu::gelu;
pub(crate) use layer_norm::layer_norm;
pub(crate) use linear::{product, product_and_bias};
#[cfg(test)]
pub(crate) use linear_cross_entropy::in_slices;
pub(crate) use linear_cross_entropy::{head_bytes, head_gradients, head_loss};
pub(crate) use rms_norm::rms_norm;
pub(crate) use rotate::rotate;
pub(crate) use swiglu::swiglu;
