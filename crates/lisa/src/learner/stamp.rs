//! The wrapper's own tensor in a module's record: all that burn-train saves of a run beside weights
//! and moments.
//!
//! Words of 64 bits: format, step, seed, sampling period, active layers, and how many layers have
//! scores; then three words for each of these: its score, the period that it was last drawn in, and
//! what the period that runs has shown so far. Numbers are kept as their bits. The first format had
//! the first five words alone and still loads. Tests: `tests/learner.rs` of the workspace.

use burn::module::{Module, Param, ParamId};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Device, Int, Shape, Tensor, TensorData};

use crate::Lisa;
use crate::saved::SavedUnit;

/// The path of the tensor in a record.
pub(super) const STAMP: &str = "lisa";
/// Version of the tensor's layout.
const FORMAT: u64 = 2;
/// Words of the first version.
const FIRST: usize = 5;
/// Numbers of 16 bits in a word: an integer tensor may have no more than 32.
const LIMBS: usize = 4;
/// Marks a score that is there, above its 32 bits.
const SOME: u64 = 1 << 32;

/// The tensor of this run. It is made when somebody reads it: every walk of the module meets it,
/// and only a record may wait for the device.
pub(super) fn write(id: ParamId, lisa: &Lisa, device: &Device) -> Param<Tensor<1, Int>> {
    let config = lisa.config();
    let header = vec![
        FORMAT,
        lisa.steps(),
        config.seed,
        config.sampling_period as u64,
        config.active_layers as u64,
        scored(lisa) as u64,
    ];
    let scores = lisa.score_state();
    let make = move |device: &Device, _| {
        let mut words = header;
        for unit in scores.iter().flat_map(|scores| scores.read()) {
            words.extend([
                unit.score.map_or(0, |bits| SOME | u64::from(bits)),
                unit.last_drawn.map_or(0, |period| period + 1),
                u64::from(unit.steps) << 32 | u64::from(unit.sum),
            ]);
        }
        let limbs: Vec<i32> = words.into_iter().flat_map(limbs).collect();
        Tensor::from_data(TensorData::from(limbs.as_slice()), device)
    };
    let shape = Shape::new([length(lisa)]);
    Param::uninitialized(id, make, device.clone(), false, shape)
}

fn limbs(word: u64) -> [i32; LIMBS] {
    [0, 16, 32, 48].map(|shift| ((word >> shift) & 0xffff) as i32)
}

/// How many layers have scores.
fn scored(lisa: &Lisa) -> usize {
    lisa.score_state().map_or(0, |scores| scores.len())
}

/// How many numbers this run's tensor has.
fn length(lisa: &Lisa) -> usize {
    LIMBS * (FIRST + 1 + 3 * scored(lisa))
}

/// The words of a record's stamp.
pub(super) struct Stamp(Vec<u64>);

#[derive(Module, Debug)]
struct Probe {
    lisa: Param<Tensor<1, Int>>,
}

/// The stamp of a record; none where it is one of the bare module.
pub(super) fn find(
    lisa: &Lisa,
    record: &ModuleRecord,
    device: &Device,
) -> Result<Option<Stamp>, RecordError> {
    // A record tells the shape of what is in it by refusing another one.
    let probe = |length: usize| -> Result<Option<Stamp>, RecordError> {
        let zeros = Tensor::zeros([length], device);
        let probe = Probe {
            lisa: Param::initialized(ParamId::new(), zeros),
        };
        let fresh = probe.lisa.id;
        let record = record.clone().allow_partial(true).allow_unused(true);
        let found = probe.try_load_record(record)?;
        if found.lisa.id == fresh {
            return Ok(None);
        }
        let data = found.lisa.val().into_data();
        let limbs: Vec<u64> = data
            .iter::<i64>()
            .map(|limb| limb as u64 & 0xffff)
            .collect();
        let word = |limbs: &[u64]| limbs.iter().rev().fold(0, |word, limb| word << 16 | limb);
        Ok(Some(Stamp(limbs.chunks(LIMBS).map(word).collect())))
    };
    probe(length(lisa))
        .or_else(|error| probe(LIMBS * FIRST).map_err(|_| error))
        .map_err(|error| {
            RecordError::Validation(format!(
                "the record is of another LISA run: its `{STAMP}` has the scores of another number \
                 of layers, or of another policy; resume with the same settings ({error})"
            ))
        })
}

impl Stamp {
    /// Takes a run to the step of the stamp. Its scores go to `device`.
    pub(super) fn resume(&self, lisa: &mut Lisa, device: &Device) -> Result<(), RecordError> {
        let refuse = |message: String| Err(RecordError::Validation(message));
        let config = lisa.config();
        let &[format, step, seed, period, active, ..] = self.0.as_slice() else {
            return refuse(format!(
                "the record's `{STAMP}` has {} words, not {FIRST} or more",
                self.0.len()
            ));
        };
        let format = if format == 1 { FORMAT } else { format };
        for (what, there, here) in [
            ("format version", format, FORMAT),
            ("seed", seed, config.seed),
            ("sampling period", period, config.sampling_period as u64),
            (
                "number of active layers",
                active,
                config.active_layers as u64,
            ),
        ] {
            if there != here {
                return refuse(format!(
                    "the record is of another LISA run: its {what} is {there}, this run's is \
                     {here}; resume with the same settings"
                ));
            }
        }
        let units = self.0.get(FIRST + 1..).unwrap_or_default().chunks_exact(3);
        let units: Vec<SavedUnit> = units
            .map(|words| SavedUnit {
                score: (words[0] & SOME != 0).then_some(words[0] as u32),
                last_drawn: words[1].checked_sub(1),
                sum: words[2] as u32,
                steps: (words[2] >> 32) as u32,
            })
            .collect();
        lisa.resume(step, &units, device)
            .map_err(|error| RecordError::Validation(error.to_string()))
    }
}
