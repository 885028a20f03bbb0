//! Draws: what the policy is asked, and what becomes of its answer. Tests: `lisa/tests.rs`,
//! `lisa/tests/policies.rs`.

use burn::module::Module;

use super::Lisa;
use crate::policy::Draw;
use crate::{ErrorKind, LisaError, StepError};

impl Lisa {
    /// The first draw.
    pub(super) fn begin(&mut self) -> Result<(), LisaError> {
        self.policy.validate(&self.next_draw())?;
        self.draw().map_err(|message| {
            LisaError::new(
                ErrorKind::Policy,
                format!("`{}` {message} in the first period", self.policy.name()),
            )
        })
    }

    /// Draws the layers of the period that begins, applies the mask, releases what left. Where the
    /// draw is invalid, the layers of the previous period stay active.
    pub(super) fn redraw<M: Module>(&mut self, model: M) -> Result<M, StepError<M>> {
        self.observed.close(self.period() - 1, &self.active);
        let drawn = self.draw();
        let model = self.apply(model);
        let model = self.release(model);
        let model = self.settle(model, None);
        match drawn {
            Ok(()) => {
                self.log();
                Ok(model)
            }
            Err(message) => {
                let error = LisaError::new(
                    ErrorKind::Policy,
                    format!(
                        "the update of step {} was applied, and the layers of the previous period \
                         stay active: `{}` {message} in period {}",
                        self.steps(),
                        self.policy.name(),
                        self.period()
                    ),
                );
                Err(StepError::new(model, error, true))
            }
        }
    }

    /// Takes the draw of the period that begins; or says what is wrong with the policy's answer, and
    /// all is as before.
    pub(crate) fn draw(&mut self) -> Result<(), String> {
        let draw = self.next_draw();
        let active = self.checked(self.policy.draw(&draw))?;
        self.inclusion = self.inclusion_in(&draw)?;
        self.active = active;
        Ok(())
    }

    /// What the policy is given for the period that the run is in.
    pub(crate) fn next_draw(&self) -> Draw {
        let layers = self.map.layers().len();
        Draw::new(
            self.config.seed,
            self.period(),
            layers,
            self.config.active_layers,
        )
        .with_allow_empty(self.always_on().next().is_some())
        .with_scores(self.observed.scores().clone())
    }

    /// By layer: the probability of being in this draw, where gradients are to be divided by it.
    pub(crate) fn inclusion_in(&self, draw: &Draw) -> Result<Vec<f64>, String> {
        if !self.config.unbiased {
            return Ok(Vec::new());
        }
        let instead = "take uniform, bernoulli or weighted, or leave unbiased off";
        let Some(p) = self.policy.inclusion(draw) else {
            return Err(format!(
                "does not know how probable each layer was to be drawn, and unbiased gradients are \
                 divided by that; {instead}"
            ));
        };
        if p.len() != draw.layers {
            return Err(format!(
                "gives {} inclusion probabilities for {} layers",
                p.len(),
                draw.layers
            ));
        }
        let sizes = draw.scores.iter().map(|layer| layer.parameters);
        let mut layers = p.iter().zip(sizes);
        // One in which nothing may train is missing in no mean.
        if let Some(layer) = layers.position(|(&p, size)| size > 0 && !(p > 0.0 && p <= 1.0)) {
            return Err(format!(
                "draws `{}` with probability {}, so its gradient would be in no mean and unbiased \
                 cannot be; {instead}, with a probability above 0 for every layer",
                self.map.layers()[layer].path,
                p[layer]
            ));
        }
        Ok(p)
    }

    /// A policy's answer in order, or what is wrong with it.
    pub(crate) fn checked(&self, mut layers: Vec<usize>) -> Result<Vec<usize>, String> {
        let all = self.map.layers().len();
        if let Some(layer) = layers.iter().find(|&&layer| layer >= all) {
            return Err(format!("drew layer {layer} of {all}"));
        }
        layers.sort_unstable();
        layers.dedup();
        if layers.is_empty() && self.always_on().next().is_none() {
            return Err("drew no layer, and nothing outside the layers trains".into());
        }
        Ok(layers)
    }

    pub(super) fn log(&self) {
        let paths: Vec<&str> = self
            .active
            .iter()
            .map(|&l| self.map.layers()[l].path.as_str())
            .collect();
        log::info!(
            "step {}, period {}: training {}",
            self.steps(),
            self.period(),
            paths.join(", ")
        );
    }
}
