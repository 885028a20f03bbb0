//! [`SavedUnit`]: what is saved of a layer's score, so that a run with a policy that observes gradients
//! resumes exactly.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::period::PeriodSums;
use crate::policy::Scores;
use crate::sampler::Sampler;

/// What is saved of one layer. Floats are saved as their bits, which text cannot round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedUnit {
    pub(crate) score: Option<u32>,
    pub(crate) last_drawn: Option<u64>,
    /// The sum over the steps of this period.
    pub(crate) sum: u32,
    pub(crate) steps: u32,
}

/// The scores of a run, and what this period has shown so far. It may be read later.
#[derive(Clone, Debug)]
pub(crate) struct ScoreState {
    scores: Scores,
    sums: PeriodSums,
}

impl ScoreState {
    /// Those of a run; none where its policy observes nothing. Does not wait for the device.
    pub(crate) fn of(sampler: &Sampler, sums: &PeriodSums) -> Option<Self> {
        sampler.observation()?;
        Some(Self {
            scores: sampler.scores().clone(),
            sums: sums.clone(),
        })
    }

    /// How many layers there are.
    #[cfg(feature = "train")]
    pub(crate) fn len(&self) -> usize {
        self.scores.len()
    }

    /// What is to be saved, in the order of the layers. Waits for the device.
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

/// The scores that were saved, for [`Sampler::at`]. A record may hold anything: a score that is not
/// finite counts as none.
pub(crate) fn scores(saved: &[SavedUnit]) -> Vec<(Option<f32>, Option<u64>)> {
    let score = |unit: &SavedUnit| {
        let score = unit.score.map(f32::from_bits).filter(|s| s.is_finite());
        (score, unit.last_drawn)
    };
    saved.iter().map(score).collect()
}

/// The sums that were saved, on `device` again, for as many layers as there are.
pub(crate) fn sums(saved: &[SavedUnit], layers: usize, device: &Device) -> PeriodSums {
    let units = saved.iter().take(layers).enumerate();
    let sums = units.filter_map(|(layer, unit)| {
        let sum = f32::from_bits(unit.sum);
        let valid = (1..u32::MAX / 2).contains(&unit.steps) && sum.is_finite();
        valid.then_some((layer, (sum, unit.steps)))
    });
    PeriodSums::of(sums, device)
}
