//! Records: everything that a run needs to resume exactly, in one file.
//!
//! A record is a burnpack file. It has the optimizer's state as Burn records it, and one metadata
//! entry with the step, the active layers, the scores and the settings of the run. Parameters are
//! matched by path, so the model may have other `ParamId`s. Tests: `lisa/tests.rs`.

use std::collections::HashMap;
use std::path::Path;

use burn::module::{Module, ParamId};
use burn::tensor::Device;
use burn_pack::{Reader, Writer};

use super::Lisa;
use crate::layers::Parameter;
use crate::optimizer::Leaves;
use crate::period::PeriodSums;
use crate::saved::{self, LARGEST_COUNT, ScoreState};
use crate::{ErrorKind, FrozenWeights, LayerMap, LisaError};
use cause::Cause;
use check::States;
use run::{FORMAT, Run};

mod cause;
mod run;
mod check;

#[cfg(test)]
pub(crate) use check::sizes as check_sizes;

/// The metadata entry of the run. The entries of the optimizer map a parameter's id to its path.
const KEY: &str = "lisa";

impl Lisa {
    /// Saves the step, the active layers, the scores and the optimizer state, with master weights,
    /// to one file. The weights of the model are not in it.
    ///
    /// The write is atomic: a temporary file in the same folder is written, synced and renamed.
    /// Cost: the state of one parameter at a time in host memory, and the file on the disk.
    ///
    /// # Errors
    ///
    /// The operating system refuses a file operation (kind [`Io`](ErrorKind::Io)). Or the state is
    /// larger than what Burn reads: 100 GiB, 10 GiB in a tensor, 100,000 tensors. Or this is the `Lisa` of
    /// a `LisaModule`: the learner has the optimizer state. The message has the path. An existing file is
    /// then unchanged.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), LisaError> {
        let path = path.as_ref();
        let written = self.packed().and_then(|packed| {
            let writer = packed.auto_extension(false);
            writer.write_to_file(path).map_err(Cause::from)
        });
        written.map_err(|cause| {
            let error = cause.error(format!("cannot save the record to `{}`", path.display()));
            if self.optimizer.is_lent() {
                error.with_help("save the records of the `LisaModule` and of its `ModuleOptimizer`")
            } else {
                error
            }
        })
    }

    /// The record as a file.
    fn packed(&self) -> Result<Writer, Cause> {
        if self.optimizer.is_lent() {
            return Err(
                "the optimizer and its state are in the learner, not in this `Lisa`".into(),
            );
        }
        let run = serde_json::to_string(&self.run())?;
        let (reader, tensors) = self.optimizer.deferred()?;
        check::readable(&tensors)?;
        let mut writer = Writer::new(tensors).with_metadata(KEY, &run);
        for (key, value) in reader.metadata() {
            writer = writer.with_metadata(key, value);
        }
        for (key, value) in reader.scalars() {
            writer = writer.with_scalar(key, *value);
        }
        Ok(writer)
    }

    /// Resumes from a record: restores the step, the active layers, the scores and the optimizer
    /// state, and applies the mask to `model`, which must have the weights of that step.
    ///
    /// If frozen layers are quantized, load weights that [`save_weights`](Self::save_weights) wrote.
    ///
    /// The file may come from an untrusted source: state that does not fit the model is refused
    /// before it is used, and the memory used is bounded by the size of the file, with at most 64
    /// MiB of metadata. Cost: a copy of the optimizer state in host memory. State that this run has
    /// already is freed only after the new state is loaded. Burn loads state on `Device::default()`, and
    /// the next step of a parameter moves its state to the device of the model; where these are two
    /// devices, the default one needs memory for the state until then.
    ///
    /// # Errors
    ///
    /// The operating system refuses to read the file (kind [`Io`](ErrorKind::Io)), or it is not a
    /// regular file. Or the record is of another model, policy, seed, setting or optimizer; the
    /// message has the first difference. Or layers of `model` are quantized, and this run does
    /// not have their full-precision weights of that step: it keeps those that
    /// [`init`](crate::LisaConfig::init) was given, and after a step, those of its own step. Of layers
    /// that `Module::fork` has dequantized, only those that have not trained since are noticed. Or
    /// frozen layers are quantized, and `model` has another dtype, as after `Module::fork` in half
    /// precision. After an error the run is unchanged, and the model is not given back: clone it
    /// first if you need it then.
    pub fn load<M: Module>(&mut self, path: impl AsRef<Path>, model: M) -> Result<M, LisaError> {
        let path = path.as_ref();
        let unread = |cause: Cause| {
            let error = cause.error(format!("cannot read the record `{}`", path.display()));
            error.with_help(
                "resume from a record that a run with this model, optimizer and settings saved",
            )
        };
        let record = Record::open(path).map_err(unread)?;
        let mut run = self.run();
        if self.config.policy.ignores_active_layers() {
            run.active_layers = record.run.active_layers;
        }
        if let Some(difference) = record.run.difference(&run) {
            let message = format!(
                "the record `{}` is of another run: {difference}",
                path.display()
            );
            return Err(LisaError::new(ErrorKind::Record, message)
                .with_help("resume with the same model and settings"));
        }
        let map = self.trainable.same(&self.config, &model)?;
        self.full.check_quantized(self.trainable.map(), &map)?;
        // Of half-precision layers that Burn has dequantized, to f32, the map has the wrong dtype.
        if self.config.frozen_weights != FrozenWeights::Exact {
            self.trainable.check_dtypes(&map)?;
        }
        // Before the first step, the weights that are kept are those that `init` was given.
        if self.steps() > 0 && self.steps() != record.run.step {
            let why = format!(
                "the full-precision weights that it keeps are those of its step {}, not of the \
                 step of the record",
                self.steps()
            );
            let help = "load the record with the full-precision weights of its step: those that \
                        `Lisa::save_weights` wrote or `Lisa::exact` returned";
            let own = self.trainable.map();
            self.full.check_exact(&model, own, (&why, help))?;
        }
        let device = model.devices().into_iter().next();
        let device = device.unwrap_or_default().inner();
        let mut next = self.resumed(record, &map, &device).map_err(unread)?;
        next.full.retain(&map);
        next.bind(map);
        let model = next.apply(model);
        *self = next;
        Ok(model)
    }

    /// This run at the step of a record, with the optimizer state of the parameters in `map`.
    fn resumed(&self, record: Record, map: &LayerMap, device: &Device) -> Result<Self, Cause> {
        let Record {
            reader,
            length,
            run,
        } = record;
        if run.step > LARGEST_COUNT {
            return Err(format!("its step is too large: {}", run.step).into());
        }
        let units = run.scores.as_deref().unwrap_or_default();
        let sampler = self
            .sampler
            .at(run.step, run.active, &saved::scores(units))
            .map_err(|error| format!("its active layers: {}", error.message()))?;
        let sums = if sampler.observation().is_some() {
            saved::sums(units, sampler.scores().len(), device)
        } else {
            PeriodSums::default()
        };
        let leaves = leaves(reader, length, map)?;
        let shapes = |parameter: &Parameter| self.optimizer.shapes(parameter);
        States::of(&leaves, map)?.fit(map, shapes, self.optimizer.get_ref())?;
        let optimizer = self.optimizer.with_state(leaves, map)?;
        Ok(Self {
            sampler,
            sums,
            optimizer,
            ..self.clone()
        })
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

/// A record that was opened; its state is not read yet.
struct Record {
    reader: Reader,
    /// Bytes of the file.
    length: u64,
    run: Run,
}

impl Record {
    fn open(path: &Path) -> Result<Self, Cause> {
        let (reader, length) = check::open(path)?;
        let run = reader.metadata().get(KEY);
        let run = Run::parse(run.ok_or("it is not the record of a LISA run")?)?;
        Ok(Self {
            reader,
            length,
            run,
        })
    }
}

/// The optimizer state in a record, assigned to the parameters of `map` by their paths.
fn leaves(reader: Reader, length: u64, map: &LayerMap) -> Result<Leaves, Cause> {
    let parameters = map.parameters().iter();
    let ids: HashMap<&str, ParamId> = parameters.map(|p| (p.path.as_str(), p.id)).collect();
    let paths = reader.metadata().iter();
    let new_id = paths
        .filter_map(|(id, path)| Some((id.clone(), *ids.get(path.as_str())?)))
        .collect();
    let scalars = reader.scalars().clone().into_iter().collect();
    let tensors = reader.into_tensors()?;
    check::sizes(&tensors, length)?;
    Ok(Leaves::read(tensors, scalars, &new_id)?)
}
