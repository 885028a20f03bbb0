//! Records of a run in half precision, and the record of the `Lisa` in a module. More tests are in
//! `learner.rs` of the system tests.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer, OptimizerRecord};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};

use super::LisaModule;
use crate::{ErrorKind, LisaConfig, OnFreeze};

const WIDTH: usize = 4;

#[derive(Module, Debug)]
struct Net {
    layers: Vec<Linear>,
    head: Linear,
}

struct Cast;

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(FloatDType::BF16).detach().require_grad())
    }
}

/// A model in bf16 with weights of its own.
fn net() -> Net {
    let device = Device::flex().autodiff();
    let linear = || {
        let config = LinearConfig::new(WIDTH, WIDTH).with_bias(false);
        config.init(&device)
    };
    let net = Net {
        layers: (0..4).map(|_| linear()).collect(),
        head: linear(),
    };
    net.map(&mut Cast)
}

impl Net {
    fn loss(&self) -> Tensor<1> {
        let weight = self.head.weight.val();
        let mut x = Tensor::<2>::ones([1, WIDTH], (&weight.device(), DType::BF16));
        for layer in &self.layers {
            x = layer.forward(x);
        }
        self.head.forward(x).cast(FloatDType::F32).mean()
    }

    fn weights(&self) -> Vec<TensorData> {
        let all = self.layers.iter().chain([&self.head]);
        all.map(|linear| linear.weight.val().into_data()).collect()
    }
}

fn run(on_freeze: OnFreeze) -> (ModuleOptimizer, LisaModule<Net>) {
    let config = LisaConfig::new()
        .with_sampling_period(1)
        .with_on_freeze(on_freeze);
    let (lisa, model) = config.init(AdamWConfig::new(), net()).unwrap();
    lisa.into_learner(model).unwrap()
}

fn step(optimizer: &mut ModuleOptimizer, module: LisaModule<Net>, lr: f64) -> LisaModule<Net> {
    let model = module.get_ref();
    let grads = GradientsParams::from_grads(model.loss().backward(), model);
    module.stepped(optimizer, |lisa, model| lisa.step(lr, model, grads))
}

#[test]
fn master_weights_are_those_of_a_record_that_is_loaded_during_a_run() {
    for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
        let (mut optimizer, mut module) = run(on_freeze);
        for _ in 0..4 {
            module = step(&mut optimizer, module, 0.05);
        }
        assert!(module.lisa().memory().master_weights > 0);
        let other = net();
        let expected = other.weights();
        module = module.try_load_record(other.into_record()).unwrap();
        // Every layer may be active again. A learning rate of 0 changes no weight.
        for _ in 0..8 {
            module = step(&mut optimizer, module, 0.0);
            assert_eq!(module.get_ref().weights(), expected, "{on_freeze:?}");
        }
        assert_eq!(module.lisa().steps(), 12);
        assert!(module.lisa().memory().master_weights > 0);
    }
}

#[test]
fn master_weights_are_those_of_the_weights_whatever_record_is_loaded() {
    let (mut optimizer, mut module) = run(OnFreeze::Keep);
    for _ in 0..2 {
        module = step(&mut optimizer, module, 0.05);
    }
    let (saved, state) = (module.clone(), optimizer.to_record().into_bytes().unwrap());
    let mut straight = module.clone();
    let mut its = optimizer.clone();
    for _ in 0..3 {
        straight = step(&mut its, straight, 0.05);
    }
    let expected = saved.get_ref().weights();

    // An earlier record of the module, without that of the optimizer.
    let back = straight.try_load_record(saved.clone().into_record());
    let back = step(&mut its, back.unwrap(), 0.0);
    assert_eq!(back.get_ref().weights(), expected);

    // Both records of the same step, in a new run: as without a break, with or without the stamp.
    for bare in [false, true] {
        let record = if bare {
            saved.get_ref().clone().into_record()
        } else {
            saved.clone().into_record()
        };
        let (fresh, module) = run(OnFreeze::Keep);
        let read = OptimizerRecord::from_bytes(state.clone()).unwrap();
        let mut fresh = fresh.load_record(read);
        let mut module = module.try_load_record(record).unwrap();
        module = step(&mut fresh, module, 0.05);
        assert!(module.lisa().memory().master_weights > 0);
        if !bare {
            let next = step(&mut optimizer, saved.clone(), 0.05);
            assert_eq!(module.get_ref().weights(), next.get_ref().weights());
            assert_eq!(module.lisa().memory(), next.lisa().memory());
        }
    }

    // The state of the run with other weights, in a new run.
    let (fresh, module) = run(OnFreeze::Keep);
    let mut fresh = fresh.load_record(OptimizerRecord::from_bytes(state).unwrap());
    let record = doubled(&saved).into_record();
    let mut module = module.try_load_record(record).unwrap();
    let expected = module.get_ref().weights();
    for _ in 0..8 {
        module = step(&mut fresh, module, 0.0);
        assert_eq!(module.get_ref().weights(), expected);
    }
}

#[test]
fn a_record_in_another_dtype_is_refused() {
    let (mut optimizer, module) = run(OnFreeze::Drop);
    let module = step(&mut optimizer, module, 0.05);
    let wide = module.clone().map(&mut Wide);
    // With the state of the run, and that of the wrapped model alone in a new run.
    let error = module
        .try_load_record(wide.clone().into_record())
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("in F32 where that had it in BF16"),
        "{error}"
    );
    let (mut optimizer, module) = run(OnFreeze::Drop);
    let module = module
        .try_load_record(wide.into_inner().into_record())
        .unwrap();
    let grads = GradientsParams::new();
    let stepped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        module.stepped(&mut optimizer, |lisa, model| lisa.step(0.05, model, grads))
    }));
    let message = *stepped.unwrap_err().downcast::<String>().unwrap();
    assert!(
        message.contains("in F32 where that had it in BF16"),
        "{message}"
    );
}

struct Wide;

impl ModuleMapper for Wide {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(FloatDType::F32).detach())
    }
}

/// The model of a module, with other weights and the same ids.
fn doubled(module: &LisaModule<Net>) -> Net {
    struct Double;
    impl ModuleMapper for Double {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.mul_scalar(2.0).detach())
        }
    }
    module.get_ref().clone().map(&mut Double)
}

#[test]
fn the_lisa_of_a_module_is_not_saved_without_its_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.lisa");
    let (mut optimizer, module) = run(OnFreeze::Drop);
    let module = step(&mut optimizer, module, 0.05);
    let module = step(&mut optimizer, module, 0.05);
    let error = module.lisa().save(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Record);
    assert!(error.message().contains("are in the learner"), "{error}");
    assert!(error.help().unwrap().contains("`ModuleOptimizer`"));
    assert!(!path.exists());
}
