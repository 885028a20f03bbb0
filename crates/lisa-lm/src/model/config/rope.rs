//! [`RopeConfig`]: the frequencies of rotary positions.

use std::f64::consts::TAU;

use super::limits::refuse;
use crate::error::Error;

mod json;

/// Rotary positions: the angle of pair `i` of a head at position `p` is `p` times
/// [`frequencies`](Self::frequencies)`[i]`. Cosines and sines are multiplied by the
/// [`attention_factor`](Self::attention_factor).
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// The base: pair `i` of `head_dim / 2` has the frequency `theta^(-2 i / head_dim)`.
    pub theta: f64,
    /// The scaling for longer sequences.
    pub scaling: RopeScaling,
}

/// How frequencies are scaled for longer sequences.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// No scaling.
    Default,
    /// Divides every frequency by the factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// No scaling up to `max_position_embeddings`. What transformers computes for longer sequences
    /// is not implemented.
    Dynamic {
        /// The factor of longer sequences.
        factor: f64,
    },
    /// Divides the low frequencies by the factor, keeps the high frequencies, and interpolates
    /// between them (Llama 3.1 and later).
    Llama3 {
        /// The factor of the low frequencies.
        factor: f64,
        /// A frequency is low if its wavelength is above `original_max_positions /
        /// low_freq_factor`.
        low_freq_factor: f64,
        /// A frequency is high if its wavelength is below `original_max_positions /
        /// high_freq_factor`.
        high_freq_factor: f64,
        /// The longest sequence of the training before the scaling.
        original_max_positions: usize,
    },
    /// YaRN: divides the low frequencies by the factor, keeps the high frequencies, interpolates
    /// between them linearly in the number of the pair, and multiplies cosines and sines by a
    /// constant.
    Yarn {
        /// The factor of the low frequencies.
        factor: f64,
        /// The longest sequence of the training before the scaling.
        original_max_positions: usize,
        /// The number of rotations within `original_max_positions` of the pair at which the
        /// interpolation begins; transformers' default is 32.
        beta_fast: f64,
        /// The number of rotations of the pair at which the interpolation ends; transformers' default
        /// is 1.
        beta_slow: f64,
        /// Whether the two ends are rounded outward to whole pairs; transformers' default is true.
        truncate: bool,
        /// Multiplies cosines and sines; transformers' default is `1 + 0.1 ln(factor)`.
        attention_factor: f64,
    },
}

impl RopeConfig {
    /// A configuration with this base, without scaling.
    #[must_use]
    pub fn new(theta: f64) -> Self {
        Self {
            theta,
            scaling: RopeScaling::Default,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let fits = is_positive(self.theta)
            && self.scaling.is_valid()
            // YaRN divides by its logarithm.
            && (self.theta > 1.0 || !matches!(self.scaling, RopeScaling::Yarn { .. }));
        if fits {
            return Ok(());
        }
        Err(refuse(format!("rope_parameters are {self:?}")).with_help(
            "give positive numbers, a high_freq_factor above low_freq_factor, and for yarn a \
                 rope_theta above 1",
        ))
    }

    /// Radians per position of each of the `head_dim / 2` pairs.
    #[must_use]
    pub fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let pairs = 0..head_dim / 2;
        pairs.map(|pair| self.frequency(pair, head_dim)).collect()
    }

    /// The number that cosines and sines are multiplied by: 1 except for YaRN.
    #[must_use]
    pub fn attention_factor(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn {
                attention_factor, ..
            } => attention_factor,
            _ => 1.0,
        }
    }

    fn frequency(&self, pair: usize, head_dim: usize) -> f64 {
        let plain = self.theta.powf(-((2 * pair) as f64) / head_dim as f64);
        match self.scaling {
            RopeScaling::Default | RopeScaling::Dynamic { .. } => plain,
            RopeScaling::Linear { factor } => plain / factor,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_positions,
            } => {
                // The number of rotations within the original length.
                let turns = original_max_positions as f64 * plain / TAU;
                if turns > high {
                    plain
                } else if turns < low {
                    plain / factor
                } else {
                    let smooth = (turns - low) / (high - low);
                    plain * (smooth + (1.0 - smooth) / factor)
                }
            }
            RopeScaling::Yarn {
                factor,
                original_max_positions,
                beta_fast,
                beta_slow,
                truncate,
                ..
            } => {
                let end = |turns| self.pair_of(turns, original_max_positions, head_dim);
                let (mut first, mut last) = (end(beta_fast), end(beta_slow));
                if truncate {
                    (first, last) = (first.floor(), last.ceil());
                }
                let divided = share(pair, first.max(0.0), last.min(head_dim as f64 - 1.0));
                plain * (1.0 - divided) + plain / factor * divided
            }
        }
    }

    /// The pair, as a fraction, that rotates `turns` times within `positions` positions.
    fn pair_of(&self, turns: f64, positions: usize, head_dim: usize) -> f64 {
        let turns_of_first = positions as f64 / TAU;
        (turns_of_first / turns).ln() * head_dim as f64 / (2.0 * self.theta.ln())
    }
}

/// The share of the divided frequency in that of a pair: 0 up to the first end, 1 from the last.
fn share(pair: usize, first: f64, last: f64) -> f64 {
    // transformers, too, keeps equal ends apart.
    let distance = if first == last { 0.001 } else { last - first };
    ((pair as f64 - first) / distance).clamp(0.0, 1.0)
}

impl RopeScaling {
    fn is_valid(&self) -> bool {
        match *self {
            Self::Default => true,
            Self::Linear { factor } | Self::Dynamic { factor } => is_positive(factor),
            Self::Llama3 {
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
            Self::Yarn {
                factor,
                original_max_positions,
                beta_fast,
                beta_slow,
                truncate: _,
                attention_factor,
            } => {
                let numbers = [factor, beta_fast, beta_slow, attention_factor];
                numbers.into_iter().all(is_positive) && original_max_positions > 0
            }
        }
    }
}

fn is_positive(value: f64) -> bool {
    value > 0.0 && value.is_finite()
}

#[cfg(test)]
mod tests;
