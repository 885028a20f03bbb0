//! [`RopeTables`]: rotary positions in the layout of Hugging Face, which rotates the first half of
//! a head against the second.
//!
//! Angles, cosines and sines are computed in f32 or f64; only the products with queries and keys
//! are in the dtype of the activations.

use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};

use crate::model::config::RopeConfig;
use crate::model::ops;

/// The cosines and sines for the positions of one batch, multiplied by the attention factor.
#[derive(Clone, Debug)]
pub(crate) struct RopeTables {
    /// `[batch or 1, 1, seq, head_dim]`.
    cos: Tensor<4>,
    /// The same shape, with the sign of the first half of the head changed.
    sin: Tensor<4>,
    /// The matrix that exchanges the halves of a head, `[1, 1, head_dim, head_dim]`. On flex, a
    /// matmul is faster than slices, forward and backward.
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
        let factor = config.attention_factor();
        let angles: Vec<f64> = (first..first + count)
            .flat_map(|position| {
                frequencies
                    .iter()
                    .map(move |frequency| position as f64 * frequency)
            })
            .collect();
        let table = |of: fn(f64) -> f64, sign: f64| {
            let half = head_dim / 2;
            let rows = angles.chunks(half).flat_map(|row| {
                let first = row.iter().map(move |angle| sign * factor * of(*angle));
                first.chain(row.iter().map(move |angle| factor * of(*angle)))
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
        let positions = positions.cast(FloatDType::F32).reshape([batch, 1, seq, 1]);
        let angles = positions * frequencies;
        let factor = config.attention_factor();
        let cos = angles.clone().cos().mul_scalar(factor);
        let sin = angles.sin().mul_scalar(factor);
        Self {
            cos: Tensor::cat(vec![cos.clone(), cos], 3).cast(dtype),
            sin: Tensor::cat(vec![sin.clone().neg(), sin], 3).cast(dtype),
            swap: swap(head_dim, options),
        }
    }

    /// Rotates heads, `[batch, heads, seq, head_dim]`, by the angles of their positions.
    pub(crate) fn rotate(&self, heads: Tensor<4>) -> Tensor<4> {
        ops::rotate(heads, &self.cos, &self.sin, &self.swap)
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
    use crate::model::config::RopeScaling;

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

    #[test]
    fn tables_of_yarn_are_those_of_transformers() {
        // transformers 5.23.0: Qwen3RotaryEmbedding(config)(x, [[1, 7]]) with the rope_scaling of
        // DeepSeek-R1-0528-Qwen3-8B and head_dim 16.
        let cos: [[f64; 8]; 2] = [
            [
                0.61520416, 1.12067354, 1.13806021, 1.13861930, 1.13862932, 1.13862944, 1.13862944,
                1.13862944,
            ],
            [
                0.85841531, 0.36465406, 1.11084676, 1.13813329, 1.13862240, 1.13862932, 1.13862944,
                1.13862944,
            ],
        ];
        let sin: [[f64; 8]; 2] = [
            [
                0.95812362, 0.20141466, 0.03600062, 0.00480222, 0.00056931, 0.00005062, 0.00000900,
                0.00000160,
            ],
            [
                0.74806428, 1.07865858, 0.24999304, 0.03361078, 0.00398519, 0.00035434, 0.00006301,
                0.00001121,
            ],
        ];
        let scaling = RopeScaling::Yarn {
            factor: 4.0,
            original_max_positions: 32_768,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
            attention_factor: 1.138629436111989,
        };
        let config = RopeConfig {
            theta: 1e6,
            scaling,
        };
        let device = Device::default();
        let options = (&device, DType::F32);
        let positions = Tensor::<2, Int>::from_data([[1, 7]], &device);
        let given = RopeTables::at(&config, 16, positions, options);
        for (row, position) in [1, 7].into_iter().enumerate() {
            let range = RopeTables::range(&config, 16, position, 1, options);
            // The sines of the first half have another sign.
            let cos: Vec<f64> = [cos[row], cos[row]].concat();
            let sin: Vec<f64> = [sin[row].map(|value| -value), sin[row]].concat();
            let row_of = |table: &Tensor<4>| table.clone().narrow(2, row, 1);
            close(range.cos, &cos);
            close(range.sin, &sin);
            close(row_of(&given.cos), &cos);
            close(row_of(&given.sin), &sin);
        }
    }

    fn close(table: Tensor<4>, expected: &[f64]) {
        let found: Vec<f32> = table.into_data().iter::<f32>().collect();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let difference = (f64::from(*found) - expected).abs();
            assert!(difference < 1e-6, "{found} {expected}");
        }
    }
}
