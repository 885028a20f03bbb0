//! [`Sampler`]: which layers train in which period. It has no module and no tensor: everything that
//! a sample depends on is a plain value.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::policy::{Draw, Observation, SamplingPolicy, Scores};
use crate::schedule::Schedule;
use crate::{ErrorKind, LisaError};

/// The layers that a run samples from, and the settings of the sampling.
#[derive(Clone, Debug)]
pub(crate) struct Sampling {
    pub(crate) policy: Arc<dyn SamplingPolicy>,
    pub(crate) seed: u64,
    /// How many layers a policy is asked for (gamma).
    pub(crate) active_layers: usize,
    /// Optimizer steps in a period (K).
    pub(crate) period: usize,
    /// Whether gradients are divided by the probability of their layer.
    pub(crate) unbiased: bool,
    /// The parameters outside the layers train in every n-th period; 0 if they never train.
    pub(crate) outer_every: u64,
    /// Steps over which the learning rate of a layer that becomes active rises.
    pub(crate) warmup: u64,
    /// By layer: its path, and how many of its elements may train.
    pub(crate) layers: Vec<(String, u64)>,
}

/// Samples the layers of each period.
///
/// State: the step, the layers of this period, their probabilities, and the scores.
#[derive(Clone, Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    schedule: Schedule,
    scores: Scores,
    /// The layers of this period, ascending.
    active: Vec<usize>,
    /// By layer: the probability with which it was sampled. Empty unless gradients are divided by
    /// it.
    inclusion: Vec<f64>,
    /// By layer: whether it was active in the previous period, in which case it has no warm-up. Empty
    /// if no layer has one.
    was_active: Vec<bool>,
}

impl Sampler {
    /// Samples the layers of the first period, or says why the policy cannot.
    pub(crate) fn new(sampling: Sampling) -> Result<Self, LisaError> {
        let mut sampler = Self::undrawn(sampling);
        sampler.check()?;
        sampler.draw()?;
        Ok(sampler)
    }

    /// Before the first draw.
    fn undrawn(sampling: Sampling) -> Self {
        Self {
            schedule: Schedule::new(sampling.period),
            scores: Scores::new(sampling.layers.iter().map(|(_, size)| *size)),
            active: Vec::new(),
            inclusion: Vec::new(),
            was_active: Vec::new(),
            sampling,
        }
    }

    /// The same run at another step, with these layers and these scores.
    pub(crate) fn at(
        &self,
        step: u64,
        active: Vec<usize>,
        scores: &[(Option<f32>, Option<u64>)],
    ) -> Result<Self, LisaError> {
        let mut sampler = self.moved(step, scores);
        let active = sampler.valid(active)?;
        sampler.inclusion = sampler.inclusion_in(&sampler.next_draw())?;
        sampler.was_active = sampler.previously_active();
        sampler.active = active;
        Ok(sampler)
    }

    /// The same run at another step, with these scores. The layers are sampled again: they are a
    /// function of the step and the scores.
    #[cfg(feature = "train")]
    pub(crate) fn drawn_at(
        &self,
        step: u64,
        scores: &[(Option<f32>, Option<u64>)],
    ) -> Result<Self, LisaError> {
        let mut sampler = self.moved(step, scores);
        sampler.draw()?;
        Ok(sampler)
    }

    fn moved(&self, step: u64, scores: &[(Option<f32>, Option<u64>)]) -> Self {
        let mut sampler = self.clone();
        sampler.schedule = Schedule::at(step, self.sampling.period);
        if self.observation().is_some() {
            for layer in 0..sampler.scores.len() {
                let (score, last_drawn) = scores.get(layer).copied().unwrap_or_default();
                sampler.scores.set(layer, score, last_drawn);
            }
        }
        sampler
    }

    /// Counts one optimizer step; true if it was the last of its period.
    pub(crate) fn advance(&mut self) -> bool {
        self.schedule.advance()
    }

    /// Samples the layers of the period that begins. `observed` has the mean of what the policy
    /// observes, for each layer that trained in the previous period.
    ///
    /// If the policy returns invalid layers, those of the previous period stay active.
    pub(crate) fn next(&mut self, observed: &BTreeMap<usize, f32>) -> Result<(), LisaError> {
        if let Some(observation) = self.observation() {
            let over = self.period() - 1;
            self.scores.close(over, &self.active);
            for (&layer, &mean) in observed {
                if mean.is_finite() {
                    self.scores.observe(layer, mean, observation.decay);
                } else {
                    log::warn!(
                        "period {over}: the gradient of layer {layer} was not finite; its score is \
                         unchanged"
                    );
                }
            }
        }
        self.draw()
    }

    /// The layers of this period, ascending.
    pub(crate) fn active(&self) -> &[usize] {
        &self.active
    }

    /// Whether this layer trains in this period; `None`: the parameters outside the layers.
    ///
    /// After an invalid draw, the layers of the previous period stay active. If there are none, the
    /// parameters outside the layers train.
    pub(crate) fn is_active(&self, layer: Option<usize>) -> bool {
        match layer {
            Some(layer) => self.active.binary_search(&layer).is_ok(),
            None => self.outer_trains(self.period()) || self.active.is_empty(),
        }
    }

    /// Whether the parameters outside the layers train in a period.
    fn outer_trains(&self, period: u64) -> bool {
        let every = self.sampling.outer_every;
        every > 0 && period.is_multiple_of(every)
    }

    /// The factor of the learning rate of a layer in the next step; `None`: of the parameters outside
    /// the layers. It is below 1 in the warm-up of what was frozen in the previous period.
    pub(crate) fn warmup(&self, layer: Option<usize>) -> f64 {
        let (step, steps) = (self.schedule.step_of_period() + 1, self.sampling.warmup);
        if self.was_active.is_empty() || step >= steps {
            return 1.0;
        }
        let was_active = match layer {
            Some(layer) => self.was_active[layer],
            None => self.outer_trains(self.period() - 1),
        };
        if was_active {
            1.0
        } else {
            step as f64 / steps as f64
        }
    }

    /// By layer: the probability that its gradient is divided by; `None` if gradients are not
    /// divided.
    pub(crate) fn inclusion(&self) -> Option<&[f64]> {
        (!self.inclusion.is_empty()).then_some(&self.inclusion)
    }

    /// Optimizer steps taken.
    pub(crate) fn steps(&self) -> u64 {
        self.schedule.step()
    }

    /// The period of the next step, counted from 0.
    pub(crate) fn period(&self) -> u64 {
        self.schedule.period()
    }

    /// The scores and the sizes of the layers.
    pub(crate) fn scores(&self) -> &Scores {
        &self.scores
    }

    /// The statistic of the gradients that the policy needs.
    pub(crate) fn observation(&self) -> Option<Observation> {
        self.sampling.policy.observes()
    }

    /// The policy.
    pub(crate) fn policy(&self) -> &dyn SamplingPolicy {
        &*self.sampling.policy
    }

    /// The paths of the layers of this period.
    pub(crate) fn active_paths(&self) -> String {
        let path = |&layer: &usize| self.sampling.layers[layer].0.as_str();
        let paths: Vec<&str> = self.active.iter().map(path).collect();
        paths.join(", ")
    }

    /// What the policy refuses of this run.
    fn check(&self) -> Result<(), LisaError> {
        let always = self.sampling.outer_every == 1;
        self.policy()
            .validate(&self.next_draw().with_allow_empty(always))
    }

    /// Samples the layers of this period. If they are invalid, it returns the reason and changes
    /// nothing.
    fn draw(&mut self) -> Result<(), LisaError> {
        let draw = self.next_draw();
        let active = self.valid(self.policy().draw(&draw))?;
        self.inclusion = self.inclusion_in(&draw)?;
        self.was_active = self.previously_active();
        self.active = active;
        Ok(())
    }

    /// By layer: whether it was active in the previous period. It follows from the period and the
    /// scores, so a resumed run has the same. Empty if no layer has a warm-up.
    fn previously_active(&self) -> Vec<bool> {
        let (layers, period) = (self.sampling.layers.len(), self.period());
        let Some(previous) = period.checked_sub(1).filter(|_| self.sampling.warmup > 1) else {
            return Vec::new();
        };
        if self.observation().is_some() {
            let scores = self.scores.iter();
            return scores.map(|s| s.last_drawn == Some(previous)).collect();
        }
        let drawn = self.policy().draw(&self.draw_of(previous));
        (0..layers).map(|layer| drawn.contains(&layer)).collect()
    }

    /// The input of the policy for this period.
    fn next_draw(&self) -> Draw {
        self.draw_of(self.period())
    }

    fn draw_of(&self, period: u64) -> Draw {
        let sampling = &self.sampling;
        let layers = sampling.layers.len();
        let can_train = sampling.layers.iter().filter(|(_, size)| *size > 0).count();
        let active_layers = sampling.active_layers.min(can_train);
        Draw::new(sampling.seed, period, layers, active_layers)
            .with_allow_empty(self.outer_trains(period))
            .with_scores(self.scores.clone())
    }

    /// The sampled layers in order, without duplicates; or the reason why they are invalid.
    fn valid(&self, mut layers: Vec<usize>) -> Result<Vec<usize>, LisaError> {
        let all = self.sampling.layers.len();
        if let Some(layer) = layers.iter().find(|&&layer| layer >= all) {
            let what = format!("drew layer {layer} of {all}, counted from 0,");
            return Err(self.invalid(&what).with_help("correct the policy"));
        }
        layers.sort_unstable();
        layers.dedup();
        let can_train = |&layer: &usize| self.sampling.layers[layer].1 > 0;
        if !layers.iter().any(can_train) && !self.outer_trains(self.period()) {
            return Err(self
                .invalid("drew no layer that can train, and nothing outside the layers trains,")
                .with_help("draw a layer where Draw::allow_empty is false"));
        }
        Ok(layers)
    }

    /// By layer: the probability of being sampled, if gradients are divided by it.
    fn inclusion_in(&self, draw: &Draw) -> Result<Vec<f64>, LisaError> {
        if !self.sampling.unbiased {
            return Ok(Vec::new());
        }
        let instead = "use uniform, bernoulli or weighted, or set unbiased to false";
        let Some(p) = self.policy().inclusion(draw) else {
            let what = "does not know how probable each layer was, and unbiased gradients are \
                        divided by that,";
            return Err(self.invalid(what).with_help(instead));
        };
        if p.len() != draw.layers {
            let (given, layers) = (p.len(), draw.layers);
            let what = format!("gave {given} inclusion probabilities for {layers} layers");
            return Err(self.invalid(&what).with_help("correct the policy"));
        }
        let layers = p.iter().zip(&self.sampling.layers);
        // A layer in which nothing may train is left out of no mean.
        let impossible =
            |(&p, (_, size)): (&f64, &(String, u64))| *size > 0 && !(p > 0.0 && p <= 1.0);
        if let Some(layer) = layers.into_iter().position(impossible) {
            let (path, p) = (&self.sampling.layers[layer].0, p[layer]);
            let what = format!(
                "draws `{path}` with probability {p}, so unbiased gradients have no mean for it,"
            );
            let help = format!("{instead}; every layer needs a probability above 0");
            return Err(self.invalid(&what).with_help(help));
        }
        Ok(p)
    }

    fn invalid(&self, what: &str) -> LisaError {
        let (name, period) = (self.policy().name(), self.period());
        LisaError::new(
            ErrorKind::Policy,
            format!("the policy `{name}` {what} in period {period}"),
        )
    }
}

/// What the policy of this configuration refuses, for a configuration without a run.
pub(crate) fn check(sampling: Sampling) -> Result<(), LisaError> {
    let sampler = Sampler::undrawn(sampling);
    sampler.check()?;
    sampler.inclusion_in(&sampler.next_draw()).map(|_| ())
}

#[cfg(test)]
mod tests;
