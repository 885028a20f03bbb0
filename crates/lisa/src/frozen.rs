//! [`FrozenWeights`]: in which form the device holds the weights of frozen layers.

use burn::tensor::Device;
use burn::tensor::quantization::{QuantScheme, QuantValue, ScaleDtype};
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, LisaError};

/// What the device holds of the weights of frozen layers.
///
/// Full-precision weights of quantized layers are kept in host memory, so nothing that was trained is
/// rounded. Worth it only with layer-wise recomputation ([`Recompute`](crate::recompute::Recompute)):
/// a plain backward pass keeps every weight dense.
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
pub enum FrozenWeights {
    /// The weights themselves.
    #[default]
    Exact,
    /// Matrices as 8-bit integers with an f32 scale for each block of 64: 8.5 bits an element. Rows
    /// that are no multiple of 64 have blocks of 32.
    Int8,
    /// The same with 4 bits: 4.5 bits an element. Flex stores them as int8.
    Int4,
}

impl FrozenWeights {
    /// Burn's scheme for a parameter of this shape; none where it is not quantized. Only matrices whose
    /// rows are whole blocks of 64 or 32 are.
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

    /// Bytes of a quantized parameter of this shape; none where it is not quantized. `packed`: whether
    /// the device stores two 4-bit elements in a byte, as all but flex do.
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

    /// Refuses what a device cannot hold. Burn 0.22 has no quantized tensors on LibTorch and panics;
    /// only its name tells the device.
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

/// Elements that share a scale.
fn block_of(shape: &[usize]) -> Option<u8> {
    let &[_, width] = shape else {
        return None;
    };
    let fits = |block: &u8| width > 0 && width.is_multiple_of(usize::from(*block));
    [64, 32].into_iter().find(fits)
}
