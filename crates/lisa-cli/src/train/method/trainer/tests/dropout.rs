//! The elements that dropout drops in a batch of LoRA.

use std::collections::BTreeSet;

use burn::module::Param;
use burn::tensor::{Device, Int, Tensor};
use lisa_lm::model::Input;
use lisa_lm::model::config::LlamaConfig;
use lisa_lm::text::Position;
use lisa_lm::{CausalLm, ModelConfig};

use crate::settings::{Flags, Method, Settings};
use crate::train::method::trainer::{dropping, prepared};

/// A model with an adapter that changes the logits: that of new ones is 0.
fn model(settings: &Settings) -> CausalLm {
    let model = ModelConfig::Llama(LlamaConfig::new(16, 8, 1, 2));
    let model = model.init(&Device::flex()).unwrap();
    let mut model = prepared(settings, model).unwrap();
    let adapter = &mut model.model.layers[0].mlp.up_proj.lora;
    let b = &mut adapter.as_mut().unwrap().b;
    let ones = Tensor::<2>::ones(b.dims(), &Device::flex());
    *b = Param::initialized(b.id, ones);
    model
}

/// The bits of the logits of eight tokens.
fn logits(model: &CausalLm) -> Vec<u32> {
    let tokens = Tensor::<2, Int>::from_data([[1, 2, 3, 4, 5, 6, 7, 8]], &Device::flex());
    let logits = model.forward(&Input::new(tokens)).into_data();
    logits.iter::<f32>().map(f32::to_bits).collect()
}

#[test]
fn dropout_depends_on_the_seed_and_on_the_place_of_the_batch() {
    let mut settings = Flags::default().resolve(None).unwrap();
    settings.method.method = Method::Lora;
    (settings.method.lora_rank, settings.method.lora_dropout) = (2, 0.5);
    let model = model(&settings);
    let dropped = |settings: &Settings, epoch: u64, index: usize, batch: usize| {
        let at = Position { epoch, index };
        logits(&dropping(settings, &model, at, batch))
    };
    // A batch of a step is at its own place, in whichever step it is.
    let second = dropped(&settings, 0, 1, 0);
    assert_eq!(dropped(&settings, 0, 1, 0), second);
    assert_eq!(dropped(&settings, 0, 0, 1), second);
    let mut other = settings.clone();
    other.training.seed += 1;
    let all = [
        logits(&model),
        dropped(&settings, 0, 0, 0),
        second,
        dropped(&settings, 0, 2, 0),
        dropped(&settings, 1, 0, 0),
        dropped(&settings, 1, 1, 0),
        dropped(&other, 0, 0, 0),
    ];
    assert_eq!(BTreeSet::from(all).len(), 7);
    // Without dropout and with another method nothing is dropped.
    settings.method.lora_dropout = 0.0;
    assert_eq!(dropped(&settings, 0, 0, 0), logits(&model));
    other.method.method = Method::Full;
    assert_eq!(dropped(&other, 0, 0, 0), logits(&model));
}
