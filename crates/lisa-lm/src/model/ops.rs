//! The operations of the models, in three forms.
//!
//! A fused operation is one kernel in the forward pass and one in the backward pass (`ops/fused.rs`); norms
//! have a second one for the gradients of their weights.
//! Operations are fused for f32 on flex, with the feature `flex`. Otherwise they use Burn's operations:
//! attention, activations, RMS norm, the loss and embedding lookups with a backward pass of their own
//! (`ops/custom.rs`), if there is a feature for the backend, and all others with the one of Burn. Lookups are
//! never fused. All forms compute the same values up to rounding, except in rows of attention where
//! everything is masked. The rest of the model calls the functions in this file and does not depend on the
//! form.

use burn::tensor::module;
use burn::tensor::{
    DType, Device, FloatDType, GradientCheckpointingStrategy, Tensor, TensorData, bf16, f16,
};
use lisa::memory::Workload;

/// Returns the result of a fused operation from the function, if there is one for these tensors.
macro_rules! fused {
    ($operation:ident $(::<$tanh:literal>)? ($($argument:expr),*)) => {
        #[cfg(feature = "flex")]
        {
            if let Some(result) = crate::model::ops::fused::$operation$(::<$tanh>)?($($argument),*) {
                return result;
            }
        }
    };
}

mod activation;
mod attention;
mod counted;
#[cfg(feature = "custom-backward")]
mod custom;
mod embedding;
mod extent;
#[cfg(feature = "flex")]
mod fused;
mod head_weight;
mod linear_cross_entropy;
mod rms_norm;

pub(crate) use activation::Activation;
pub(crate) use attention::{attend, attend_joint, attention_bytes, usual_scale};
pub(crate) use counted::Counted;
pub(crate) use embedding::{add_rows, adds_in_place, embed};
pub(crate) use head_weight::HeadWeight;
pub use linear_cross_entropy::linear_cross_entropy;
pub(crate) use linear_cross_entropy::{HeadSizes, Product, head_gradients, head_loss, like};
pub(crate) use rms_norm::rms_norm;

/// How operations run on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// In one kernel each.
    Fused,
    /// In Burn's operations. Attention, activations and RMS norm compute again in the backward pass what
    /// they do not keep, and the gradient of a tied weight is one tensor.
    Recomputed,
    /// In Burn's operations, and with the backward pass of Burn's autodiff.
    WrittenOut,
}

impl Form {
    /// The form of the operations in a planned run of a model on this device. If the model is on the host and
    /// the run is not on flex, the program that runs has the feature of its backend.
    pub(crate) fn of(workload: &Workload, device: Option<&Device>) -> Self {
        let flex = cfg!(feature = "flex");
        let gpu = cfg!(any(feature = "cuda", feature = "rocm", feature = "wgpu"));
        let has_pool = device.is_some_and(|device| device.memory_pool_usage().is_some());
        let available = if workload.flex {
            flex
        } else if has_pool {
            gpu
        } else {
            flex || gpu || cfg!(feature = "tch")
        };
        let checkpoints = device.and_then(Device::gradient_checkpointing_strategy)
            == Some(GradientCheckpointingStrategy::Balanced);
        if !available || checkpoints {
            Self::WrittenOut
        } else if workload.flex && DType::from(workload.dtype) == DType::F32 {
            Self::Fused
        } else {
            Self::Recomputed
        }
    }
}

/// Bytes that matmuls hold during a whole run: on flex the packed operands, and for each thread a buffer
/// of the size of the L2 cache, as measured with one and two threads and 2 MiB of cache. In half precision,
/// it is what LoRA with recomputation in 30 layers needs in addition to the other terms, whatever its rank
/// and the width of the layers.
pub(crate) fn workspace_bytes(flex: bool, dtype: DType) -> u64 {
    match dtype {
        _ if !flex => 0,
        DType::BF16 | DType::F16 => 12 << 20,
        _ => 8 << 20,
    }
}

/// Bytes of the copies of a weight of this many elements during a matmul: flex copies a transposed
/// weight in bf16, and converts it to f32.
pub(crate) fn matmul_bytes(elements: usize, flex: bool, dtype: DType) -> usize {
    if flex && dtype == DType::BF16 {
        elements * (dtype.size() + 4)
    } else {
        0
    }
}

/// `x weight + bias`: `[batch, seq, from]` times `[from, to]`.
pub(crate) fn linear(x: Tensor<3>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<3> {
    match bias {
        None => product(x, weight),
        Some(bias) => {
            fused!(product_and_bias(&x, &weight, &bias));
            module::linear(x, weight, Some(bias))
        }
    }
}

/// Zeros, on a device without autodiff.
pub(crate) fn zeros(shape: [usize; 2], device: &Device, dtype: DType) -> Tensor<2> {
    if !is_flex(device) {
        return Tensor::zeros(shape, (device, dtype));
    }
    // flex would allocate them twice.
    let zeros = match dtype {
        DType::BF16 => TensorData::zeros::<bf16, _>(shape),
        DType::F16 => TensorData::zeros::<f16, _>(shape),
        _ => TensorData::zeros::<f32, _>(shape).convert_dtype(dtype),
    };
    Tensor::from_data(zeros, (device, dtype))
}

/// Whether this is flex, with or without autodiff.
pub(crate) fn is_flex(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    {
        *device == Device::flex()
    }
    #[cfg(not(feature = "flex"))]
    {
        let _ = device;
        false
    }
}

fn product(x: Tensor<3>, weight: Tensor<2>) -> Tensor<3> {
    fused!(product(&x, &weight));
    module::linear(x, weight, None)
}

/// `(x - mean(x)) / sqrt(variance(x) + epsilon) * gamma + beta` along the last dimension.
pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Option<Tensor<1>>,
    epsilon: f64,
) -> Tensor<D> {
    fused!(layer_norm(&x, &gamma, beta.as_ref(), epsilon));
    let dtype = x.dtype();
    if !matches!(dtype, DType::F16 | DType::BF16) {
        return module::layer_norm(x, gamma, beta, epsilon);
    }
    // Burn's autodiff computes in the dtype of x: the sum of squares overflows f16, and a mean in bf16 has
    // too few digits to be subtracted.
    let wide = FloatDType::F32;
    let beta = beta.map(|beta| beta.cast(wide));
    layer_norm(x.cast(wide), gamma.cast(wide), beta, epsilon).cast(dtype)
}

/// Rotates heads, `[batch, heads, seq, head_dim]`, by tables of `[batch or 1, 1, seq, head_dim]`:
/// the cosines, and the sines with the sign of the first half changed. `swap` is the matrix that
/// exchanges the halves of a head, `[1, 1, head_dim, head_dim]`.
pub(crate) fn rotate(
    heads: Tensor<4>,
    cos: &Tensor<4>,
    sin: &Tensor<4>,
    swap: &Tensor<4>,
) -> Tensor<4> {
    fused!(rotate(&heads, cos, sin));
    let swapped = heads.clone().matmul(swap.clone());
    heads * cos.clone() + swapped * sin.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_norm_of_bf16_is_rounded_once() {
        let device = Device::flex().autodiff();
        // The mean is halfway between two values of bf16, whose steps are 1/32 at 5.
        let values = (0..64).map(|at| 5.015 + 0.25 * (0.7 * at as f32).sin());
        let data = TensorData::new(values.collect::<Vec<f32>>(), [1, 64]);
        let half = Tensor::<2>::from_data(data, (&device, DType::F32)).cast(FloatDType::BF16);
        let normed = |x: Tensor<2>| {
            let gamma = Tensor::<1>::ones([64], (&device, x.dtype()));
            let beta = Tensor::<1>::zeros([64], (&device, x.dtype()));
            layer_norm(x, gamma, Some(beta), 1e-5)
        };
        let found = normed(half.clone());
        assert_eq!(found.dtype(), DType::BF16);
        let found = found.cast(FloatDType::F32).into_data();
        let exact = normed(half.cast(FloatDType::F32)).into_data();
        for (found, exact) in found.iter::<f32>().zip(exact.iter::<f32>()) {
            let step = (exact.abs().log2().floor() - 7.0).exp2();
            assert!((found - exact).abs() <= 2.0 * step, "{found} {exact}");
        }
    }
}
