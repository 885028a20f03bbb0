//! LISA in burn-train: resume through the stock checkpointers, several devices, replicas, records.

use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::lr_scheduler::constant::ConstantLr;
use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::nn::Linear;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::store::ModuleRecord;
use burn::tensor::{Device, ExecutionError, Int, Tensor, TensorReadError};
use burn::train::metric::{Adaptor, LossInput, LossMetric, Metric, MetricMetadata, Numeric};
use burn::train::{
    ExecutionStrategy, InferenceStep, ItemLazy, Learner, MultiDeviceOptim, SupervisedTraining,
    TrainOutput, TrainStep, TrainingStrategy,
};
use lisa::learner::LisaModule;
use lisa::optimizer::Decay;
use lisa::policy::{Budget, CyclicOrder, Draw, Gradient, SamplingPolicy};
use lisa::{FrozenWeights, Lisa, LisaConfig, ModuleStep, OnFreeze, PolicyConfig};

const LAYERS: usize = 6;
const WIDTH: usize = 4;

#[derive(Module, Debug)]
struct Net {
    embed: Linear,
    layers: Vec<Linear>,
    head: Linear,
}

/// The same weights on every call, with new ids, as in another process.
fn net(device: &Device) -> Net {
    let mut seed = 0.0f32;
    let mut linear = || {
        seed += 1.0;
        let values: Vec<f32> = (0..WIDTH * WIDTH)
            .map(|i| ((i as f32 + 7.0 * seed) * 0.7).sin() * 0.6)
            .collect();
        let weight = Tensor::<1>::from_floats(values.as_slice(), device);
        Linear {
            weight: Param::from_tensor(weight.reshape([WIDTH, WIDTH])),
            bias: None,
        }
    };
    Net {
        embed: linear(),
        layers: (0..LAYERS).map(|_| linear()).collect(),
        head: linear(),
    }
}

impl Net {
    /// A sum, so that the losses of two halves of a batch add up to the whole one's.
    fn loss(&self, x: Tensor<2>) -> Tensor<1> {
        let mut h = self.embed.forward(x);
        for layer in &self.layers {
            h = h.clone() + layer.forward(h).tanh();
        }
        self.head.forward(h).square().sum()
    }
}

struct Loss(Tensor<1>);

impl ItemLazy for Loss {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl Adaptor<LossInput> for Loss {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.0.clone())
    }
}

impl TrainStep for Net {
    type Input = Tensor<2>;
    type Output = Loss;
    fn step(&self, x: Tensor<2>) -> TrainOutput<Loss> {
        let loss = self.loss(x);
        TrainOutput::new(self, loss.backward(), Loss(loss.detach()))
    }
}

impl InferenceStep for Net {
    type Input = Tensor<2>;
    type Output = Loss;
    fn step(&self, x: Tensor<2>) -> Loss {
        Loss(self.loss(x))
    }
}

/// A row of input by its number.
#[derive(Clone, Debug)]
struct Row(usize);

#[derive(Clone)]
struct Rows;

impl Batcher<Row, Tensor<2>> for Rows {
    fn batch(&self, items: Vec<Row>, device: &Device) -> Tensor<2> {
        rows(&items.iter().map(|row| row.0).collect::<Vec<_>>(), device)
    }
}

fn rows(numbers: &[usize], device: &Device) -> Tensor<2> {
    let values: Vec<f32> = numbers
        .iter()
        .flat_map(|n| (0..WIDTH).map(move |i| ((n * WIDTH + i) as f32).cos()))
        .collect();
    Tensor::<1>::from_floats(values.as_slice(), device).reshape([numbers.len(), WIDTH])
}

fn loader(
    numbers: impl IntoIterator<Item = usize>,
    batch: usize,
) -> Arc<dyn DataLoader<Tensor<2>>> {
    let items = numbers.into_iter().map(Row).collect();
    DataLoaderBuilder::new(Rows)
        .batch_size(batch)
        .set_device(device())
        .build(InMemDataset::new(items))
}

fn device() -> Device {
    Device::flex().autodiff()
}

fn config() -> LisaConfig {
    LisaConfig::new().with_sampling_period(3)
}

fn adamw() -> AdamWConfig {
    AdamWConfig::new().with_epsilon(1e-8)
}

fn wrapped(config: &LisaConfig) -> (ModuleOptimizer, LisaModule<Net>) {
    let (lisa, model) = config.init(adamw(), net(&device())).unwrap();
    lisa.into_learner(model).unwrap()
}

/// Trains on one row in each step.
fn advance(learner: &mut Learner<LisaModule<Net>>, steps: std::ops::Range<usize>) {
    for step in steps {
        learner.lr_step();
        let output = learner.train_step(rows(&[step], &device()));
        learner.optimizer_step(output.grads);
    }
}

/// A step of a loop of one's own.
fn step(optimizer: &mut ModuleOptimizer, model: LisaModule<Net>, row: usize) -> LisaModule<Net> {
    let output = TrainStep::step(&model, rows(&[row], &device()));
    model.optimize(optimizer, 0.05.into(), output.grads)
}

#[test]
fn quantized_frozen_layers_are_refused() {
    let config = config().with_frozen_weights(FrozenWeights::Int8);
    let (lisa, model) = config.init(adamw(), net(&device())).unwrap();
    let error = lisa.into_learner(model).map(|_| ()).unwrap_err();
    assert!(
        error.message().contains("frozen_weights is Int8"),
        "{error}"
    );
    assert!(error.help().unwrap().contains("FrozenWeights::Exact"));
}

/// A policy of which the second draw is invalid.
#[derive(Debug)]
struct Wrong;

impl SamplingPolicy for Wrong {
    fn name(&self) -> String {
        "wrong".into()
    }

    fn draw(&self, draw: &Draw) -> Vec<usize> {
        vec![if draw.period == 0 { 0 } else { 77 }]
    }
}

#[test]
#[should_panic(expected = "the update of step 3 was applied")]
fn an_invalid_draw_panics_in_optimize_with_the_message_of_the_step() {
    let (optimizer, model) = wrapped(&config().with_policy(PolicyConfig::custom(Wrong)));
    let mut learner = Learner::new(model, optimizer, ConstantLr::new(0.05));
    advance(&mut learner, 0..3);
}

#[test]
#[should_panic(expected = "is not the one that `Lisa::into_learner` returned")]
fn another_optimizer_panics_in_its_first_step() {
    let (_, model) = wrapped(&config());
    let mut learner = Learner::new(model, adamw().init(), ConstantLr::new(0.05));
    advance(&mut learner, 0..1);
}

#[test]
#[should_panic(expected = "is not the one that `Lisa::into_learner` returned")]
fn a_plain_optimizer_after_a_training_panics_in_its_first_step() {
    let (optimizer, model) = wrapped(&config());
    let mut learner = Learner::new(model, optimizer, ConstantLr::new(0.05));
    // A period: its layers have just frozen.
    advance(&mut learner, 0..3);
    let model = learner.model().valid().train();
    let mut learner = Learner::new(model, adamw().init(), ConstantLr::new(0.05));
    advance(&mut learner, 3..4);
}

#[test]
#[should_panic(expected = "is not the one that `Lisa::into_learner` returned")]
fn a_plain_optimizer_in_the_middle_of_a_period_panics_in_its_first_step() {
    let (mut optimizer, mut model) = wrapped(&config());
    for i in 0..2 {
        model = step(&mut optimizer, model, i);
    }
    let _ = step(&mut adamw().init(), model, 2);
}

#[test]
fn the_model_of_a_training_is_unfrozen_for_another_one() {
    let (optimizer, model) = wrapped(&config());
    let mut learner = Learner::new(model, optimizer, ConstantLr::new(0.05));
    // A period: its layers have just frozen.
    advance(&mut learner, 0..3);
    let trained = learner.model().valid();
    let lisa = trained.lisa().clone();
    let expected = bits(&trained);
    let model = lisa.unfreeze(trained.into_inner().train()).unwrap();
    assert!(model.layers.iter().all(|l| l.weight.is_require_grad()));
    assert_eq!(bits(&model), expected);
    let (lisa, model) = config().init(adamw(), model).unwrap();
    let (optimizer, model) = lisa.into_learner(model).unwrap();
    let mut learner = Learner::new(model, optimizer, ConstantLr::new(0.05));
    advance(&mut learner, 0..4);
    assert!(
        values(&learner.model())
            .iter()
            .all(|value| value.is_finite())
    );
}

/// Bits of all weights, in the order of the module tree.
fn bits<M: Module>(module: &M) -> Vec<u32> {
    values(module).into_iter().map(f32::to_bits).collect()
}

fn values<M: Module>(module: &M) -> Vec<f32> {
    struct Values(Vec<f32>);
    impl ModuleVisitor for Values {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.extend(param.val().into_data().iter::<f32>());
        }
    }
    let mut values = Values(Vec::new());
    module.visit(&mut values);
    values.0
}

fn training(dir: &Path, epochs: usize) -> SupervisedTraining<LisaModule<Net>> {
    // 27 rows by 4: seven batches, so with two to a step an epoch has four steps, and the periods
    // of three steps end in the middle of epochs.
    SupervisedTraining::new(dir, loader(0..27, 4), loader(30..34, 4))
        .with_application_logger(None)
        .metric_train_numeric(LossMetric::new())
        .metric_valid_numeric(LossMetric::new())
        .grads_accumulation(2)
        .num_epochs(epochs)
        .with_default_checkpointers()
}

#[test]
fn a_learner_resumes_from_its_checkpoint_to_the_same_bits() {
    for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
        learner_resumes(&config().with_on_freeze(on_freeze));
        // The checkpoint is of a period in which embedding and head are frozen.
        learner_resumes(&config().with_on_freeze(on_freeze).with_outer_every(Some(2)));
        learner_resumes(
            &config()
                .with_on_freeze(on_freeze)
                .with_layer_warmup(Some(3)),
        );
    }
}

/// The checkpoint lies in the middle of a period, in which layers are drawn by their scores: those
/// of all six are there from the third period on.
#[test]
fn every_policy_resumes_from_a_checkpoint() {
    for policy in policies() {
        let config = config().with_policy(policy).with_active_layers(3);
        learner_resumes(&config.with_sampling_period(1).with_seed(3));
    }
    for policy in policies() {
        learner_resumes(&config().with_policy(policy).with_active_layers(3));
    }
}

fn policies() -> [PolicyConfig; 4] {
    [
        PolicyConfig::Gradient(Gradient::new()),
        PolicyConfig::Budget(Budget::new().with_share(0.5)),
        PolicyConfig::Weighted(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        PolicyConfig::Cyclic(CyclicOrder::Reshuffled),
    ]
}

fn learner_resumes(config: &LisaConfig) {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let launch = |dir: &Path, epochs, checkpoint: Option<usize>| {
        let (optimizer, model) = wrapped(config);
        let mut training = training(dir, epochs);
        if let Some(checkpoint) = checkpoint {
            training = training.checkpoint(checkpoint);
        }
        let learner = Learner::new(model, optimizer, ConstantLr::new(0.05));
        training.launch(learner).model
    };
    let straight = launch(dirs[0].path(), 3, None);
    assert_eq!(straight.lisa().steps(), 12);
    let first = launch(dirs[1].path(), 1, None);
    assert_eq!(first.lisa().steps(), 4);
    let resumed = launch(dirs[1].path(), 3, Some(1));
    assert_eq!(resumed.lisa().steps(), 12);
    let what = format!("{:?}, {:?}", config.policy, config.on_freeze);
    assert_eq!(bits(&resumed), bits(&straight), "{what}");
    assert_eq!(
        resumed.lisa().active_layers(),
        straight.lisa().active_layers()
    );
    assert_eq!(resumed.lisa().scores(), straight.lisa().scores(), "{what}");
    let held =
        |m: &LisaModule<Net>| m.lisa().memory().optimizer_state + m.lisa().memory().offloaded;
    assert_eq!(held(&resumed), held(&straight), "{what}");
}

#[test]
fn a_learner_trains_as_a_loop_of_ones_own() {
    for every in [1, 2] {
        let config = config().with_outer_every(Some(every));
        learner_trains_as_a_loop(&config);
    }
}

fn learner_trains_as_a_loop(config: &LisaConfig) {
    let (optimizer, model) = wrapped(config);
    let mut learner = Learner::new(model, optimizer, ConstantLr::new(0.05));
    let (mut lisa, mut model) = config.init(adamw(), net(&device())).unwrap();
    for step in 0..8 {
        let x = rows(&[step, step + 1], &device());
        learner.lr_step();
        let output = learner.train_step(x.clone());
        learner.optimizer_step(output.grads);
        let grads = GradientsParams::from_grads(model.loss(x).backward(), &model);
        model = lisa.step(0.05, model, grads);
        assert_eq!(learner.model().lisa().active_layers(), lisa.active_layers());
        assert_eq!(learner.model().lisa().outer_active(), lisa.outer_active());
        assert_eq!(
            learner.model().lisa().memory().optimizer_state,
            lisa.memory().optimizer_state
        );
    }
    assert_eq!(bits(&learner.model().into_inner()), bits(&model));
}

#[test]
fn two_devices_train_as_one_on_the_whole_batch() {
    // Each device has half of the rows; step k has rows 4k.. of both halves.
    let halves = [(0..16).collect::<Vec<_>>(), (16..32).collect()];
    let together: Vec<usize> = (0..4)
        .flat_map(|k| {
            halves
                .iter()
                .flat_map(move |half| half[4 * k..4 * k + 4].to_vec())
        })
        .collect();
    let launch = |strategy, numbers: Vec<usize>, batch| {
        let dir = tempfile::tempdir().unwrap();
        let (optimizer, model) = wrapped(&config());
        let training =
            SupervisedTraining::new(dir.path(), loader(numbers, batch), loader(40..44, 4))
                .with_application_logger(None)
                .metric_train_numeric(LossMetric::new())
                .num_epochs(2)
                .with_training_strategy(TrainingStrategy::Default(strategy));
        let learner = Learner::new(model, optimizer, ConstantLr::new(0.01));
        let result = training.launch(learner);
        assert!(result.error.is_none());
        result.model
    };
    let one = launch(ExecutionStrategy::single(Device::flex()), together, 8);
    assert_eq!(one.lisa().steps(), 8);
    for optim in [
        MultiDeviceOptim::OptimMainDevice,
        MultiDeviceOptim::OptimSharded,
    ] {
        let devices = vec![Device::flex(), Device::flex()];
        let numbers = halves.concat();
        let two = launch(ExecutionStrategy::multi(devices, optim), numbers, 4);
        assert_eq!(two.lisa().steps(), 8);
        assert_eq!(two.lisa().active_layers(), one.lisa().active_layers());
        assert_eq!(
            two.lisa().memory().optimizer_state,
            one.lisa().memory().optimizer_state
        );
        for (a, b) in values(&two).iter().zip(values(&one)) {
            assert!((a - b).abs() < 1e-4, "{optim:?}: {a} and {b}");
        }
    }
}

/// What distributed data parallel does, with the sum over the workers taken by hand.
#[test]
fn replicas_draw_the_same_layers_and_exchange_what_trains_alone() {
    replicas_agree(&config());
}

/// Scores are of the summed gradients, so they are the same too.
#[test]
fn replicas_draw_the_same_layers_by_their_scores() {
    let gradient = PolicyConfig::Gradient(Gradient::new());
    replicas_agree(&config().with_policy(gradient).with_sampling_period(1));
}

fn replicas_agree(config: &LisaConfig) {
    let replica = || {
        let (optimizer, model) = wrapped(config);
        Learner::new(model, optimizer, ConstantLr::new(0.01))
    };
    let mut workers = [replica(), replica()];
    let (optimizer, model) = wrapped(config);
    let mut whole = Learner::new(model, optimizer, ConstantLr::new(0.01));
    let all = 4 * WIDTH * WIDTH * (LAYERS + 2);
    let (mut crossed, mut full) = (0, 0);
    for step in 0..9 {
        let (a, b) = ([step, step + 1], [step + 2, step + 3]);
        let [first, second] = &mut workers;
        first.lr_step();
        second.lr_step();
        let left = first.train_step(rows(&a, &device())).grads;
        let mut right = second.train_step(rows(&b, &device())).grads;
        // Gradients exist for what trains: there is nothing else to wait for.
        assert_eq!(left.len(), 2 + 2);
        crossed += left.len() * 4 * WIDTH * WIDTH;
        full += all;
        // The second replica has ids of its own; gradients go over by their place.
        let (ids, theirs) = (ids(&first.model()), self::ids(&second.model()));
        let (mut sum, mut same) = (GradientsParams::new(), GradientsParams::new());
        for (id, their) in ids.iter().zip(&theirs) {
            if let (Some(l), Some(r)) = (left.get::<2>(*id), right.remove::<2>(*their)) {
                sum.register(*id, l.clone() + r.clone());
                same.register(*their, l + r);
            }
        }
        first.optimizer_step(sum);
        second.optimizer_step(same);
        assert_eq!(
            first.model().lisa().active_layers(),
            second.model().lisa().active_layers()
        );
        assert_eq!(
            first.model().lisa().scores(),
            second.model().lisa().scores()
        );
        assert_eq!(bits(&first.model()), bits(&second.model()));
        whole.lr_step();
        let output = whole.train_step(rows(&[a, b].concat(), &device()));
        whole.optimizer_step(output.grads);
    }
    for (a, b) in values(&workers[0].model())
        .iter()
        .zip(values(&whole.model()))
    {
        assert!((a - b).abs() < 1e-4, "{a} and {b}");
    }
    println!("bytes exchanged: {crossed} of {full} in full training");
    assert_eq!(crossed * 2, full);
}

fn ids<M: Module>(module: &M) -> Vec<ParamId> {
    struct Ids(Vec<ParamId>);
    impl ModuleVisitor for Ids {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.id);
        }
    }
    let mut ids = Ids(Vec::new());
    module.visit(&mut ids);
    ids.0
}

#[test]
fn records_of_the_bare_and_the_wrapped_module_load_into_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (bare, full) = (dir.path().join("bare.bpk"), dir.path().join("full.bpk"));
    let (mut optimizer, mut model) = wrapped(&config());
    for i in 0..4 {
        model = step(&mut optimizer, model, i);
    }
    model.clone().save_file(&full).unwrap();
    model.get_ref().clone().save_file(&bare).unwrap();

    let record = ModuleRecord::load(&full).unwrap().allow_unused(true);
    let unwrapped = net(&device()).try_load_record(record).unwrap();
    assert_eq!(bits(&unwrapped), bits(&model));
    let (_, fresh) = wrapped(&config());
    let loaded = fresh.clone().try_load_file(&bare).unwrap();
    assert_eq!((bits(&loaded), loaded.lisa().steps()), (bits(&model), 0));
    let loaded = fresh.clone().try_load_file(&full).unwrap();
    assert_eq!((bits(&loaded), loaded.lisa().steps()), (bits(&model), 4));
    assert_eq!(loaded.lisa().active_layers(), model.lisa().active_layers());
    let trains = |m: &LisaModule<Net>| {
        let layers = m.get_ref().layers.iter();
        layers
            .map(|l| l.weight.is_require_grad())
            .collect::<Vec<_>>()
    };
    assert_eq!(trains(&loaded), trains(&model));

    let others = "its checksum of layers, policy, ";
    for (other, word) in [
        (config().with_seed(1), "its seed is 42, this run's is 1"),
        (config().with_sampling_period(5), "its sampling period is 3"),
        (
            config().with_active_layers(1),
            "its number of active layers is 2",
        ),
        (
            config().with_outer_every(Some(3)),
            "its outer_every is 1, this run's is 3",
        ),
        (
            config().with_layer_warmup(Some(3)),
            "its layer_warmup is 1, this run's is 3",
        ),
        (
            config().with_policy(PolicyConfig::Cyclic(CyclicOrder::Ascending)),
            others,
        ),
        (config().with_decay(Decay::Matrices), others),
        (
            config().with_frozen(Some(ParamGroup::from_predicate("embed"))),
            others,
        ),
        (config().with_unbiased(true), others),
        (config().with_on_freeze(OnFreeze::Keep), others),
        (config().with_master_weights(false), others),
    ] {
        let error = wrapped(&other)
            .1
            .try_load_file(&full)
            .unwrap_err()
            .to_string();
        assert!(error.contains(word), "{error}");
    }
    for (config, word) in [
        (
            config().with_outer_every(Some(3)),
            "its outer_every is 3, this run's is 1",
        ),
        (
            config().with_layer_warmup(Some(2)),
            "its layer_warmup is 2, this run's is 1",
        ),
    ] {
        let record = wrapped(&config).1.into_record();
        let error = fresh.clone().try_load_record(record).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        // The same settings are accepted.
        let record = wrapped(&config).1.into_record();
        wrapped(&config).1.try_load_record(record).unwrap();
    }
}

#[derive(Module, Debug)]
struct Pair {
    encoder: Vec<Linear>,
    decoder: Vec<Linear>,
}

#[test]
fn a_record_of_other_layers_is_refused() {
    let pair = || Pair {
        encoder: net(&device()).layers,
        decoder: net(&device()).layers,
    };
    let of = |stacks: [&str; 2]| {
        let config = config().with_layers(stacks.map(str::to_owned).to_vec());
        let (lisa, model) = config.init(adamw(), pair()).unwrap();
        lisa.into_learner(model).unwrap().1
    };
    let record = || of(["encoder", "decoder"]).into_record();
    let other = of(["decoder", "encoder"]).try_load_record(record());
    let error = other.unwrap_err().to_string();
    assert!(error.contains("its checksum of layers, "), "{error}");
    of(["encoder", "decoder"])
        .try_load_record(record())
        .unwrap();
}

#[test]
fn a_record_that_is_loaded_during_a_run_changes_no_weight_of_it() {
    for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
        let (optimizer, model) = wrapped(&config().with_on_freeze(on_freeze));
        let mut learner = Learner::new(model, optimizer, ConstantLr::new(0.05));
        advance(&mut learner, 0..2);
        let saved = learner.model();
        // Other layers have state by now.
        advance(&mut learner, 2..5);
        let record = saved.clone().into_record();
        let loaded = learner.model().try_load_record(record).unwrap();
        assert_eq!(bits(&loaded), bits(&saved), "{on_freeze:?}");
        assert_eq!(loaded.lisa().steps(), 2);
    }
}

/// A record of the wrapped model, of the same weights under other ids, in the middle of a period.
#[test]
fn optimizer_state_follows_the_model_of_a_record_that_is_loaded_during_a_run() {
    for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
        let (mut optimizer, mut model) = wrapped(&config().with_on_freeze(on_freeze));
        for i in 0..5 {
            model = step(&mut optimizer, model, i);
        }
        let mut other = model.get_ref().clone();
        for linear in [&mut other.embed, &mut other.head]
            .into_iter()
            .chain(&mut other.layers)
        {
            linear.weight = Param::initialized(ParamId::new(), linear.weight.val().detach());
        }
        let mut followed = model.clone().try_load_record(other.into_record()).unwrap();
        assert_ne!(ids(&followed), ids(&model));
        let mut theirs = optimizer.clone();
        for i in 5..9 {
            model = step(&mut optimizer, model, i);
            followed = step(&mut theirs, followed, i);
        }
        assert_eq!(bits(&followed), bits(&model), "{on_freeze:?}");
        assert_eq!(followed.lisa().memory(), model.lisa().memory());
        assert_eq!(theirs.to_record().len(), optimizer.to_record().len());
    }
}

/// A walk of the module must not wait for the device: the tensor is made when a record reads it.
#[test]
fn a_walk_of_the_module_reads_no_scores() {
    struct Ints(Vec<bool>);
    impl ModuleVisitor for Ints {
        fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
            self.0.push(param.is_initialized());
        }
    }
    let gradient = PolicyConfig::Gradient(Gradient::new());
    let (_, model) = wrapped(&config().with_policy(gradient));
    let mut ints = Ints(Vec::new());
    model.visit(&mut ints);
    assert_eq!(ints.0, [false]);
}

/// In the second period, with state of layers that have left.
#[test]
fn what_a_loaded_optimizer_holds_is_known_after_a_step() {
    for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
        let config = config().with_on_freeze(on_freeze);
        let dir = tempfile::tempdir().unwrap();
        let (weights, moments) = (dir.path().join("m.bpk"), dir.path().join("o.bpk"));
        let (mut optimizer, mut model) = wrapped(&config);
        for i in 0..4 {
            model = step(&mut optimizer, model, i);
        }
        model.clone().save_file(&weights).unwrap();
        optimizer.save(&moments).unwrap();
        let straight = step(&mut optimizer, model, 4);
        let (optimizer, model) = wrapped(&config);
        let mut optimizer = optimizer.load(&moments).unwrap();
        let model = model.try_load_file(&weights).unwrap();
        let resumed = step(&mut optimizer, model, 4);
        let held = |m: &LisaModule<Net>| {
            (
                m.lisa().memory().optimizer_state,
                m.lisa().memory().offloaded,
            )
        };
        assert_eq!(held(&resumed), held(&straight), "{on_freeze:?}");
        assert_eq!(bits(&resumed), bits(&straight), "{on_freeze:?}");
    }
}

#[test]
fn metrics_show_what_trains() -> Result<(), TensorReadError> {
    let (mut optimizer, mut model) = wrapped(&config());
    let metrics = model.metrics();
    let mut all = [
        metrics.active_layers(),
        metrics.trainable_parameters(),
        metrics.optimizer_state(),
    ];
    let mut norms: Vec<_> = (0..LAYERS)
        .map(|l| metrics.gradient_norm(l).unwrap())
        .collect();
    assert!(metrics.gradient_norm(LAYERS).is_none());
    let active = model.lisa().active_layers().to_vec();
    let output = TrainStep::step(&model, rows(&[1], &device()));
    let weight = model.get_ref().layers[active[0]].weight.id;
    let expected = output.grads.get::<2>(weight).unwrap().square().sum().sqrt();
    model = model.optimize(&mut optimizer, 0.05.into(), output.grads);
    let metadata = MetricMetadata {
        progress: burn::data::dataloader::Progress::new(1, 1, None),
        iteration: None,
        lr: None,
    };
    for metric in all.iter_mut().chain(&mut norms) {
        let shown = metric.update(&(), &metadata)?.formatted;
        assert_eq!(shown.trim_end(), shown);
    }
    let value = |m: &dyn Numeric| m.value().map(|v| v.current());
    let size = (WIDTH * WIDTH) as f64;
    assert_eq!(value(&all[0]), Some(2.0));
    assert_eq!(value(&all[1]), Some(4.0 * size));
    assert_eq!(
        value(&all[2]),
        Some(model.lisa().memory().optimizer_state as f64)
    );
    for (layer, norm) in norms.iter().enumerate() {
        assert_eq!(value(norm).is_some(), active.contains(&layer));
    }
    let norm = value(&norms[active[0]]).unwrap();
    let expected = expected.into_scalar::<f64>();
    assert!((norm - expected).abs() < 1e-6);

    // Workers of one run, which step with the same summed gradients, show the norm of one of them.
    let (optimizer, model) = wrapped(&config());
    let mut metric = model.metrics().gradient_norm(active[0]).unwrap();
    for _ in 0..2 {
        let _ = step(&mut optimizer.clone(), model.clone(), 1);
    }
    metric.update(&(), &metadata)?;
    assert!((value(&metric).unwrap() - expected).abs() < 1e-6);
    Ok(())
}

/// A trainer that knows nothing of LISA.
struct Trainer<S> {
    optimizer: S,
    lr: f64,
}

impl<S: ModuleStep> Trainer<S> {
    fn fit<M: Module>(
        &mut self,
        mut model: M,
        steps: usize,
        loss: fn(&M, usize) -> Tensor<1>,
    ) -> M {
        for step in 0..steps {
            let grads = GradientsParams::from_grads(loss(&model, step).backward(), &model);
            model = self.optimizer.step_module(self.lr.into(), model, grads);
        }
        model
    }
}

#[test]
fn a_trainer_that_knows_nothing_of_lisa_takes_either() {
    let loss = |model: &Net, step: usize| model.loss(rows(&[step], &device()));
    let optimizer = adamw().init();
    let plain = Trainer {
        optimizer,
        lr: 0.05,
    }
    .fit(net(&device()), 5, loss);
    let all = config().with_active_layers(LAYERS);
    let (optimizer, model): (Lisa, Net) = all.init(adamw(), net(&device())).unwrap();
    let mut trainer = Trainer {
        optimizer,
        lr: 0.05,
    };
    assert_eq!(bits(&trainer.fit(model, 5, loss)), bits(&plain));
    assert_eq!(trainer.optimizer.steps(), 5);
}
