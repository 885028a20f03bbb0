//! Rotary positions in the layout of Hugging Face checkpoints: the first half of a head is rotated
//! against the second.
//!
//! Angles and their cosines are computed in f32 or better; only the products with q and k have the
//! dtype of the activations. Tests: at the foot, against transformers.

use crate::error::Error;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};

use crate::model::config::refuse;
use crate::model::fused;

/// How positions turn into angles.
///
/// # Example
///
/// ```
/// use lisa_lm::{LlamaConfig, RopeConfig, RopeScaling};
///
/// let rope = RopeConfig::new(10_000.0);
/// assert_eq!(rope.scaling, RopeScaling::Default);
/// // A head of width 4 has two pairs.
/// let frequencies = rope.frequencies(4);
/// assert_eq!((frequencies.len(), frequencies[0]), (2, 1.0));
/// assert!((frequencies[1] - 0.01).abs() < 1e-9);
///
/// let config = LlamaConfig { rope: RopeConfig::new(500_000.0), ..LlamaConfig::new(64, 16, 2, 2) };
/// assert_eq!(config.rope.theta, 500_000.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeConfig {
    /// The base of the wavelengths.
    pub theta: f64,
    /// What was done for longer sequences.
    pub scaling: RopeScaling,
}

/// How wavelengths are stretched for longer sequences.
///
/// # Example
///
/// ```
/// use lisa_lm::{RopeConfig, RopeScaling};
///
/// let of = |scaling| RopeConfig { theta: 10_000.0, scaling }.frequencies(4);
/// let plain = of(RopeScaling::Default);
/// let linear = of(RopeScaling::Linear { factor: 4.0 });
/// assert_eq!(linear, [plain[0] / 4.0, plain[1] / 4.0]);
///
/// // The first wave is about 6 tokens long, the second about 628.
/// let llama3 = of(RopeScaling::Llama3 {
///     factor: 4.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_positions: 32,
/// });
/// assert_eq!(llama3, [plain[0], plain[1] / 4.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All by the same factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Long ones by a factor, short ones not, those between smoothly (Llama 3.1 and later).
    Llama3 {
        /// The factor of the long ones.
        factor: f64,
        /// Wavelengths above `original_max_positions` over this are long.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_positions` over this are short.
        high_freq_factor: f64,
        /// The sequence length that the model was first trained with.
        original_max_positions: usize,
    },
}

impl RopeConfig {
    /// Unscaled angles of this base.
    #[must_use]
    pub fn new(theta: f64) -> Self {
        Self {
            theta,
            scaling: RopeScaling::Default,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let is_positive = |value: f64| value > 0.0 && value.is_finite();
        let fits = match self.scaling {
            RopeScaling::Default => true,
            RopeScaling::Linear { factor } => is_positive(factor),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_positions,
            } => {
                is_positive(factor)
                    && is_positive(low_freq_factor)
                    && high_freq_factor > low_freq_factor
                    && original_max_positions > 0
            }
        };
        if fits && is_positive(self.theta) {
            return Ok(());
        }
        Err(refuse(format!("rope_parameters are {self:?}"))
            .with_help("give positive numbers, and a high_freq_factor above low_freq_factor"))
    }

    /// Radians per position, for each of the `head_dim / 2` pairs.
    #[must_use]
    pub fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let pairs = 0..head_dim / 2;
        let plain = pairs.map(|pair| self.theta.powf(-((2 * pair) as f64) / head_dim as f64));
        plain
            .map(|frequency| self.scaling.apply(frequency))
            .collect()
    }
}

impl RopeScaling {
    fn apply(self, frequency: f64) -> f64 {
        match self {
            Self::Default => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_positions,
            } => {
                // How often the wave fits into the original length.
                let turns = original_max_positions as f64 * frequency / std::f64::consts::TAU;
                if turns > high {
                    frequency
                } else if turns < low {
                    frequency / factor
                } else {
                    let smooth = (turns - low) / (high - low);
                    frequency * (smooth + (1.0 - smooth) / factor)
                }
            }
        }
    }
}

/// Cosines and sines for the positions of one batch, computed once and used by every layer.
#[derive(Clone, Debug)]
pub(crate) struct RopeTables {
    /// `[batch or 1, 1, seq, head_dim]`.
    cos: Tensor<4>,
    /// The same, negative in the first half of the head.
    sin: Tensor<4>,
    /// Ones where a product lets the halves of a head change places: `[1, 1, head_dim, head_dim]`.
    /// Flex walks a flipped tensor number by number, and so it would in backward.
    swap: Tensor<4>,
}

impl RopeTables {
    /// Tables for the positions `first..first + count`.
    pub(crate) fn range(
        config: &RopeConfig,
        head_dim: usize,
        first: usize,
        count: usize,
        options: (&Device, DType),
    ) -> Self {
        let frequencies = config.frequencies(head_dim);
        let angles: Vec<f64> = (first..first + count)
            .flat_map(|place| {
                frequencies
                    .iter()
                    .map(move |frequency| place as f64 * frequency)
            })
            .collect();
        let table = |of: fn(f64) -> f64, sign: f64| {
            let half = head_dim / 2;
            let rows = angles.chunks(half).flat_map(|row| {
                let first = row.iter().map(move |angle| sign * of(*angle));
                first.chain(row.iter().map(move |angle| of(*angle)))
            });
            let values: Vec<f32> = rows.map(|value| value as f32).collect();
            let (device, dtype) = options;
            let data = TensorData::new(values, [1, 1, count, head_dim]);
            Tensor::<4>::from_data(data, (device, DType::F32)).cast(dtype)
        };
        Self {
            cos: table(f64::cos, 1.0),
            sin: table(f64::sin, -1.0),
            swap: swap(head_dim, options),
        }
    }

    /// Tables for any positions, `[batch, seq]`.
    pub(crate) fn at(
        config: &RopeConfig,
        head_dim: usize,
        positions: Tensor<2, Int>,
        options: (&Device, DType),
    ) -> Self {
        let (device, dtype) = options;
        let [batch, seq] = positions.dims();
        let half = head_dim / 2;
        let frequencies: Vec<f32> = config
            .frequencies(head_dim)
            .into_iter()
            .map(|frequency| frequency as f32)
            .collect();
        let frequencies = TensorData::new(frequencies, [1, 1, 1, half]);
        let frequencies = Tensor::<4>::from_data(frequencies, (device, DType::F32));
        let places = positions.cast(FloatDType::F32).reshape([batch, 1, seq, 1]);
        let angles = places * frequencies;
        let (cos, sin) = (angles.clone().cos(), angles.sin());
        Self {
            cos: Tensor::cat(vec![cos.clone(), cos], 3).cast(dtype),
            sin: Tensor::cat(vec![sin.clone().neg(), sin], 3).cast(dtype),
            swap: swap(head_dim, options),
        }
    }

    /// Rotates the heads, `[batch, heads, seq, head_dim]`, by the angles of their positions.
    pub(crate) fn rotate(&self, heads: Tensor<4>) -> Tensor<4> {
        if let Some(turned) = fused::rotate(&heads, &self.cos, &self.sin) {
            return turned;
        }
        // The sign of the first half is in the table.
        let swapped = heads.clone().matmul(self.swap.clone());
        heads * self.cos.clone() + swapped * self.sin.clone()
    }
}

/// See [`RopeTables::swap`].
fn swap(head_dim: usize, (device, dtype): (&Device, DType)) -> Tensor<4> {
    let half = head_dim / 2;
    let ones = (0..head_dim * head_dim).map(|at| {
        let (row, column) = (at / head_dim, at % head_dim);
        f32::from(u8::from(column == (row + half) % head_dim))
    });
    let data = TensorData::new(ones.collect::<Vec<f32>>(), [1, 1, head_dim, head_dim]);
    Tensor::<4>::from_data(data, (device, DType::F32)).cast(dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() <= 1e-6 * expected,
                "{found} {expected}"
            );
        }
    }

    #[test]
    fn frequencies_are_those_of_transformers() {
        // transformers 5.23.0, head_dim 16: modeling_rope_utils.ROPE_INIT_FUNCTIONS.
        let default = [
            1.000000000e+00,
            3.162277639e-01,
            1.000000015e-01,
            3.162277862e-02,
            9.999999776e-03,
            3.162277862e-03,
            1.000000047e-03,
            3.162277862e-04,
        ];
        let linear = [
            2.500000000e-01,
            7.905694097e-02,
            2.500000037e-02,
            7.905694656e-03,
            2.499999944e-03,
            7.905694656e-04,
            2.500000119e-04,
            7.905694656e-05,
        ];
        let llama3 = [
            1.000000000e+00,
            1.939227581e-01,
            3.760603070e-02,
            7.292665076e-03,
            5.248460220e-04,
            3.428102355e-05,
            6.647869668e-06,
            1.289173156e-06,
        ];
        let short = [
            1.000000000e+00,
            6.713303924e-02,
            1.175188459e-03,
            2.278957836e-04,
            4.419417019e-05,
            8.570255886e-06,
            1.661967417e-06,
            3.222932889e-07,
        ];
        close(&RopeConfig::new(10_000.0).frequencies(16), &default);
        let scaled = |theta, scaling| RopeConfig { theta, scaling }.frequencies(16);
        close(
            &scaled(10_000.0, RopeScaling::Linear { factor: 4.0 }),
            &linear,
        );
        let scaling = |factor, original_max_positions| RopeScaling::Llama3 {
            factor,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions,
        };
        close(&scaled(500_000.0, scaling(8.0, 8192)), &llama3);
        close(&scaled(500_000.0, scaling(32.0, 64)), &short);
    }

    #[test]
    fn a_rotation_keeps_lengths_and_depends_on_distance_only() {
        let device = Device::default();
        let config = RopeConfig::new(10_000.0);
        let tables = RopeTables::range(&config, 4, 0, 8, (&device, DType::F32));
        let vector: Tensor<4> = Tensor::<1>::from_data([1.0, 2.0, -0.5, 0.25], &device)
            .reshape([1, 1, 1, 4])
            .repeat_dim(2, 8);
        let rotated: Tensor<2> = tables.rotate(vector).reshape([8, 4]);
        let products = rotated.clone().matmul(rotated.transpose()).into_data();
        let products: Vec<f32> = products.iter::<f32>().collect();
        for row in 0..7 {
            assert!((products[row * 8 + row] - 5.3125).abs() < 1e-5);
            assert!((products[row * 8 + row + 1] - products[1]).abs() < 1e-5);
        }
    }

    #[test]
    fn tables_of_given_positions_are_those_of_the_range() {
        let device = Device::default();
        let config = RopeConfig::new(10_000.0);
        let options = (&device, DType::F32);
        let positions = Tensor::<2, Int>::from_data([[3, 4, 5]], &device);
        let given = RopeTables::at(&config, 8, positions, options);
        let range = RopeTables::range(&config, 8, 3, 3, options);
        for (given, range) in [(given.cos, range.cos), (given.sin, range.sin)] {
            let largest = (given - range).abs().max().into_scalar::<f32>();
            assert!(largest < 1e-6, "{largest}");
        }
    }
}
