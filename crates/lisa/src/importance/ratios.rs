//! [`Importance`]: the norms under LoRA relative to those under full fine-tuning.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::file;
use super::norms::WeightNorms;
use crate::policy::systematic;
use crate::{ErrorKind, LisaError};

/// The norms of a LoRA run and of a full fine-tuning run on the same data. The sampling
/// probabilities are computed from them.
///
/// [`PolicyConfig::Weighted`](crate::PolicyConfig::Weighted) with
/// [`probabilities`](Self::probabilities) samples exactly gamma layers.
/// [`PolicyConfig::Bernoulli`](crate::PolicyConfig::Bernoulli) with [`scaled`](Self::scaled)
/// samples gamma layers on average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Importance {
    /// Norms of the LoRA run: of the merged weights, or of the update only.
    pub lora: WeightNorms,
    /// Norms of the full fine-tuning run.
    pub full: WeightNorms,
}

impl Importance {
    /// For each layer, the norm under LoRA divided by the norm under full fine-tuning, at most 1.
    ///
    /// # Errors
    ///
    /// The two models have different layers; a norm is negative or not finite; the norm of a layer
    /// is 0 in the full run.
    pub fn probabilities(&self) -> Result<Vec<f64>, LisaError> {
        ratios(&self.lora.layers, &self.full.layers)
    }

    /// The same ratio for each parameter outside the layers, with its path. In the paper these
    /// parameters have large norms under LoRA, so LISA always trains them.
    ///
    /// # Errors
    ///
    /// As [`probabilities`](Self::probabilities).
    pub fn outside(&self) -> Result<Vec<(String, f64)>, LisaError> {
        let p = ratios(&self.lora.outside, &self.full.outside)?;
        let paths = self.full.outside.iter().map(|(path, _)| path.clone());
        Ok(paths.zip(p).collect())
    }

    /// The probabilities multiplied by one factor so that their sum is `active_layers`. A
    /// probability that would exceed 1 becomes 1, and the factor of the others increases.
    ///
    /// # Errors
    ///
    /// As [`probabilities`](Self::probabilities). Also if fewer than `active_layers` layers have a
    /// probability above 0.
    pub fn scaled(&self, active_layers: usize) -> Result<Vec<f64>, LisaError> {
        scaled(&self.probabilities()?, active_layers)
    }

    /// Saves the norms of both runs to one JSON file, atomically.
    ///
    /// # Errors
    ///
    /// The file cannot be written; the message has its path.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), LisaError> {
        file::save(self, path.as_ref(), "the norms")
    }

    /// Loads a file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// The file cannot be read or has other content; the message has its path.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, LisaError> {
        file::load(path.as_ref(), ["norms", "Importance"])
    }
}

/// The probabilities multiplied by one factor so that their sum is `active_layers`, each at most 1.
pub(super) fn scaled(p: &[f64], active_layers: usize) -> Result<Vec<f64>, LisaError> {
    let positive = p.iter().filter(|&&p| p > 0.0).count();
    if positive < active_layers {
        let layers = p.len();
        return Err(refuse(format!(
            "active_layers is {active_layers}, but only {positive} of {layers} layers have a \
             probability above 0"
        ))
        .with_help(format!("set active_layers to {positive} or less")));
    }
    Ok(systematic::inclusion(p, active_layers))
}

fn refuse(message: String) -> LisaError {
    LisaError::new(ErrorKind::Policy, message)
        .with_help("measure the norms of this model again, with both runs")
}

fn ratios(lora: &[(String, f64)], full: &[(String, f64)]) -> Result<Vec<f64>, LisaError> {
    if lora.len() != full.len() {
        return Err(refuse(format!(
            "the norms are of different models: {} entries in the LoRA run, {} in the full run",
            lora.len(),
            full.len()
        )));
    }
    let pairs = lora.iter().zip(full);
    pairs
        .map(|((path, lora), (other, full))| {
            if path != other {
                return Err(refuse(format!(
                    "the norms are of different models: the LoRA run has `{path}` where the full \
                     run has `{other}`"
                )));
            }
            let bad = |norm: f64| !(norm >= 0.0 && norm.is_finite());
            if bad(*lora) || bad(*full) {
                return Err(refuse(format!(
                    "the norm of `{path}` is {lora} in the LoRA run and {full} in the full run"
                ))
                .with_help("a run diverged; lower its learning rate and measure again"));
            }
            if *full == 0.0 {
                return Err(refuse(format!(
                    "the norm of `{path}` is 0 in the full run, so the ratio is undefined"
                )));
            }
            Ok((lora / full).min(1.0))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norms(layers: &[f64], outside: f64) -> WeightNorms {
        let layers = layers.iter().enumerate();
        WeightNorms {
            observations: 3,
            layers: layers.map(|(i, &w)| (format!("layers.{i}"), w)).collect(),
            outside: vec![("embed.weight".into(), outside)],
        }
    }

    fn importance(lora: &[f64], full: &[f64]) -> Importance {
        Importance {
            lora: norms(lora, 8.0),
            full: norms(full, 4.0),
        }
    }

    #[test]
    fn ratios_are_at_most_one_and_scaled_to_the_wanted_sum() {
        let found = importance(&[3.0, 1.0, 1.0, 0.5], &[2.0, 2.0, 2.0, 2.0]);
        assert_eq!(found.probabilities().unwrap(), [1.0, 0.5, 0.5, 0.25]);
        assert_eq!(found.outside().unwrap(), [("embed.weight".into(), 1.0)]);
        for gamma in 1..=4 {
            let scaled = found.scaled(gamma).unwrap();
            let sum: f64 = scaled.iter().sum();
            assert!((sum - gamma as f64).abs() < 1e-12, "{scaled:?}");
            assert!(scaled.iter().all(|p| (0.0..=1.0).contains(p)));
        }
        // Two of 2.25 in proportion, of which the first would have 1 / 2.25 * 3 = 1.33.
        let three = found.scaled(3).unwrap();
        assert_eq!(three[0], 1.0);
        assert!((three[1] - 0.8).abs() < 1e-12 && (three[3] - 0.4).abs() < 1e-12);
    }

    #[test]
    fn norms_of_different_or_diverged_runs_are_refused() {
        let message = |i: Importance| i.probabilities().unwrap_err().to_string();
        assert!(message(importance(&[1.0], &[1.0, 2.0])).contains("1 entries in the LoRA run, 2"));
        assert!(message(importance(&[1.0, 1.0], &[1.0, 0.0])).contains("`layers.1` is 0 in the"));
        let diverged = importance(&[f64::NAN], &[1.0]).probabilities();
        assert!(
            diverged
                .unwrap_err()
                .help()
                .is_some_and(|help| help.contains("diverged"))
        );
        let mut other = importance(&[1.0], &[1.0]);
        other.lora.layers[0].0 = "blocks.0".into();
        assert!(message(other).contains("has `blocks.0` where the full run has `layers.0`"));
        let few = importance(&[1.0, 0.0], &[1.0, 1.0]).scaled(2).unwrap_err();
        assert!(few.to_string().contains("1 of 2 layers"), "{few}");
    }

    #[test]
    fn a_file_holds_every_digit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("importance.json");
        let saved = importance(&[0.1, 1.0 / 3.0], &[2.0f64.sqrt(), 1e-300]);
        saved.save(&path).unwrap();
        saved.save(&path).unwrap();
        assert_eq!(Importance::load(&path).unwrap(), saved);
        // Positive numbers of any exponent.
        let mut bits = 1_u64;
        let mut random = || {
            bits = bits.wrapping_mul(0xD128_0E7F_BC05_A4C5).wrapping_add(1);
            f64::from_bits(bits >> 2)
        };
        let norms: Vec<f64> = (0..2000).map(|_| random()).collect();
        let random = importance(&norms[..1000], &norms[1000..]);
        random.save(&path).unwrap();
        assert_eq!(Importance::load(&path).unwrap(), random);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::write(&path, "{}").unwrap();
        let error = Importance::load(path.with_extension("none")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(std::error::Error::source(&error).is_some());
        let error = Importance::load(&path).unwrap_err().to_string();
        assert!(error.contains("importance.json"), "{error}");
        assert!(error.contains("give a file of norms"), "{error}");
        assert!(saved.save(dir.path().join("no/such/file")).is_err());
    }
}
