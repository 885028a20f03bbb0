//! How large everything is.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::words::{LARGEST, TOWNS};

/// Sizes of the model, the data and the runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Scale {
    pub(crate) layers: usize,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    /// Width inside the feed-forward part.
    pub(crate) inner: usize,
    /// Optimizer steps, rows and tokens in a row of pretraining.
    pub(crate) pretraining: [usize; 3],
    /// Questions.
    pub(crate) train: usize,
    pub(crate) validation: usize,
    pub(crate) test: usize,
    /// What can be asked of a list, forms of the answer, and words of the longest list.
    pub(crate) deeds: usize,
    pub(crate) forms: usize,
    pub(crate) longest_list: usize,
    /// Terms of the sums are at most this.
    pub(crate) largest_term: usize,
    /// Towns that facts are known of.
    pub(crate) towns: usize,
    /// Optimizer steps of a run, and questions in a batch.
    pub(crate) steps: usize,
    pub(crate) batch: usize,
    /// Optimizer steps on the domain's text.
    pub(crate) domain_steps: usize,
    /// Optimizer steps of each probe for the weights of layers.
    pub(crate) probe_steps: usize,
    /// Layers that train in a period (gamma), and steps of it (K), where nothing else is said.
    pub(crate) active_layers: usize,
    pub(crate) period: usize,
    /// Learning rates to choose from at least, and at most where the best is the first or the last.
    pub(crate) rates: [usize; 2],
    /// Seeds of the test.
    pub(crate) seeds: u64,
}

impl Scale {
    /// The study.
    pub(crate) fn full() -> Self {
        Self {
            layers: 12,
            width: 32,
            heads: 2,
            inner: 64,
            pretraining: [2000, 16, 48],
            train: 1600,
            validation: 128,
            test: 256,
            deeds: 4,
            forms: 3,
            longest_list: 4,
            largest_term: 5,
            towns: 20,
            steps: 300,
            batch: 8,
            domain_steps: 100,
            probe_steps: 60,
            active_layers: 2,
            period: 5,
            rates: [4, 6],
            seeds: 5,
        }
    }

    /// A look at whether everything works.
    pub(crate) fn quick() -> Self {
        Self {
            layers: 4,
            pretraining: [30, 8, 32],
            train: 64,
            validation: 16,
            test: 16,
            towns: 4,
            steps: 8,
            batch: 8,
            domain_steps: 4,
            probe_steps: 4,
            period: 2,
            rates: [2, 2],
            seeds: 2,
            ..Self::full()
        }
    }

    /// Sizes from a JSON file; those that it does not name are the study's.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let failed = || format!("the sizes in `{}`", path.display());
        let text = std::fs::read_to_string(path).with_context(failed)?;
        let scale: Self = serde_json::from_str(&text).with_context(failed)?;
        ensure!(
            scale.towns <= TOWNS.len()
                && 2 * scale.largest_term <= LARGEST
                && scale.longest_list > 2,
            "there are {} towns, numbers up to {LARGEST} and lists of at least 3 words",
            TOWNS.len()
        );
        Ok(scale)
    }

    /// Tells this scale from any other.
    pub(crate) fn print(&self) -> String {
        fingerprint(&format!("{self:?}"))
    }

    /// Tells this base model from any other.
    pub(crate) fn print_of_base(&self) -> String {
        let sizes = [self.layers, self.width, self.heads, self.inner];
        fingerprint(&format!("{sizes:?} {:?}", self.pretraining))
    }
}

impl Default for Scale {
    fn default() -> Self {
        Self::full()
    }
}

/// FNV-1a of a text, and of the version of what the sizes are used for.
fn fingerprint(text: &str) -> String {
    let bytes = text.bytes().chain(*b" 1");
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_changes_what_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sizes.json");
        std::fs::write(&path, r#"{"width": 96}"#).unwrap();
        let scale = Scale::read(&path).unwrap();
        assert_eq!((scale.width, scale.layers), (96, Scale::full().layers));
        assert_ne!(scale.print_of_base(), Scale::full().print_of_base());
        std::fs::write(&path, r#"{"steps": 1}"#).unwrap();
        let scale = Scale::read(&path).unwrap();
        assert_eq!(scale.print_of_base(), Scale::full().print_of_base());
        assert_ne!(scale.print(), Scale::full().print());
        for wrong in [r#"{"with": 96}"#, r#"{"towns": 33}"#] {
            std::fs::write(&path, wrong).unwrap();
            assert!(Scale::read(&path).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_fingerprint_is_the_same_on_every_platform() {
        assert_eq!(fingerprint("a"), "e63fe8190483becf");
    }
}
