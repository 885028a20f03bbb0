//! The model and the tokens that every method starts from.

use anyhow::Result;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use lisa::policy::{Draw, SamplingPolicy, Uniform};
use lisa_lm::CausalLm;
use lisa_lm::model::{BatchTensors, Input};
use lisa_lm::text::IGNORED;

use crate::settings::Settings;

/// The model.
pub(crate) fn model(settings: &Settings, device: &Device) -> Result<CausalLm> {
    device.seed(settings.seed);
    let model = settings.config()?.init(device)?;
    // Parameter by parameter: each is initialized and cast before the next one exists.
    Ok(model.cast(settings.dtype.into()))
}

/// The tokens of all steps, in a chain that can be learned: 15 of 16 tokens follow from the one
/// before, the others are random.
pub(crate) fn tokens(settings: &Settings) -> Result<Vec<u32>> {
    let vocabulary = settings.config()?.vocab_size().min(512) as u64;
    let mut state = settings.seed;
    // SplitMix64.
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut token = next() % vocabulary;
    let tokens = (0..settings.steps * settings.batch * settings.sequence).map(|_| {
        let draw = next();
        token = if draw.is_multiple_of(16) {
            (draw >> 32) % vocabulary
        } else {
            (31 * token + 7) % vocabulary
        };
        token as u32
    });
    Ok(tokens.collect())
}

/// The batch of a step; the last token of a row, and padding, have no target.
pub(crate) fn batch(
    settings: &Settings,
    tokens: &[u32],
    step: usize,
    device: &Device,
) -> BatchTensors {
    let shape = [settings.batch, settings.sequence];
    let size = settings.batch * settings.sequence;
    let rows = &tokens[step * size..(step + 1) * size];
    let ints =
        |values: Vec<i64>| Tensor::<2, Int>::from_data(TensorData::new(values, shape), device);
    let texts = settings.sequence - settings.padding;
    let targets = rows.chunks(settings.sequence).flat_map(|row| {
        let targets = row[1..texts].iter().map(|t| i64::from(*t));
        targets.chain((texts..=settings.sequence).map(|_| IGNORED))
    });
    let padding = (settings.padding > 0).then(|| {
        let padded = (0..size).map(|at| at % settings.sequence >= texts);
        let padded = TensorData::new(padded.collect::<Vec<bool>>(), shape);
        Tensor::<2, Bool>::from_data(padded, device)
    });
    BatchTensors {
        input: Input {
            padding,
            ..Input::new(ints(rows.iter().map(|t| i64::from(*t)).collect()))
        },
        targets: ints(targets.collect()),
        weights: None,
    }
}

/// The active layers of each period of a run: known before it starts.
pub(crate) fn draws(settings: &Settings, layers: usize) -> Vec<Vec<usize>> {
    let periods = settings.steps.div_ceil(settings.period) as u64;
    let draw = |period| Draw::new(settings.seed, period, layers, settings.active_layers);
    (0..periods)
        .map(|period| Uniform.draw(&draw(period)))
        .collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;

    use super::*;
    use crate::preset::{Dtype, Preset};

    #[test]
    fn a_model_in_half_precision_is_made_of_leaves_that_train() {
        let settings = Settings {
            preset: Preset::Tiny,
            dtype: Dtype::Bf16,
            ..Settings::default()
        };
        let model = model(&settings, &Device::flex().autodiff()).unwrap();
        let map = lisa::LayerMap::find(&model).unwrap();
        let bf16 = |p: &lisa::layers::Parameter| p.trainable && p.dtype == DType::BF16;
        assert!(map.parameters().iter().all(bf16));
    }

    #[test]
    fn batches_follow_each_other_in_the_tokens() {
        let settings = Settings {
            sequence: 4,
            batch: 2,
            ..Settings::default()
        };
        let (tokens, device) = (tokens(&settings).unwrap(), Device::flex());
        assert_eq!(tokens.len(), 12 * 8);
        let batch = batch(&settings, &tokens, 1, &device);
        let found: Vec<i64> = batch.input.tokens.into_data().iter().collect();
        assert!(
            found
                .iter()
                .zip(&tokens[8..])
                .all(|(a, b)| *a == i64::from(*b))
        );
        let targets: Vec<i64> = batch.targets.into_data().iter().collect();
        assert_eq!(
            (targets[0], targets[3], targets[7]),
            (found[1], IGNORED, IGNORED)
        );
    }
}
