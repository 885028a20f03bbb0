//! The stamp: a tensor in a module's record that stores the state of a run. Without it, burn-train
//! saves only weights and optimizer state.
//!
//! It is a sequence of 64-bit words: format, step, seed, sampling period, `layer_warmup`, active layers,
//! `outer_every`, a checksum of the other settings, and the number of layers with scores. Three words follow for each of these layers: its
//! score, the last period in which it was active, and the sum and count of its observations in this
//! period. Floats are saved as their bits.

use std::iter;

use burn::module::{Module, Param, ParamId};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Device, Int, Shape, Tensor, TensorData};
use burn_pack::Reader;

use crate::Lisa;
use crate::saved::{LARGEST_COUNT, SavedUnit, ScoreState};

/// The path of the tensor in a record.
pub(super) const STAMP: &str = "lisa";
/// The version of the layout.
const FORMAT: u64 = 3;
/// Words before those of the layers.
const HEADER: usize = 9;
/// Integers in a word. Each stores 16 bits, because a backend's integers may have only 32 bits.
const LIMBS: usize = 4;
/// The bit above the 32 bits of a score. It is set if the layer has a score.
const SOME: u64 = 1 << 32;

/// The stamp of a run. Its values are computed when they are read: every visit of the module visits
/// this tensor, but only a record should wait for the device.
pub(super) fn tensor(id: ParamId, lisa: &Lisa, device: &Device) -> Param<Tensor<1, Int>> {
    let [seed, period, warmup, active, outer, others] = settings(lisa).map(|(_, value)| value);
    let count = layers_scored(lisa) as u64;
    let header: [u64; HEADER] = [
        FORMAT,
        lisa.steps(),
        seed,
        period,
        warmup,
        active,
        outer,
        others,
        count,
    ];
    let scores = lisa.score_state();
    let make = move |device: &Device, _| {
        let mut words = header.to_vec();
        for unit in scores.iter().flat_map(ScoreState::read) {
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

fn word(limbs: &[u64]) -> u64 {
    limbs.iter().rev().fold(0, |word, limb| word << 16 | limb)
}

/// The setting that some policies ignore.
const ACTIVE_LAYERS: &str = "number of active layers";

/// The settings that a resumed run must have in common with its record; the number of active layers only
/// if its policy uses it.
fn settings(lisa: &Lisa) -> [(&'static str, u64); 6] {
    let config = lisa.config();
    [
        ("seed", config.seed),
        ("sampling period", config.sampling_period as u64),
        (
            "layer_warmup",
            config.layer_warmup.unwrap_or(1).max(1) as u64,
        ),
        (ACTIVE_LAYERS, config.active_layers as u64),
        ("outer_every", config.outer_every_nth() as u64),
        (
            "checksum of layers, policy, frozen parameters, unbiased, on_freeze, master_weights and decay",
            others(lisa),
        ),
    ]
}

/// A checksum (FNV-1a) of settings that are not numbers.
fn others(lisa: &Lisa) -> u64 {
    let config = lisa.config();
    let text = format!(
        "{:?} {} {:?} {} {:?} {} {:?}",
        lisa.layers()
            .layers()
            .iter()
            .map(|layer| &layer.path)
            .collect::<Vec<_>>(),
        lisa.policy_name(),
        lisa.may_train(),
        config.unbiased,
        config.on_freeze,
        config.master_weights,
        config.decay,
    );
    let add = |sum: u64, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, add)
}

/// The number of layers with scores.
fn layers_scored(lisa: &Lisa) -> usize {
    lisa.score_state().map_or(0, |scores| scores.len())
}

/// The number of integers in the stamp of this run.
fn length(lisa: &Lisa) -> usize {
    LIMBS * (HEADER + 3 * layers_scored(lisa))
}

/// The words of a stamp that was read from a record.
pub(super) struct Stamp(Vec<u64>);

/// The stamp of a record; `None` if the record is of the wrapped model, without a stamp.
pub(super) fn find(
    lisa: &Lisa,
    record: &ModuleRecord,
    device: &Device,
) -> Result<Option<Stamp>, RecordError> {
    // Burn does not return the shape of a tensor in a record. It only refuses another shape.
    read(record, length(lisa), device).map_err(|error| {
        let message = match format_of(record) {
            Some(format) if format != FORMAT => other_run("format version", format, FORMAT),
            _ => format!(
                "the record is of another LISA run: its `{STAMP}` has the scores of another number of \
                 layers, or of another policy; resume with the same settings ({error})"
            ),
        };
        RecordError::Validation(message)
    })
}

/// The format of a stamp of any length. Cost: a copy of the record in host memory.
fn format_of(record: &ModuleRecord) -> Option<u64> {
    let bytes = record.clone().into_bytes().ok()?;
    let tensors = Reader::from_bytes(bytes).ok()?.into_tensors().ok()?;
    let stamp = tensors.into_iter().find(|tensor| tensor.name == STAMP)?;
    let (_, dtype, shape, _, bytes) = stamp.into_parts().ok()?;
    let data = TensorData::try_from_bytes(bytes, shape, dtype).ok()?;
    words(&data).first().copied()
}

fn other_run(what: &str, found: u64, expected: u64) -> String {
    format!(
        "the record is of another LISA run: its {what} is {found}, this run's is {expected}; resume \
         with the same settings"
    )
}

/// Reads a stamp of `length` integers.
fn read(
    record: &ModuleRecord,
    length: usize,
    device: &Device,
) -> Result<Option<Stamp>, RecordError> {
    #[derive(Module, Debug)]
    struct Probe {
        lisa: Param<Tensor<1, Int>>,
    }
    let probe = Probe {
        lisa: Param::initialized(ParamId::new(), Tensor::zeros([length], device)),
    };
    let unread = probe.lisa.id;
    let record = record.clone().allow_partial(true).allow_unused(true);
    let found = probe.try_load_record(record)?;
    if found.lisa.id == unread {
        return Ok(None);
    }
    Ok(Some(Stamp(words(&found.lisa.val().into_data()))))
}

fn words(data: &TensorData) -> Vec<u64> {
    let limbs = data.iter::<i64>().map(|limb| limb as u64 & 0xffff);
    let limbs: Vec<u64> = limbs.collect();
    limbs.chunks(LIMBS).map(word).collect()
}

impl Stamp {
    /// Sets a run to the step of the stamp. The sums of this period are put on `device`.
    pub(super) fn resume(&self, lisa: &mut Lisa, device: &Device) -> Result<(), RecordError> {
        let refuse = |message: String| Err(RecordError::Validation(message));
        let Some((&[format, step, ref found @ .., _], units)) =
            self.0.split_first_chunk::<HEADER>()
        else {
            return refuse(format!(
                "the record's `{STAMP}` has {} words instead of {HEADER} or more",
                self.0.len()
            ));
        };
        let own = settings(lisa).into_iter().zip(found);
        let own = own.map(|((what, expected), found)| (what, *found, expected));
        let ignores_active = lisa.config().policy.ignores_active_layers();
        for (what, found, expected) in iter::once(("format version", format, FORMAT)).chain(own) {
            if found != expected && !(ignores_active && what == ACTIVE_LAYERS) {
                return refuse(other_run(what, found, expected));
            }
        }
        if step > LARGEST_COUNT {
            return refuse(format!("the record's step is too large: {step}"));
        }
        let units = units.chunks_exact(3);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LisaConfig, PolicyConfig};
    use burn::nn::LinearConfig;
    use burn::optim::AdamWConfig;

    fn lisa() -> Lisa {
        lisa_of(&LisaConfig::new())
    }

    fn lisa_of(config: &LisaConfig) -> Lisa {
        let device = Device::flex().autodiff();
        let linear = |_| LinearConfig::new(2, 2).init(&device);
        let model: Vec<_> = (0..4).map(linear).collect();
        config.init(AdamWConfig::new(), model).unwrap().0
    }

    /// A record with a stamp of these words alone.
    fn record(words: &[u64]) -> ModuleRecord {
        #[derive(Module, Debug)]
        struct Stamped {
            lisa: Param<Tensor<1, Int>>,
        }
        let limbs: Vec<i32> = words.iter().copied().flat_map(limbs).collect();
        let data = TensorData::from(limbs.as_slice());
        let tensor = Tensor::from_data(data, &Device::flex());
        let lisa = Param::initialized(ParamId::new(), tensor);
        Stamped { lisa }.into_record()
    }

    /// The words of the stamp of a run.
    fn own(lisa: &Lisa) -> Vec<u64> {
        let stamp = tensor(ParamId::new(), lisa, &Device::flex());
        words(&stamp.val().into_data())
    }

    fn loaded(words: &[u64]) -> Result<u64, String> {
        loaded_into(lisa(), words)
    }

    fn loaded_into(mut lisa: Lisa, words: &[u64]) -> Result<u64, String> {
        let device = Device::flex();
        let stamp = find(&lisa, &record(words), &device).map_err(|e| e.to_string())?;
        let resumed = stamp.unwrap().resume(&mut lisa, &device);
        resumed.map_err(|e| e.to_string())?;
        Ok(lisa.steps())
    }

    #[test]
    fn a_step_that_no_run_reaches_is_refused() {
        let mut words = own(&lisa());
        words[1] = LARGEST_COUNT;
        assert_eq!(loaded(&words), Ok(LARGEST_COUNT));
        words[1] += 1;
        let error = loaded(&words).unwrap_err();
        assert!(error.contains("step is too large"), "{error}");
    }

    #[test]
    fn the_number_of_active_layers_is_that_of_the_record_unless_the_policy_ignores_it() {
        let with = |policy: &PolicyConfig, active| {
            let config = LisaConfig::new().with_policy(policy.clone());
            lisa_of(&config.with_active_layers(active))
        };
        let fixed = PolicyConfig::Fixed(vec![1]);
        let words = own(&with(&fixed, 2));
        assert_eq!(loaded_into(with(&fixed, 3), &words), Ok(0));
        let uniform = PolicyConfig::Uniform;
        let words = own(&with(&uniform, 2));
        let error = loaded_into(with(&uniform, 3), &words).unwrap_err();
        assert!(
            error.contains("its number of active layers is 2"),
            "{error}"
        );
    }

    #[test]
    fn a_stamp_of_another_version_is_refused_by_its_version() {
        let mut words = own(&lisa());
        words[0] = FORMAT + 1;
        let other = format!(
            "its format version is {}, this run's is {FORMAT}",
            FORMAT + 1
        );
        for length in [HEADER, HEADER + 1, 1] {
            words.resize(length, 0);
            let error = loaded(&words).unwrap_err();
            assert!(error.contains(&other), "{length}: {error}");
        }
        words[0] = FORMAT;
        let error = loaded(&words).unwrap_err();
        assert!(error.contains("another number of layers"), "{error}");
    }
}
