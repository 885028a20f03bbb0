//! [`RopeConfig`]: the frequencies of rotary positions. Tests: at the end, against transformers.

use super::limits::refuse;
use crate::error::Error;

/// Rotary positions: the angle of pair `i` of a head at position `p` is `p` times
/// [`frequencies`](Self::frequencies)`[i]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeConfig {
    /// The base: pair `i` of `head_dim / 2` has the frequency `theta^(-2 i / head_dim)`.
    pub theta: f64,
    /// The scaling for longer sequences.
    pub scaling: RopeScaling,
}

/// How frequencies are scaled for longer sequences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// No scaling.
    Default,
    /// Divides every frequency by the factor.
    Linear {
        /// The factor.
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

    pub(super) fn validate(&self) -> Result<(), Error> {
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

    /// Radians per position of each of the `head_dim / 2` pairs.
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
                // The number of rotations within the original length.
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
    fn scaling_divides_the_low_frequencies() {
        let of = |scaling| {
            let config = RopeConfig {
                theta: 10_000.0,
                scaling,
            };
            config.frequencies(4)
        };
        let plain = of(RopeScaling::Default);
        assert_eq!((plain.len(), plain[0]), (2, 1.0));
        let linear = of(RopeScaling::Linear { factor: 4.0 });
        assert_eq!(linear, [plain[0] / 4.0, plain[1] / 4.0]);
        // The wavelengths are about 6 and 628 positions.
        let llama3 = of(RopeScaling::Llama3 {
            factor: 4.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 32,
        });
        assert_eq!(llama3, [plain[0], plain[1] / 4.0]);
    }
}
