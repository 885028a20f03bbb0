//! Records: everything that a run needs to resume exactly, in one file.
//!
//! A record is a burnpack file. It has the optimizer's state as Burn records it, and one metadata
//! entry with the step, the active layers, the scores and the settings of the run. Parameters are
//! matched by path, so the model may have other `ParamId`s. Tests: `lisa/tests.rs`.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;

use burn::module::{Module, ParamId};
use burn_pack::{Reader, Writer};

use super::Lisa;
use crate::layers::Parameter;
use crate::optimizer::Leaves;
use crate::period::PeriodSums;
use crate::saved::{self, ScoreState};
use crate::{ErrorKind, LisaError};
use check::States;
use run::{FORMAT, Run};

mod check;
mod run;

#[cfg(test)]
pub(crate) use check::sizes as check_sizes;

/// The metadata entry of the run. The entries of the optimizer map a parameter's id to its path.
const KEY: &str = "lisa";

impl Lisa {
    /// Saves the step, the active layers, the scores and the optimizer state, with master weights,
    /// to one file. The weights of the model are not in it.
    ///
    /// The write is atomic: a temporary file in the same folder is written, synced and renamed.
    /// Cost: a copy of the optimizer state in host memory, and the file on the disk.
    ///
    /// # Errors
    ///
    /// The operating system refuses a file operation, or the state is larger than what Burn reads
    /// (100 GiB, 10 GiB in a tensor, 100,000 tensors); the message has the path. An existing file is
    /// then unchanged.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), LisaError> {
        let path = path.as_ref();
        let run = serde_json::to_string(&self.run()).map_err(not_saved(path))?;
        let bytes = self
            .optimizer
            .to_record()
            .into_bytes()
            .map_err(not_saved(path))?;
        let reader = Reader::from_bytes(bytes).map_err(not_saved(path))?;
        let (scalars, metadata) = (reader.scalars().clone(), reader.metadata().clone());
        let tensors = reader.into_tensors().map_err(not_saved(path))?;
        check::readable(&tensors).map_err(|found| {
            let message = format!("cannot save the record to `{}`: {found}", path.display());
            LisaError::new(ErrorKind::Record, message)
        })?;
        let mut writer = Writer::new(tensors)
            .auto_extension(false)
            .with_metadata(KEY, &run);
        for (key, value) in &metadata {
            writer = writer.with_metadata(key, value);
        }
        for (key, value) in scalars {
            writer = writer.with_scalar(&key, value);
        }
        writer.write_to_file(path).map_err(not_saved(path))
    }

    /// Resumes from a record: restores the step, the active layers, the scores and the optimizer
    /// state, and applies the mask to `model`, which must have the weights of that step.
    ///
    /// The file may come from an untrusted source: state that does not fit the model is refused
    /// before it is used, and the memory used is bounded by the size of the file, with at most 64
    /// MiB of metadata. Cost: a copy of the optimizer state in host memory.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is not a regular file. Or the record is of another model, policy,
    /// seed, setting or optimizer; the message has the first difference. The run is then unchanged.
    pub fn load<M: Module>(&mut self, path: impl AsRef<Path>, model: M) -> Result<M, LisaError> {
        let path = path.as_ref();
        let failed = |source: String| {
            LisaError::new(
                ErrorKind::Record,
                format!("cannot read the record `{}`: {source}", path.display()),
            )
            .with_help(
                "resume from a record that a run with this model, optimizer and settings saved",
            )
        };
        let reader = check::open(path).map_err(failed)?;
        let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let metadata = reader.metadata().clone();
        let run = metadata
            .get(KEY)
            .ok_or_else(|| failed("it is not the record of a LISA run".into()))?;
        let run: Run = serde_json::from_str(run).map_err(|e| failed(e.to_string()))?;
        if let Some(difference) = run.difference(&self.run()) {
            let message = format!(
                "the record `{}` is of another run: {difference}",
                path.display()
            );
            return Err(LisaError::new(ErrorKind::Record, message)
                .with_help("resume with the same model and settings"));
        }
        let map = self.trainable.same(&self.config, &model)?;
        let ids: HashMap<&str, ParamId> = map
            .parameters()
            .iter()
            .map(|p| (p.path.as_str(), p.id))
            .collect();
        // Maps the record's ids to the ids of this model, by path.
        let new_id = metadata
            .iter()
            .filter_map(|(id, path)| Some((id.clone(), *ids.get(path.as_str())?)))
            .collect();
        if run.step > check::LARGEST_COUNT {
            return Err(failed(format!("its step is too large: {}", run.step)));
        }
        let units = run.scores.as_deref().unwrap_or_default();
        let sampler = self
            .sampler
            .at(run.step, run.active, &saved::scores(units))
            .map_err(|error| failed(format!("its active layers: {}", error.message())))?;
        let scalars = reader.scalars().clone().into_iter().collect();
        let tensors = reader.into_tensors().map_err(|e| failed(e.to_string()))?;
        check::sizes(&tensors, length).map_err(failed)?;
        let optimizer = Leaves::read(tensors, scalars, &new_id)
            .and_then(|leaves| {
                let states = States::of(&leaves, &map)?;
                let shapes = |parameter: &Parameter| self.optimizer.shapes(parameter);
                states.fit(&map, shapes, self.optimizer.get_ref())?;
                self.optimizer.with_state(leaves, &map)
            })
            .map_err(failed)?;
        let device = model.devices().into_iter().next();
        let device = device.unwrap_or_default().inner();
        let sums = if sampler.observation().is_some() {
            saved::sums(units, sampler.scores().len(), &device)
        } else {
            PeriodSums::default()
        };
        let mut next = Self {
            sampler,
            sums,
            optimizer,
            ..self.clone()
        };
        let pairs = self
            .trainable
            .map()
            .parameters()
            .iter()
            .zip(map.parameters());
        let renamed = pairs.map(|(old, new)| (old.id, new.id)).collect();
        next.full.rename(&renamed);
        next.bind(map);
        let model = next.apply(model);
        *self = next;
        Ok(model)
    }

    fn run(&self) -> Run {
        let (map, config) = (self.trainable.map(), &self.config);
        let parameters = map.parameters().iter().zip(self.trainable.may_train());
        let layers = map.layers().iter();
        Run {
            format: FORMAT,
            step: self.steps(),
            active: self.active_layers().to_vec(),
            seed: config.seed,
            policy: self.policy_name(),
            active_layers: config.active_layers,
            sampling_period: config.sampling_period,
            on_freeze: config.on_freeze,
            master_weights: config.master_weights,
            decay: config.decay,
            frozen_weights: config.frozen_weights,
            unbiased: config.unbiased,
            outer_every: config.outer_every_nth(),
            layer_warmup: config.layer_warmup.unwrap_or(1).max(1),
            scores: self.score_state().map(|state| state.read()),
            layers: layers.map(|layer| layer.path.clone()).collect(),
            parameters: parameters
                .map(|(p, &may_train)| (p.path.clone(), p.shape.clone(), may_train))
                .collect(),
        }
    }

    /// The scores to save; `None` if the policy does not observe gradients.
    pub(crate) fn score_state(&self) -> Option<ScoreState> {
        ScoreState::of(&self.sampler, &self.sums)
    }
}

/// The error of a record that cannot be saved to this path.
fn not_saved<E: Error + Send + Sync + 'static>(path: &Path) -> impl Fn(E) -> LisaError {
    let message = format!("cannot save the record to `{}`", path.display());
    move |error| LisaError::new(ErrorKind::Record, format!("{message}: {error}")).with_source(error)
}
