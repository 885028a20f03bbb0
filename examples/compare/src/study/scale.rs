//! How large everything is.

use serde::Serialize;

/// Sizes of the model, the data and the runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
            width: 64,
            heads: 4,
            inner: 128,
            pretraining: [1500, 16, 48],
            train: 1600,
            validation: 128,
            test: 256,
            largest_term: 6,
            towns: 32,
            steps: 120,
            batch: 16,
            domain_steps: 60,
            probe_steps: 40,
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
            width: 32,
            heads: 2,
            inner: 64,
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

    /// Tells this scale from any other.
    pub(crate) fn print(&self) -> String {
        // FNV-1a.
        let text = format!("1 {self:?}");
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }
}
