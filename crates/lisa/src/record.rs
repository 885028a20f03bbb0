//! Records: everything a run needs to go on exactly, in one file.
//!
//! A burnpack file: the optimizer's state (moments, master weights) as Burn records it, and one
//! metadata entry with the step, the draw, the scores and what the run was. Parameters are matched by path,
//! so the model may have been loaded anew and have other `ParamId`s. Tests: `lisa/tests.rs`.

use std::collections::HashMap;
use std::path::Path;

use burn::module::{Module, ParamId};
use burn::optim::OptimizerRecord;
use burn_pack::{Reader, Tensor, Writer};
use serde::{Deserialize, Serialize};

use crate::layers::Parameter;
use crate::lisa::{Held, SavedScores};
use crate::optimizer::StateBytes;
use crate::schedule::Schedule;
use crate::{ErrorKind, FrozenWeights, LayerMap, Lisa, LisaError, OnFreeze};
use check::States;

mod check;

#[cfg(test)]
pub(crate) use check::sizes as check_sizes;

/// The metadata entry of the run, beside the optimizer's entries (`ID` to path).
const KEY: &str = "lisa";
/// Version of the entry's layout.
const FORMAT: u32 = 1;

/// What the run was and how far it came.
#[derive(Debug, Serialize, Deserialize)]
struct Run {
    format: u32,
    step: u64,
    active: Vec<usize>,
    seed: u64,
    policy: String,
    active_layers: usize,
    sampling_period: usize,
    on_freeze: OnFreeze,
    master_weights: bool,
    #[serde(default)]
    frozen_weights: FrozenWeights,
    #[serde(default)]
    unbiased: bool,
    /// Of a policy that observes gradients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scores: Option<SavedScores>,
    layers: Vec<String>,
    parameters: Vec<(String, Vec<usize>, bool)>,
}

impl Lisa {
    /// Saves step, draw, scores, moments and master weights to one file, atomically: a temporary file in
    /// the same folder is written, synced and renamed. The model's weights are not in it; save
    /// them beside it.
    ///
    /// Cost: a copy of the moments in the host's memory, and one of them on the disk.
    ///
    /// # Errors
    ///
    /// What the operating system refused, with the path. A file that was there before is then
    /// still there.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), LisaError> {
        let path = path.as_ref();
        let failed = |source: String| {
            LisaError::new(
                ErrorKind::Record,
                format!("cannot save the record to `{}`: {source}", path.display()),
            )
        };
        let run = serde_json::to_string(&self.run()).map_err(|e| failed(e.to_string()))?;
        let bytes = self
            .optimizer
            .to_record()
            .into_bytes()
            .map_err(|e| failed(e.to_string()))?;
        let reader = Reader::from_bytes(bytes).map_err(|e| failed(e.to_string()))?;
        let (scalars, metadata) = (reader.scalars().clone(), reader.metadata().clone());
        let tensors = reader.into_tensors().map_err(|e| failed(e.to_string()))?;
        let mut writer = Writer::new(tensors)
            .auto_extension(false)
            .with_metadata(KEY, &run);
        for (key, value) in &metadata {
            writer = writer.with_metadata(key, value);
        }
        for (key, value) in scalars {
            writer = writer.with_scalar(&key, value);
        }
        writer
            .write_to_file(path)
            .map_err(|e| failed(e.to_string()))
    }

    /// Goes on where [`save`](Self::save) was called: restores step, draw, moments and master
    /// weights, and applies the mask to `model`, which must hold the weights of that moment.
    ///
    /// Cost: the state in the host's memory, and for a moment that of one parameter once more. A file
    /// from anywhere may be given: what it claims costs no more than some times its size, of which at
    /// most 64 MiB are metadata, and what does not fit the model is refused before it is used.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or is not a regular one; a record of another model, policy, seed,
    /// number of layers, setting or optimizer: the message names the first difference. The run is then
    /// as it was before.
    pub fn load<M: Module>(&mut self, path: impl AsRef<Path>, model: M) -> Result<M, LisaError> {
        let path = path.as_ref();
        let failed = |source: String| {
            LisaError::new(
                ErrorKind::Record,
                format!("cannot read the record `{}`: {source}", path.display()),
            )
        };
        let reader = check::open(path).map_err(failed)?;
        let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let metadata = reader.metadata().clone();
        let run = metadata
            .get(KEY)
            .ok_or_else(|| failed("it is no record of a LISA run".into()))?;
        let run: Run = serde_json::from_str(run).map_err(|e| failed(e.to_string()))?;
        self.compare(&run, path)?;

        let mut next = self.clone();
        next.bind(self.same_map(&model)?);
        let ids: HashMap<&str, ParamId> = next
            .map
            .parameters()
            .iter()
            .map(|p| (p.path.as_str(), p.id))
            .collect();
        // From the record's ids to those of this model, by path.
        let new_id: HashMap<&str, ParamId> = metadata
            .iter()
            .filter_map(|(id, path)| Some((id.as_str(), *ids.get(path.as_str())?)))
            .collect();
        let active = next.checked(run.active).map_err(failed)?;
        if run.step > check::LARGEST_COUNT {
            return Err(failed(format!("its step is {}", run.step)));
        }
        let mut states = States::default();
        let (record, held) = rename(reader, &new_id, &next.map, Some((length, &mut states)))
            .and_then(|(record, held)| {
                let shapes = |parameter: &Parameter| next.shapes(parameter);
                states.fit(&next.map, shapes, &next.optimizer)?;
                Ok((record, held))
            })
            .map_err(failed)?;
        next.optimizer = next.optimizer.load_record(record);
        next.schedule = Schedule::at(run.step, self.config.sampling_period);
        let device = model.devices().into_iter().next();
        let device = device.unwrap_or_default().inner();
        next.observed
            .restore(run.scores.as_deref().unwrap_or_default(), &device);
        next.inclusion = next
            .inclusion_in(&next.next_draw())
            .map_err(|message| failed(format!("`{}` {message}", next.policy.name())))?;
        next.active = active;
        next.held = held
            .into_iter()
            .map(|(id, bytes)| {
                (
                    id,
                    Held {
                        bytes,
                        on_host: false,
                    },
                )
            })
            .collect();
        let mut model = next.apply(model);
        model = next.settle(model, None);
        // What Offload had on the host was just read onto the device.
        if next.config.on_freeze == OnFreeze::Offload {
            model = next.release(model);
        }
        *self = next;
        Ok(model)
    }

    /// The optimizer's state under new ids, and what each parameter's weighs. Cost: a copy of the
    /// state in the host's memory.
    pub(crate) fn renamed(
        &self,
        new_id: &HashMap<ParamId, ParamId>,
        map: &LayerMap,
    ) -> Result<(OptimizerRecord, HashMap<ParamId, StateBytes>), LisaError> {
        let failed = |source: String| {
            let message = format!("cannot read the optimizer's state: {source}");
            LisaError::new(ErrorKind::Record, message)
        };
        let bytes = self.optimizer.to_record().into_bytes();
        let bytes = bytes.map_err(|e| failed(e.to_string()))?;
        let reader = Reader::from_bytes(bytes).map_err(|e| failed(e.to_string()))?;
        let names: Vec<(String, ParamId)> = new_id
            .iter()
            .map(|(old, new)| (old.val().to_string(), *new))
            .collect();
        let new_id = names
            .iter()
            .map(|(old, new)| (old.as_str(), *new))
            .collect();
        rename(reader, &new_id, map, None).map_err(failed)
    }

    fn run(&self) -> Run {
        let parameters = self.map.parameters().iter().zip(&self.may_train);
        Run {
            format: FORMAT,
            step: self.steps(),
            active: self.active.clone(),
            seed: self.config.seed,
            policy: self.policy.name(),
            active_layers: self.config.active_layers,
            sampling_period: self.config.sampling_period,
            on_freeze: self.config.on_freeze,
            master_weights: self.config.master_weights,
            frozen_weights: self.config.frozen_weights,
            unbiased: self.config.unbiased,
            scores: self.observed.saved(),
            layers: self
                .map
                .layers()
                .iter()
                .map(|layer| layer.path.clone())
                .collect(),
            parameters: parameters
                .map(|(p, &may_train)| (p.path.clone(), p.shape.clone(), may_train))
                .collect(),
        }
    }

    /// Refuses a record of another run and names the first difference.
    fn compare(&self, record: &Run, path: &Path) -> Result<(), LisaError> {
        let ours = self.run();
        let differ = |what: &str, there: String, here: String| {
            Err(LisaError::new(
                ErrorKind::Record,
                format!(
                    "the record `{}` is of another run: its {what} is {there}, this run's is \
                     {here}; resume with the same model and settings",
                    path.display()
                ),
            ))
        };
        macro_rules! same {
            ($($field:ident: $what:literal),* $(,)?) => {$(
                if record.$field != ours.$field {
                    return differ(
                        $what,
                        format!("{:?}", record.$field),
                        format!("{:?}", ours.$field),
                    );
                }
            )*};
        }
        same!(format: "format version");
        if record.layers.len() != ours.layers.len() {
            let (there, here) = (record.layers.len(), ours.layers.len());
            return differ("number of layers", there.to_string(), here.to_string());
        }
        let pairs = record.layers.iter().zip(&ours.layers);
        if let Some((there, here)) = pairs.into_iter().find(|(a, b)| a != b) {
            return differ("layer", format!("`{there}`"), format!("`{here}`"));
        }
        if record.parameters.len() != ours.parameters.len() {
            let (there, here) = (record.parameters.len(), ours.parameters.len());
            return differ("number of parameters", there.to_string(), here.to_string());
        }
        let pairs = record.parameters.iter().zip(&ours.parameters);
        if let Some((there, here)) = pairs.into_iter().find(|(a, b)| a != b) {
            let show = |p: &(String, Vec<usize>, bool)| {
                let trains = if p.2 { "trainable" } else { "frozen" };
                format!("`{}` of shape {:?}, {trains}", p.0, p.1)
            };
            return differ("parameter", show(there), show(here));
        }
        same!(
            policy: "policy",
            seed: "seed",
            active_layers: "number of active layers",
            sampling_period: "sampling period",
            on_freeze: "treatment of moments on freezing",
            master_weights: "use of master weights",
            frozen_weights: "treatment of frozen weights",
            unbiased: "use of unbiased gradients",
        );
        if let Some(scores) = &record.scores
            && scores.len() != ours.layers.len()
        {
            let (there, here) = (scores.len(), ours.layers.len());
            return differ("number of scores", there.to_string(), here.to_string());
        }
        if let Some(layer) = record
            .active
            .iter()
            .find(|&&layer| layer >= ours.layers.len())
        {
            return differ(
                "active layer",
                layer.to_string(),
                "below the number of layers".into(),
            );
        }
        Ok(())
    }
}

/// An optimizer's record with the parameters' ids changed, and what each one's state weighs. What a
/// file of some length holds is put into `states` to be looked at.
fn rename(
    reader: Reader,
    new_id: &HashMap<&str, ParamId>,
    map: &LayerMap,
    mut file: Option<(u64, &mut States)>,
) -> Result<(OptimizerRecord, HashMap<ParamId, StateBytes>), String> {
    let rename = |name: &str| -> Result<(ParamId, String), String> {
        name.split_once('.')
            .and_then(|(id, rest)| {
                let id = *new_id.get(id)?;
                Some((id, format!("{}.{rest}", id.val())))
            })
            .ok_or_else(|| format!("`{name}` belongs to no parameter of the model"))
    };
    let scalars = reader.scalars().clone();
    let mut held: HashMap<ParamId, StateBytes> = HashMap::new();
    let mut tensors = Vec::new();
    let all = reader.into_tensors().map_err(|e| e.to_string())?;
    if let Some((length, _)) = &file {
        check::sizes(&all, *length)?;
    }
    for tensor in all {
        let (name, dtype, shape, _, bytes) = tensor.into_parts().map_err(|e| e.to_string())?;
        let (id, name) = rename(&name)?;
        let size = held.entry(id).or_default();
        if name.ends_with(".master") {
            size.master += bytes.len() as u64;
        } else {
            size.moments += bytes.len() as u64;
        }
        let tensor = Tensor::new(name, dtype, shape, Some(id.val()), bytes);
        if let Some((_, states)) = &mut file {
            states.add_tensor(check::place(map, id)?, &tensor);
        }
        tensors.push(tensor);
    }
    let mut writer = Writer::new(tensors);
    for (name, value) in scalars {
        let (id, name) = rename(&name)?;
        held.entry(id).or_default();
        if let Some((_, states)) = &mut file {
            states.add_scalar(check::place(map, id)?, &name, value);
        }
        writer = writer.with_scalar(&name, value);
    }
    for parameter in map.parameters() {
        writer = writer.with_metadata(&parameter.id.val().to_string(), &parameter.path);
    }
    let bytes = writer.into_bytes().map_err(|e| e.to_string())?;
    let record = OptimizerRecord::from_bytes(bytes).map_err(|e| e.to_string())?;
    Ok((record, held))
}
