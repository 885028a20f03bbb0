//! [`FrozenWeights`]: the form in which the device stores the weights of frozen layers.

use burn::tensor::Device;
use burn::tensor::quantization::{QuantScheme, QuantValue, ScaleDtype};
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, LisaError};

/// How the device stores the weights of frozen layers.
///
/// The full-precision weights of quantized layers are kept in host memory, so trained weights are
/// never rounded. Use quantization only with layer-wise recomputation
/// ([`Recompute`](crate::recompute::Recompute)): a plain backward pass keeps the dequantized
/// weights of every layer.
///
/// Burn's `Module::fork` dequantizes layers. A run takes their weights from host memory also then,
/// and quantizes them again at the end of the period. Until then they need the device memory of
/// float weights. Burn dequantizes to f32: in half precision, the forward pass then panics, and only
/// `Lisa::exact`, `take_exact` and `save_weights` take such a model.
///
/// # Example
///
/// ```
/// use lisa::FrozenWeights;
///
/// // A matrix of 64 by 64: one byte, or half a byte, for each element, and 64 scales.
/// assert_eq!(FrozenWeights::Int8.bytes(&[64, 64], true), Some(4096 + 256));
/// assert_eq!(FrozenWeights::Int4.bytes(&[64, 64], true), Some(2048 + 256));
/// // Norms are not quantized.
/// assert_eq!(FrozenWeights::Int8.bytes(&[64], true), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FrozenWeights {
    /// Full-precision weights.
    #[default]
    Exact,
    /// Matrices as 8-bit integers with an f32 scale for each block of 64 elements: 8.5 bits per
    /// element. If the length of a row is not a multiple of 64, a block has 32 elements.
    Int8,
    /// The same with 4-bit integers: 4.5 bits per element. Flex stores them as int8.
    Int4,
}

impl FrozenWeights {
    /// Burn's scheme for a parameter of this shape; `None` if it is not quantized. Only matrices
    /// whose rows have a multiple of 32 elements are quantized.
    #[must_use]
    pub fn scheme(self, shape: &[usize]) -> Option<QuantScheme> {
        let value = match self {
            Self::Exact => return None,
            Self::Int8 => QuantValue::Q8S,
            Self::Int4 => QuantValue::Q4S,
        };
        let block = block_of(shape)?;
        let scheme = QuantScheme::default().with_value(value);
        Some(scheme.per_block([block], ScaleDtype::F32))
    }

    /// Bytes of a quantized parameter of this shape; `None` if it is not quantized. `packed` says
    /// whether the device stores two 4-bit elements in a byte; all backends except flex do.
    #[must_use]
    pub fn bytes(self, shape: &[usize], packed: bool) -> Option<u64> {
        let bits = match self {
            Self::Exact => return None,
            Self::Int4 if packed => 4,
            Self::Int8 | Self::Int4 => 8,
        };
        let elements = shape.iter().product::<usize>() as u64;
        Some(elements * bits / 8 + elements / u64::from(block_of(shape)?) * 4)
    }

    /// Returns an error if the device has no quantized tensors. Burn 0.22 panics on LibTorch. Only
    /// the name of the device shows that it is LibTorch.
    pub(crate) fn check(self, device: &Device) -> Result<(), LisaError> {
        if self == Self::Exact || !format!("{device:?}").contains("LibTorch") {
            return Ok(());
        }
        Err(LisaError::new(
            ErrorKind::Config,
            format!(
                "frozen_weights is {self:?} and the model is on {device:?}, where Burn has no \
                 quantized tensors"
            ),
        )
        .with_help("set frozen_weights to FrozenWeights::Exact, or use another backend"))
    }
}

/// The number of elements that share a scale; `None` if the shape is not quantized.
fn block_of(shape: &[usize]) -> Option<u8> {
    let &[_, width] = shape else {
        return None;
    };
    let fits = |block: &u8| width > 0 && width.is_multiple_of(usize::from(*block));
    [64, 32].into_iter().find(fits)
}
