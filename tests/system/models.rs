//! Other people's models: layers are found or named, and what is not drawn does not change.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::transformer::{
    TransformerDecoder, TransformerDecoderConfig, TransformerDecoderInput, TransformerEncoder,
    TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Embedding, EmbeddingConfig, Linear,
    LinearConfig, PaddingConfig2d,
};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Int, Tensor};
use lisa::{LayerMap, LisaConfig};

fn device() -> Device {
    Device::flex().autodiff()
}

fn weights<M: Module>(module: &M) -> BTreeMap<String, Vec<f32>> {
    struct Weights(Vec<String>, BTreeMap<String, Vec<f32>>);
    impl ModuleVisitor for Weights {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = param.val().into_data().iter::<f32>().collect();
            self.1.insert(self.0.join("."), values);
        }
    }
    let mut weights = Weights(Vec::new(), BTreeMap::new());
    module.visit(&mut weights);
    weights.1
}

/// Trains three periods of two steps; exactly what the mask holds may change in each, and every
/// active layer does.
fn check<M: Module>(
    config: &LisaConfig,
    model: M,
    layers: usize,
    loss: impl Fn(&M) -> Tensor<1>,
) -> M {
    let config = config.clone().with_sampling_period(2);
    let (mut lisa, mut model) = config.init(SgdConfig::new(), model).unwrap();
    assert_eq!(lisa.layers().layers().len(), layers, "{lisa}");
    for _ in 0..6 {
        let (mask, active) = (lisa.mask().clone(), lisa.active_layers().to_vec());
        let before = weights(&model);
        let grads = GradientsParams::from_grads(loss(&model).backward(), &model);
        model = lisa.step(0.1, model, grads);
        let after = weights(&model);
        let map = lisa.layers();
        for p in map
            .parameters()
            .iter()
            .filter(|p| p.trainable || !mask.contains(p.id))
        {
            let running = p.path.contains("running_");
            let same = before[&p.path] == after[&p.path];
            assert!(same || running || mask.contains(p.id), "{} changed", p.path);
        }
        for layer in active {
            let paths = map.layers()[layer]
                .parameters
                .iter()
                .map(|&i| &map.parameters()[i].path);
            let changed = paths.filter(|path| before[*path] != after[*path]).count();
            assert!(changed > 0, "layer {layer} did not change");
        }
    }
    model
}

#[derive(Module, Debug)]
struct Classifier {
    embedding: Embedding,
    transformer: TransformerEncoder,
    output: Linear,
}

#[test]
fn burns_transformer_encoder_classifier() {
    let device = device();
    let model = Classifier {
        embedding: EmbeddingConfig::new(11, 8).init(&device),
        transformer: TransformerEncoderConfig::new(8, 16, 2, 4).init(&device),
        output: LinearConfig::new(8, 3).init(&device),
    };
    check(&LisaConfig::new(), model, 4, |model| {
        let tokens = Tensor::<2, Int>::from_data([[1, 2, 3, 4], [5, 6, 7, 8]], &Device::flex());
        let tokens = Tensor::from_data(tokens.into_data(), &model.embedding.weight.val().device());
        let h = model.embedding.forward(tokens);
        let h = model.transformer.forward(TransformerEncoderInput::new(h));
        model.output.forward(h.narrow(1, 0, 1)).square().mean()
    });
}

#[derive(Module, Debug)]
struct Translator {
    encoder: TransformerEncoder,
    decoder: TransformerDecoder,
}

#[test]
fn an_encoder_decoder_is_ambiguous_until_both_stacks_are_named() {
    let device = device();
    let model = Translator {
        encoder: TransformerEncoderConfig::new(8, 16, 2, 3).init(&device),
        decoder: TransformerDecoderConfig::new(8, 16, 2, 3).init(&device),
    };
    let error = LayerMap::find(&model).unwrap_err().to_string();
    for part in [
        "ambiguous",
        "`encoder.layers` (3 layers",
        "`decoder.layers` (3 layers",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let stacks = vec!["encoder.layers".into(), "decoder.layers".into()];
    let config = LisaConfig::new().with_layers(stacks).with_active_layers(3);
    check(&config, model, 6, |model| {
        let x = Tensor::<3>::ones([1, 4, 8], &model.devices()[0]).cumsum(2);
        let memory = model
            .encoder
            .forward(TransformerEncoderInput::new(x.clone()));
        let out = model
            .decoder
            .forward(TransformerDecoderInput::new(x, memory));
        out.slice([0..1, 0..4, 0..3]).square().mean()
    });
}

#[derive(Module, Debug)]
struct Block {
    conv: Conv2d,
    norm: BatchNorm,
    dropout: Dropout,
}

#[derive(Module, Debug)]
struct ConvNet {
    blocks: Vec<Block>,
    output: Linear,
}

impl ConvNet {
    fn features(&self) -> Tensor<4> {
        let mut x = Tensor::<4>::ones([2, 3, 4, 4], &self.devices()[0]).cumsum(3);
        for block in &self.blocks {
            x = block
                .dropout
                .forward(block.norm.forward(block.conv.forward(x)));
        }
        x
    }
}

#[test]
fn frozen_layers_keep_their_dropout_and_running_statistics_going() {
    let device = device();
    let block = || Block {
        conv: Conv2dConfig::new([3, 3], [3, 3])
            .with_padding(PaddingConfig2d::Same)
            .init(&device),
        norm: BatchNormConfig::new(3).init(&device),
        dropout: DropoutConfig::new(0.5).init(),
    };
    let model = ConvNet {
        blocks: (0..4).map(|_| block()).collect(),
        output: LinearConfig::new(3, 2).init(&device),
    };
    let config = LisaConfig::new().with_active_layers(1);
    let before = weights(&model);
    let model = check(&config, model, 4, |model| {
        let x: Tensor<2> = model.features().mean_dims(&[2, 3]).reshape([2, 3]);
        model.output.forward(x).square().mean()
    });
    let after = weights(&model);
    for block in 0..4 {
        let path = format!("blocks.{block}.norm.running_mean");
        assert_ne!(before[&path], after[&path], "{path}");
    }
    let data = |x: Tensor<4>| x.into_data();
    assert_ne!(data(model.features()), data(model.features()));
}

#[derive(Module, Debug)]
enum Mixer {
    Plain(Linear),
    #[allow(dead_code)]
    Wide(Vec<Linear>),
}

#[derive(Module, Debug)]
struct Part {
    mixer: Mixer,
    gate: Option<Linear>,
}

#[derive(Module, Debug)]
struct Odd {
    first: Option<Linear>,
    parts: Vec<Part>,
}

#[test]
fn options_and_enums_in_the_tree() {
    let device = device();
    let linear = || LinearConfig::new(4, 4).init(&device);
    let part = |gate: bool| Part {
        mixer: Mixer::Plain(linear()),
        gate: gate.then(linear),
    };
    let loss = |model: &Odd| {
        let mut x = Tensor::<2>::ones([1, 4], &model.devices()[0]).cumsum(1);
        for part in &model.parts {
            if let Mixer::Plain(mixer) = &part.mixer {
                x = x.clone() + mixer.forward(x).tanh();
            }
            if let Some(gate) = &part.gate {
                x = x.clone() * gate.forward(x).tanh();
            }
        }
        x.square().mean()
    };
    let same = |first: bool| Odd {
        first: first.then(linear),
        parts: (0..3).map(|_| part(true)).collect(),
    };
    check(&LisaConfig::new(), same(false), 3, loss);
    // Layers that are not alike are listed, and train when they are named.
    let mixed = || Odd {
        first: Some(linear()),
        parts: vec![part(true), part(false), part(true)],
    };
    let error = LayerMap::find(&mixed()).unwrap_err().to_string();
    assert!(
        error.contains("`parts` (3 layers") && error.contains("of different shapes"),
        "{error}"
    );
    check(
        &LisaConfig::new().with_layers(vec!["parts".into()]),
        mixed(),
        3,
        loss,
    );
}
