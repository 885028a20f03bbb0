//! [`Importance`]: how much of a layer LoRA moves, against full training; the paper's importance.
//!
//! Section 3 of arXiv 2403.17919 compares the mean norm of each layer's weights over a LoRA run with
//! that over a full one, and gives a layer whose norm stays small under LoRA a small probability.
//! The norms are gathered by [`NormTracker`]. Tests: at the foot (the tracker's: `tracker/tests.rs`).

mod tracker;

use std::io::Write;
use std::path::Path;

use burn_pack::AtomicFile;
use serde::{Deserialize, Serialize};

use crate::policy::systematic;
use crate::{ErrorKind, LisaError};
pub use tracker::NormTracker;

/// Mean L2 norms over a run, by path.
///
/// # Example
///
/// ```
/// # use burn::module::{Module, Param};
/// # use burn::nn::Linear;
/// # use burn::tensor::{Device, Tensor};
/// # #[derive(Module, Debug)]
/// # struct Model { embed: Linear, layers: Vec<Linear> }
/// # let device = Device::flex().autodiff();
/// # let linear = |value: f32| Linear {
/// #     weight: Param::from_tensor(Tensor::full([3, 3], value, &device)),
/// #     bias: None,
/// # };
/// # let model = Model { embed: linear(1.0), layers: vec![linear(2.0), linear(4.0)] };
/// use lisa::importance::{NormTracker, WeightNorms};
///
/// let mut tracker = NormTracker::new(&model, &[])?;
/// // After each step of a run, or after some.
/// tracker.observe(&model)?;
/// let norms: WeightNorms = tracker.norms()?;
/// assert_eq!(norms.observations, 1);
/// assert_eq!(norms.layers, [("layers.0".into(), 6.0), ("layers.1".into(), 12.0)]);
/// assert_eq!(norms.outside, [("embed.weight".into(), 3.0)]);
/// # Ok::<(), lisa::LisaError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WeightNorms {
    /// How many observations the means are of.
    pub observations: u64,
    /// Of each layer, in the order of the stack: the norm of all its numbers together.
    pub layers: Vec<(String, f64)>,
    /// Of each parameter outside the layers: embeddings, final norm, head.
    pub outside: Vec<(String, f64)>,
}

/// The norms of a LoRA run and of a full one on the same data, and the probabilities that follow.
///
/// Use: [`PolicyConfig::Weighted`](crate::PolicyConfig::Weighted) with
/// [`probabilities`](Self::probabilities) draws exactly gamma layers,
/// [`PolicyConfig::Bernoulli`](crate::PolicyConfig::Bernoulli) with [`scaled`](Self::scaled) gamma
/// layers on average.
///
/// # Example
///
/// ```
/// use lisa::importance::{Importance, WeightNorms};
/// use lisa::PolicyConfig;
///
/// let norms = |layers: [f64; 4]| WeightNorms {
///     observations: 10,
///     layers: layers.iter().enumerate().map(|(i, &w)| (format!("layers.{i}"), w)).collect(),
///     outside: vec![("embed.weight".into(), 90.0)],
/// };
/// let importance = Importance {
///     lora: norms([8.0, 2.0, 2.0, 6.0]),
///     full: norms([8.0, 8.0, 8.0, 8.0]),
/// };
/// assert_eq!(importance.probabilities()?, [1.0, 0.25, 0.25, 0.75]);
/// assert_eq!(importance.scaled(1)?, [4.0 / 9.0, 1.0 / 9.0, 1.0 / 9.0, 3.0 / 9.0]);
/// let policy = PolicyConfig::Weighted(importance.probabilities()?);
/// # let _ = policy;
/// # Ok::<(), lisa::LisaError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Importance {
    /// Of the LoRA run: w~(l). Of the merged weights, or of the update alone.
    pub lora: WeightNorms,
    /// Of the full run: w(l).
    pub full: WeightNorms,
}

impl Importance {
    /// By layer: w~(l) / w(l), at most 1.
    ///
    /// # Errors
    ///
    /// Runs whose layers differ; norms that are negative or not finite; a full run in which a layer
    /// has norm 0.
    pub fn probabilities(&self) -> Result<Vec<f64>, LisaError> {
        ratios(&self.lora.layers, &self.full.layers)
    }

    /// The same of each parameter outside the layers, by path: in the paper these are the ones with
    /// large norms under LoRA, which is why they always train.
    ///
    /// # Errors
    ///
    /// As [`probabilities`](Self::probabilities).
    pub fn outside(&self) -> Result<Vec<(String, f64)>, LisaError> {
        let p = ratios(&self.lora.outside, &self.full.outside)?;
        let paths = self.full.outside.iter().map(|(path, _)| path.clone());
        Ok(paths.zip(p).collect())
    }

    /// The probabilities multiplied by one factor so that they sum to `active_layers`; where one
    /// would exceed 1 it is 1, and the others share what is over.
    ///
    /// # Errors
    ///
    /// As [`probabilities`](Self::probabilities); fewer layers with a probability above 0 than
    /// `active_layers`.
    pub fn scaled(&self, active_layers: usize) -> Result<Vec<f64>, LisaError> {
        let p = self.probabilities()?;
        let positive = p.iter().filter(|&&p| p > 0.0).count();
        if positive < active_layers {
            return Err(refuse(format!(
                "{positive} of {} layers have a probability above 0 and {active_layers} are to be \
                 active; ask for fewer",
                p.len()
            )));
        }
        Ok(systematic::inclusion(&p, active_layers))
    }

    /// Saves both to one JSON file, atomically.
    ///
    /// # Errors
    ///
    /// What the operating system refused, with the path.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), LisaError> {
        let path = path.as_ref();
        let failed = |what: String| {
            let message = format!("cannot save the norms to `{}`: {what}", path.display());
            LisaError::new(ErrorKind::Io, message)
        };
        let text = serde_json::to_string_pretty(self).map_err(|e| failed(e.to_string()))?;
        let (scratch, mut file) = AtomicFile::create(path).map_err(|e| failed(e.to_string()))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|e| failed(e.to_string()))?;
        drop(file);
        scratch.commit().map_err(|e| failed(e.to_string()))
    }

    /// Loads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or is none of these, with its path.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, LisaError> {
        let path = path.as_ref();
        let failed = |kind, what: String| {
            let message = format!("cannot read norms from `{}`: {what}", path.display());
            LisaError::new(kind, message)
        };
        let text =
            std::fs::read_to_string(path).map_err(|e| failed(ErrorKind::Io, e.to_string()))?;
        serde_json::from_str(&text).map_err(|e| failed(ErrorKind::Record, e.to_string()))
    }
}

fn refuse(message: String) -> LisaError {
    LisaError::new(ErrorKind::Policy, message)
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
            let bad = |w: f64| !(w >= 0.0 && w.is_finite());
            if bad(*lora) || bad(*full) {
                return Err(refuse(format!(
                    "the norm of `{path}` is {lora} in the LoRA run and {full} in the full run; a \
                     run that diverged tells nothing"
                )));
            }
            if *full == 0.0 {
                return Err(refuse(format!(
                    "the norm of `{path}` is 0 in the full run, so there is no ratio to it"
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
    fn ratios_are_cut_at_one_and_scaled_to_the_wanted_number() {
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
    fn norms_that_do_not_fit_are_refused() {
        let message = |i: Importance| i.probabilities().unwrap_err().to_string();
        assert!(message(importance(&[1.0], &[1.0, 2.0])).contains("1 entries in the LoRA run, 2"));
        assert!(message(importance(&[1.0, 1.0], &[1.0, 0.0])).contains("`layers.1` is 0 in the"));
        assert!(message(importance(&[f64::NAN], &[1.0])).contains("diverged"));
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
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::write(&path, "{}").unwrap();
        let error = Importance::load(path.with_extension("none")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        let error = Importance::load(&path).unwrap_err().to_string();
        assert!(error.contains("importance.json"), "{error}");
        assert!(saved.save(dir.path().join("no/such/file")).is_err());
    }
}
