//! [`SavedUnit`]: the saved score of a layer. A run with a policy that observes gradients needs it
//! for an exact resume.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::period::PeriodSums;
use crate::policy::Scores;
use crate::sampler::Sampler;

/// The largest step, and the largest count in an optimizer's state, that is accepted.
pub(crate) const LARGEST_COUNT: u64 = 1 << 48;

/// The saved values of one layer. Floats are saved as their bits, so that text does not round them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedUnit {
    pub(crate) score: Option<u32>,
    pub(crate) last_drawn: Option<u64>,
    /// The sum over the steps of this period.
    pub(crate) sum: u32,
    pub(crate) steps: u32,
}

/// The scores of a run, and the sums of this period so far. The sums may be read later.
#[derive(Clone, Debug)]
pub(crate) struct ScoreState {
    scores: Scores,
    sums: PeriodSums,
}

impl ScoreState {
    /// The scores of a run; `None` if its policy does not observe gradients. Does not wait for the
    /// device.
    pub(crate) fn of(sampler: &Sampler, sums: &PeriodSums) -> Option<Self> {
        sampler.observation()?;
        Some(Self {
            scores: sampler.scores().clone(),
            sums: sums.clone(),
        })
    }

    /// The number of layers.
    #[cfg(feature = "train")]
    pub(crate) fn len(&self) -> usize {
        self.scores.len()
    }

    /// The values to save, in the order of the layers. Waits for the device.
    pub(crate) fn read(&self) -> Vec<SavedUnit> {
        let sums = self.sums.read();
        let layers = self.scores.iter().enumerate();
        layers
            .map(|(layer, score)| {
                let (sum, steps) = sums.get(&layer).copied().unwrap_or_default();
                SavedUnit {
                    score: score.score.map(f32::to_bits),
                    last_drawn: score.last_drawn,
                    sum: sum.to_bits(),
                    steps,
                }
            })
            .collect()
    }
}

/// The saved scores, for [`Sampler::at`]. The record may be damaged or hostile: a score that is not
/// finite is ignored.
pub(crate) fn scores(saved: &[SavedUnit]) -> Vec<(Option<f32>, Option<u64>)> {
    let score = |unit: &SavedUnit| {
        let score = unit.score.map(f32::from_bits).filter(|s| s.is_finite());
        (score, unit.last_drawn)
    };
    saved.iter().map(score).collect()
}

/// The saved sums on `device`, of the first `layers` layers.
pub(crate) fn sums(saved: &[SavedUnit], layers: usize, device: &Device) -> PeriodSums {
    let units = saved.iter().take(layers).enumerate();
    let sums = units.filter_map(|(layer, unit)| {
        let sum = f32::from_bits(unit.sum);
        let valid = (1..u32::MAX / 2).contains(&unit.steps) && sum.is_finite();
        valid.then_some((layer, (sum, unit.steps)))
    });
    PeriodSums::of(sums, device)
}
