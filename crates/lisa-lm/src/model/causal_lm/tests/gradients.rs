//! Gradients: those of transformers, and those of recomputed layers.

use burn::module::ParamId;
use burn::tensor::Gradients;

use super::*;
use crate::checkpoint::Names;

/// The norm of each parameter's gradient, by its path.
struct Norms<'a> {
    gradients: &'a Gradients,
    path: Vec<String>,
    found: Vec<(String, f64)>,
}

impl ModuleVisitor for Norms<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = param.val().grad(self.gradients).unwrap();
        let norm = gradient.square().sum().sqrt().into_scalar::<f32>();
        self.found.push((self.path.join("."), f64::from(norm)));
    }
}

#[test]
fn gradient_norms_are_those_of_transformers() {
    let cases = MODELS.map(|name| with_autodiff().map(|device| (name, device)));
    for (name, device) in cases.into_iter().flatten() {
        let model = load(name, &device);
        let tokens = reference_ints(name, "input_ids", &device);
        let gradients = model.loss(&Input::new(tokens.clone()), tokens).backward();
        let mut norms = Norms {
            gradients: &gradients,
            path: Vec::new(),
            found: Vec::new(),
        };
        model.visit(&mut norms);
        let numbers = numbers(name);
        let expected = numbers["grad_norms_step0_all_trainable"]
            .as_object()
            .unwrap();
        assert_eq!(norms.found.len(), expected.len());
        let names = Names::of(model.config());
        for (path, found) in norms.found {
            let expected = expected[&names.stored(&path)].as_f64().unwrap();
            assert!(
                (found - expected).abs() < 1e-4 * expected,
                "{name}, {path}: {found} {expected}"
            );
        }
    }
}

/// For all parameters, some layers, and one layer.
#[test]
fn recomputed_gradients_are_those_of_plain_autodiff() {
    use lisa::recompute::Recompute;
    use lisa::{FreezeMask, LayerMap};
    let device = Device::default().autodiff();
    let weighted = ["llama", "llama_tied"].map(|name| (name, true));
    let cases = MODELS.map(|name| (name, false)).into_iter();
    for (name, is_weighted) in cases.chain(weighted) {
        let model = load(name, &device);
        let tokens = reference_ints(name, "input_ids", &device);
        let weights = tokens.clone().cast(FloatDType::F32).sin().abs();
        let batch = BatchTensors {
            targets: tokens.clone().roll_dim(-1, 1),
            input: Input::new(tokens),
            weights: is_weighted.then_some(weights),
        };
        let map = LayerMap::find(&model).unwrap();
        let all: Vec<ParamId> = map.parameters().iter().map(|p| p.id).collect();
        let outside: Vec<ParamId> = map.outside().map(|p| p.id).collect();
        let layer = |i: usize| -> Vec<ParamId> {
            let layer = &map.layers()[i];
            layer
                .parameters
                .iter()
                .map(|&p| map.parameters()[p].id)
                .collect()
        };
        let cases = [
            all.clone(),
            [outside, layer(1)].concat(),
            layer(map.layers().len() - 1),
        ];
        for trains in cases {
            let model = FreezeMask::new(all.clone()).change(model.clone(), trains.clone());
            let loss = model.batch_loss(batch.clone());
            let expected = GradientsParams::from_grads(loss.backward(), &model);
            assert_eq!(expected.len(), trains.len());
            let plan = Recompute::new();
            for plan in [
                plan,
                plan.with_every(3),
                plan.with_every(2).with_sublayers(),
            ] {
                let pass = plan.forward(&model, &batch);
                assert_eq!(scalar(&pass.loss()), scalar(&loss), "{name}");
                let found = pass.backward(&model);
                assert_eq!(found.len(), expected.len(), "{name}, {plan:?}");
                let mut same = Same(&expected, &found, name);
                model.visit(&mut same);
            }
        }
    }
}

/// Burn's adapters of all linear layers, of the head and of the embedding.
#[test]
fn burns_adapters_have_the_same_gradients_with_recomputation() {
    use burn::module::Lora;
    use lisa::recompute::Recompute;
    let device = Device::default().autodiff();
    for name in ["llama", "llama_tied", "gpt2"] {
        let model = load(name, &device).apply_lora(Lora::new(2, 4.0));
        let tokens = reference_ints(name, "input_ids", &device);
        let batch = BatchTensors {
            targets: tokens.clone().roll_dim(-1, 1),
            input: Input::new(tokens),
            weights: None,
        };
        let loss = model.batch_loss(batch.clone());
        let expected = GradientsParams::from_grads(loss.backward(), &model);
        let found = Recompute::new().forward(&model, &batch).backward(&model);
        assert_eq!(found.len(), expected.len(), "{name}");
        model.visit(&mut Same(&expected, &found, name));
    }
}

struct Same<'a>(&'a GradientsParams, &'a GradientsParams, &'a str);

impl ModuleVisitor for Same<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(expected) = self.0.get::<D>(param.id) else {
            return;
        };
        let found = self.1.get::<D>(param.id).unwrap().into_data();
        let expected = expected.into_data();
        let largest = expected.iter::<f32>().fold(0f32, |a, b| a.max(b.abs()));
        let difference = largest_difference(&found, &expected);
        assert!(
            difference <= 1e-6 * largest,
            "{}: {difference} of {largest}",
            self.2
        );
    }
}

#[test]
fn embeddings_and_head_have_no_gradient_in_periods_in_which_they_are_frozen() {
    use burn::module::Module;
    use burn::optim::SgdConfig;
    use lisa::LisaConfig;
    use lisa::recompute::Recompute;

    /// The values of the parameters with these ids.
    struct Values<'a>(&'a [ParamId], Vec<f32>);
    impl ModuleVisitor for Values<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.0.contains(&param.id) {
                self.1.extend(param.val().into_data().iter::<f32>());
            }
        }
    }
    /// How many of the parameters with these ids have a gradient.
    struct Found<'a>(&'a [ParamId], &'a GradientsParams, usize);
    impl ModuleVisitor for Found<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let has = self.1.get::<D>(param.id).is_some();
            self.2 += usize::from(has && self.0.contains(&param.id));
        }
    }
    let config = LisaConfig::new()
        .with_active_layers(1)
        .with_sampling_period(1)
        .with_outer_every(Some(2));
    for device in with_autodiff() {
        for name in ["llama", "llama_tied", "gpt2"] {
            let tokens = reference_ints(name, "input_ids", &device);
            let batch = BatchTensors {
                input: Input::new(tokens.clone()),
                targets: tokens.roll_dim(-1, 1),
                weights: None,
            };
            let start = || config.init(SgdConfig::new(), load(name, &device)).unwrap();
            let ((mut plain, mut a), (mut layered, mut b)) = (start(), start());
            for step in 0..4 {
                let ids = |lisa: &lisa::Lisa| -> Vec<ParamId> {
                    lisa.layers().outside().map(|p| p.id).collect()
                };
                let (of_a, of_b) = (ids(&plain), ids(&layered));
                let found = |model: &CausalLm, ids: &[ParamId], grads: &GradientsParams| {
                    let mut found = Found(ids, grads, 0);
                    model.visit(&mut found);
                    found.2
                };
                let values = |model: &CausalLm| {
                    let mut values = Values(&of_a, Vec::new());
                    model.visit(&mut values);
                    values.1
                };
                let trains = step % 2 == 0;
                let expected = if trains { of_a.len() } else { 0 };
                let loss = a.batch_loss(batch.clone());
                let grads = GradientsParams::from_grads(loss.backward(), &a);
                assert_eq!(found(&a, &of_a, &grads), expected, "{name}, {step}");
                let before = values(&a);
                a = plain.step(0.1, a, grads);
                assert_eq!(before == values(&a), !trains, "{name}, {step}");

                let pass = Recompute::new().forward(&b, &batch);
                let grads = pass.backward(&b);
                assert_eq!(found(&b, &of_b, &grads), expected, "{name}, {step}");
                let pass = Recompute::new().forward(&b, &batch);
                b = layered.step_layered(0.1, b, pass);
            }
            let logits = |model: &CausalLm| model.forward(&batch.input);
            let difference = largest_difference(&logits(&a).into_data(), &logits(&b).into_data());
            assert!(difference < 1e-4, "{name}: {difference}");
        }
    }
}
