//! Plans of small models.

use burn::module::{Module, ParamGroup};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Device, FloatDType};

use super::*;
use crate::recompute::Recompute;
use crate::{FrozenWeights, LisaConfig, OnFreeze, PolicyConfig};

mod frozen;
mod segments;
mod slices;

/// Plans one row of four tokens with the dtype of the model.
fn plan<M: Footprint>(model: &M, config: &LisaConfig) -> Result<MemoryPlan, crate::LisaError> {
    MemoryPlan::lisa(model, config, &Workload::new(model, 1, 4))
}

#[derive(Module, Debug)]
struct Net {
    embed: Linear,
    layers: Vec<Linear>,
    head: Linear,
}

impl Footprint for Net {
    fn activations(&self, workload: &Workload) -> Activations {
        let tokens = (workload.batch * workload.sequence) as u64;
        let hidden = tokens * 32 * DType::from(workload.dtype).size() as u64;
        Activations {
            frozen_layer: hidden,
            active_layer: 2 * hidden,
            norms: hidden / 4,
            hidden,
            logits: hidden,
            ..Activations::default()
        }
    }
}

fn net() -> Net {
    let device = Device::flex().autodiff();
    let config = LinearConfig::new(32, 32).with_bias(false);
    Net {
        embed: config.init(&device),
        layers: (0..8).map(|_| config.init(&device)).collect(),
        head: config.init(&device),
    }
}

#[test]
fn weights_gradients_and_state_are_counted_by_parameter() {
    let net = net();
    let plan = |config: &LisaConfig| plan(&net, config).unwrap();
    let found = plan(&LisaConfig::new());
    assert_eq!(found.weights, 10 * 1024 * 4);
    assert_eq!(found.gradients, 4 * 1024 * 4);
    assert_eq!(found.optimizer_state, 2 * found.gradients);
    assert_eq!(found.activations, (6 + 2 * 2 + 1) * 4 * 32 * 4);
    assert_eq!((found.master_weights, found.host), (0, 0));
    // At the step's end: AdamW's four tensors of the largest parameter, and the embedding's gradient twice.
    let update = found.gradients + 4 * 4 * 1024 + 4 * 1024;
    assert_eq!(found.peak(), found.weights + found.optimizer_state + update);
    // What is held at the peak adds up to it.
    let at_peak = found.at_peak;
    assert_eq!(at_peak.total(), found.peak());
    assert_eq!((at_peak.weights, at_peak.activations), (found.weights, 0));
    assert_eq!(at_peak.gradients, found.gradients + 4 * 1024);
    assert_eq!(found.at_peak_recomputed.total(), found.peak_recomputed());
    // Nothing was allocated for it.
    assert!(!net.embed.weight.is_initialized());

    let full = plan(&LisaConfig::new().with_active_layers(8));
    assert_eq!(full.optimizer_state, 2 * full.weights);
    assert!(full.peak() > found.peak() && found.peak_recomputed() < found.peak());

    let outer = ParamGroup::from_any_predicates(vec!["embed", "head"]);
    let frozen = plan(&LisaConfig::new().with_frozen(Some(outer)));
    assert_eq!(frozen.gradients, 2 * 1024 * 4);

    let int8 = plan(&LisaConfig::new().with_frozen_weights(FrozenWeights::Int8));
    assert_eq!(int8.weights, 4 * 1024 * 4 + 6 * (1024 + 32 * 4));
    assert_eq!(int8.host, 6 * 1024 * 4);
}

#[test]
fn a_plan_is_that_of_a_period_in_which_the_parameters_outside_the_layers_train() {
    let net = net();
    let plan = |every, on_freeze, flex| {
        let config = LisaConfig::new()
            .with_outer_every(Some(every))
            .with_on_freeze(on_freeze);
        let workload = Workload {
            flex,
            ..Workload::new(&net, 1, 4)
        };
        MemoryPlan::lisa(&net, &config, &workload).unwrap()
    };
    for flex in [true, false] {
        for on_freeze in [OnFreeze::Drop, OnFreeze::Keep, OnFreeze::Offload] {
            let mut always = plan(1, on_freeze, flex);
            // Their offloaded moments are in host memory in the other periods.
            if on_freeze == OnFreeze::Offload && !flex {
                always.host += 2 * 2 * 1024 * 4;
            }
            assert_eq!(plan(3, on_freeze, flex), always, "{on_freeze:?}");
        }
    }
    let outer = ParamGroup::from_any_predicates(vec!["embed", "head"]);
    let config = LisaConfig::new()
        .with_frozen(Some(outer))
        .with_outer_every(Some(3));
    let workload = Workload::new(&net, 1, 4);
    let error = MemoryPlan::lisa(&net, &config, &workload).unwrap_err();
    assert!(error.message().contains("outer_every is 3"), "{error}");
}

#[test]
fn a_configuration_that_init_refuses_has_no_plan() {
    let net = net();
    let refused = |config: LisaConfig| plan(&net, &config).unwrap_err().message().to_owned();
    let none = LisaConfig::new().with_active_layers(0);
    assert!(refused(none).contains("active_layers is 0"));
    let many = LisaConfig::new().with_active_layers(9);
    assert!(refused(many).contains("the model has 8 layers"));
    let weights = PolicyConfig::Weighted(vec![1.0; 3]);
    assert!(refused(LisaConfig::new().with_policy(weights)).contains('3'));
    let nowhere = ParamGroup::from_predicate("nowhere");
    assert!(refused(LisaConfig::new().with_frozen(Some(nowhere))).contains("matches none of 10"));
}

#[test]
fn a_plan_for_bernoulli_has_the_layers_that_are_rarely_exceeded() {
    let net = net();
    let with = |policy, active| {
        let config = LisaConfig::new().with_policy(policy);
        plan(&net, &config.with_active_layers(active)).unwrap()
    };
    let uniform = |active| with(PolicyConfig::Uniform, active);
    let bernoulli = |p: &[f64]| with(PolicyConfig::Bernoulli(p.to_vec()), 2);
    assert_eq!(bernoulli(&[1.0; 8]), uniform(8));
    // A layer of probability 0 is never active.
    let two = [0.0, 1.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0];
    assert_eq!(bernoulli(&two), uniform(2));
    // More than two of three are active in one period of 1000, or in fewer.
    let three = |p| [0.0, p, 0.0, p, 0.0, p, 0.0, 0.0];
    assert_eq!(bernoulli(&three(0.0999)), uniform(2));
    assert_eq!(bernoulli(&three(0.1001)), uniform(3));
    // 2 of 8 on average: more than six in 0.4 periods of 1000, more than five in 4.2.
    assert_eq!(bernoulli(&[]), uniform(6));
    assert_eq!(with(PolicyConfig::Bernoulli(Vec::new()), 8), uniform(8));
}

#[test]
fn half_precision_has_masters_unless_they_are_turned_off() {
    let net = net();
    let plan = |masters| {
        let config = LisaConfig::new().with_master_weights(masters);
        let workload = Workload {
            dtype: FloatDType::BF16,
            flex: false,
            ..Workload::new(&net, 1, 4)
        };
        MemoryPlan::lisa(&net, &config, &workload).unwrap()
    };
    let (with, without) = (plan(true), plan(false));
    assert_eq!(with.weights, 10 * 1024 * 2);
    assert_eq!(
        (with.optimizer_state, with.master_weights),
        (4 * 1024 * 8, 4 * 1024 * 4)
    );
    assert_eq!(
        (without.optimizer_state, without.master_weights),
        (4 * 1024 * 4, 0)
    );
}

#[test]
fn layers_below_the_lowest_active_one_store_nothing_with_frozen_embeddings() {
    let net = net();
    let kept = |frozen: &[&str], lowest_active| {
        let group = ParamGroup::from_any_predicates(frozen.to_vec());
        let config = LisaConfig::new().with_frozen((!frozen.is_empty()).then_some(group));
        let workload = Workload {
            lowest_active,
            ..Workload::new(&net, 1, 4)
        };
        let plan = MemoryPlan::lisa(&net, &config, &workload).unwrap();
        (plan.activations, plan.peak_recomputed())
    };
    let hidden = 4 * 32 * 4;
    assert_eq!(
        kept(&["embed", "head"], 5).0,
        kept(&["embed", "head"], 0).0 - 5 * hidden
    );
    assert!(kept(&["embed", "head"], 5).1 < kept(&["embed", "head"], 0).1);
    // The embedding is trainable: the backward pass goes through all layers.
    assert_eq!(kept(&["head"], 5), kept(&["head"], 0));
    assert_eq!(kept(&[], 5), kept(&[], 0));
}

#[derive(Module, Debug)]
struct Block {
    self_attn: Linear,
    mlp: Linear,
}

#[derive(Module, Debug)]
struct Tied {
    net: Net,
}

impl Footprint for Tied {
    fn activations(&self, workload: &Workload) -> Activations {
        Activations {
            tied_head: true,
            ..self.net.activations(workload)
        }
    }
}

#[test]
fn the_gradient_of_a_tied_head_is_held_until_that_of_the_embedding() {
    let config = LisaConfig::new();
    let own = plan(&net(), &config).unwrap();
    let tied = plan(&Tied { net: net() }, &config).unwrap();
    assert_eq!(tied.peak(), own.peak() + 1024 * 4);
    assert_eq!(tied.gradients, own.gradients);
}

#[derive(Module, Debug)]
struct Sliced {
    net: Net,
}

/// More than anything else in a step.
const HEAD: u64 = 1 << 20;
const HEAD_WEIGHT: u64 = 1000;

impl Footprint for Sliced {
    fn activations(&self, workload: &Workload) -> Activations {
        Activations {
            logits: 0,
            head: HEAD,
            head_weight: HEAD_WEIGHT,
            ..self.net.activations(workload)
        }
    }
}

#[test]
fn a_loss_in_slices_is_counted_with_one_gradient() {
    let sliced = Sliced { net: net() };
    let hidden = 4 * 32 * 4;
    let found = plan(&sliced, &LisaConfig::new()).unwrap();
    let resident = found.weights + found.optimizer_state;
    let gradient = 1024 * 4;
    assert_eq!(found.activations, (6 + 2 * 2) * hidden + HEAD);
    // The loss has the last hidden state, its norm, the rows with a target, and gradients of both.
    let head = HEAD + 5 * hidden;
    let trained = head + HEAD_WEIGHT + gradient;
    assert_eq!(found.peak(), resident + (6 + 2 * 2) * hidden + trained);
    // The inputs of nine segments, and the head.
    assert_eq!(found.peak_recomputed(), resident + 9 * hidden + trained);
    // Neither LoRA nor a frozen head has what its weight needs.
    let frozen = Some(ParamGroup::from_any_predicates(vec!["embed", "head"]));
    let frozen = plan(&sliced, &LisaConfig::new().with_frozen(frozen)).unwrap();
    assert_eq!(frozen.at_peak.temporary, head);
    let workload = Workload::new(&sliced, 1, 4);
    let lora = MemoryPlan::lora(&sliced, &Adapters::all(2, false), &workload).unwrap();
    assert_eq!(lora.at_peak.temporary, head);
}

#[derive(Module, Debug)]
struct Backward {
    net: Net,
    /// Bytes.
    layer: u64,
}

impl Footprint for Backward {
    fn activations(&self, workload: &Workload) -> Activations {
        Activations {
            layer_backward: self.layer,
            workspace: 7,
            ..self.net.activations(workload)
        }
    }
}

#[test]
fn the_peak_may_be_in_the_backward_pass_of_a_layer() {
    let (hidden, gradient) = (4 * 32 * 4, 1024 * 4);
    let peak = |layer, active| {
        let net = Backward { net: net(), layer };
        let found = plan(&net, &LisaConfig::new().with_active_layers(active)).unwrap();
        (found.peak() - found.weights - found.optimizer_state, found)
    };
    // All activations are stored. The head and the first active layer have gradients, and after the
    // second one, whose activations are gone, both layers have.
    let large = 1 << 20;
    let (peak, found) = peak(large, 2);
    assert_eq!(found.at_peak.temporary, large + hidden + 7);
    let second = 3 * gradient + (6 + 2) * hidden;
    assert_eq!(peak, second + large + hidden + 7);
    assert!(second > 2 * gradient + (6 + 2 * 2) * hidden);
}

#[derive(Module, Debug)]
struct Shared {
    net: Net,
}

impl Footprint for Shared {
    fn activations(&self, workload: &Workload) -> Activations {
        Activations {
            logits: 0,
            head: 1,
            layer_backward: 1 << 20,
            tied: true,
            ..self.net.activations(workload)
        }
    }
}

#[test]
fn a_recomputed_layer_is_there_with_the_gradient_of_a_tied_head() {
    let (tied, hidden, matrix) = (Shared { net: net() }, 4 * 32 * 4, 1024 * 4);
    let int8 = LisaConfig::new().with_frozen_weights(FrozenWeights::Int8);
    let peak = |config: &LisaConfig| {
        let found = plan(&tied, config).unwrap();
        found.peak_recomputed() - found.weights - found.optimizer_state
    };
    // The states of eight layers and a gradient; an active layer or a dequantized frozen one, in its
    // backward pass.
    let layer = 9 * hidden + 2 * hidden + matrix + (1 << 20);
    assert_eq!(peak(&int8), matrix + layer);
    // Without the gradient, where nothing before the layers trains.
    let frozen = Some(ParamGroup::from_any_predicates(vec!["embed", "head"]));
    assert_eq!(peak(&int8.with_frozen(frozen)), layer);
}

#[test]
fn lora_stores_the_inputs_of_its_products_and_not_those_of_norms() {
    let net = net();
    let workload = Workload::new(&net, 1, 4);
    let hidden = 4 * 32 * 4;
    let side = MemoryPlan::lora(&net, &Adapters::all(2, false), &workload).unwrap();
    // Eight projections to rank 2, of four tokens.
    let low = 8 * 2 * 4 * 4;
    let layers = 8 * (2 * hidden - hidden / 4);
    assert_eq!(side.activations, layers + hidden + low);
    assert_eq!(side.gradients, 8 * 2 * (32 + 32) * 4);
    // Adapters of a model in half precision are f32.
    let half = Workload {
        dtype: FloatDType::BF16,
        ..workload
    };
    let half = MemoryPlan::lora(&net, &Adapters::all(2, false), &half).unwrap();
    assert_eq!(half.gradients, side.gradients);
    assert_eq!(half.optimizer_state, 2 * half.gradients);
    assert_eq!(2 * half.weights, side.weights + half.gradients);
    let merged = MemoryPlan::lora(&net, &Adapters::all(2, true), &workload).unwrap();
    assert_eq!(merged.activations, layers + hidden + 8 * 1024 * 4);
}

#[test]
fn lora_below_the_lowest_adapter_keeps_nothing_and_recomputed_layers_keep_their_input() {
    let net = net();
    let workload = Workload::new(&net, 1, 4);
    let hidden = 4 * 32 * 4;
    let mut of_layers = vec![LayerAdapters::default(); 8];
    of_layers[5] = LayerAdapters {
        weights: vec![[32, 32]],
        inputs: 100,
    };
    let some = Adapters {
        rank: 2,
        of_layers: Some(of_layers),
        ..Adapters::default()
    };
    let found = MemoryPlan::lora(&net, &some, &workload).unwrap();
    assert_eq!(found.gradients, 2 * (32 + 32) * 4);
    assert_eq!(found.weights, 10 * 1024 * 4 + found.gradients);
    // Three layers, the input of the adapter, its product to rank 2 of four tokens, and the logits.
    let low = 2 * 4 * 4;
    assert_eq!(found.activations, 3 * hidden + 100 + low + hidden);
    // Recomputed: three inputs and the state of the head, at the head.
    let held = found.weights + found.optimizer_state;
    let logits = 2 * hidden;
    assert_eq!(
        found.peak_recomputed(),
        held + (3 + 1) * hidden + logits + 5 * hidden
    );
    // A layer needs more than the head.
    let large = Backward {
        net: net.clone(),
        layer: 1 << 16,
    };
    let layer = MemoryPlan::lora(&large, &some, &workload).unwrap();
    let kept = hidden + 100 + low;
    assert_eq!(
        layer.peak_recomputed(),
        held + (3 + 1) * hidden + kept + found.gradients + (1 << 16) + 7 + logits
    );
    // An adapter of the head.
    let with_head = Adapters {
        head: Some([32, 256]),
        head_loss: 1 << 20,
        ..some
    };
    let of_head = MemoryPlan::lora(&net, &with_head, &workload).unwrap();
    assert_eq!(of_head.gradients, found.gradients + 2 * (32 + 256) * 4);
    assert_eq!(of_head.at_peak.temporary - found.at_peak.temporary, 1 << 20);
}

#[derive(Module, Debug)]
struct Blocks {
    layers: Vec<Block>,
    head: Linear,
}

impl Footprint for Blocks {
    fn activations(&self, workload: &Workload) -> Activations {
        let hidden = (workload.batch * workload.sequence * 32) as u64 * 4;
        Activations {
            frozen_layer: hidden,
            active_layer: 3 * hidden,
            norms: 0,
            hidden,
            logits: hidden,
            ..Activations::default()
        }
    }
}

#[test]
fn parts_of_layers_budgets_and_fixed_layers_have_plans() {
    use crate::policy::Budget;
    let device = Device::flex().autodiff();
    let linear = |n| LinearConfig::new(32, n).with_bias(false).init(&device);
    // Four layers in halves of 1024 and 2048 elements, and 1024 always-on elements.
    let net = Blocks {
        layers: (0..4)
            .map(|_| Block {
                self_attn: linear(32),
                mlp: linear(64),
            })
            .collect(),
        head: linear(32),
    };
    let split = LisaConfig::new().with_split(vec!["attn".into()]);
    let hidden = 4 * 32 * 4;
    let plan = |config: &LisaConfig| plan(&net, config).unwrap();
    // Two halves: the larger ones, of two layers.
    let two = plan(&split);
    assert_eq!(two.gradients, (1024 + 2 * 2048) * 4);
    assert_eq!(two.activations, (2 * 3 + 2 + 1) * hidden);
    // Halves of five layers are in no more than four.
    let five = plan(&split.clone().with_active_layers(5));
    assert_eq!(five.gradients, (1024 + 4 * 2048 + 1024) * 4);
    assert_eq!(five.activations, (4 * 3 + 1) * hidden);
    // All halves are whole layers.
    let all = plan(&split.clone().with_active_layers(8));
    assert_eq!(all, plan(&LisaConfig::new().with_active_layers(4)));
    let int8 = FrozenWeights::Int8;
    let (halves, whole) = (
        plan(&split.clone().with_frozen_weights(int8)),
        plan(
            &LisaConfig::new()
                .with_active_layers(1)
                .with_frozen_weights(int8),
        ),
    );
    assert_eq!(halves.host, (4 * 1024 + 2 * 2048) * 4);
    assert_eq!(whole.host, 3 * 3072 * 4);

    // A quarter of 12288 elements: one large and one small half, or three small ones.
    let budget = PolicyConfig::Budget(Budget::new());
    let budget = plan(&split.clone().with_policy(budget));
    assert_eq!(budget.gradients, (1024 + 3072) * 4);
    assert_eq!(budget.activations, (3 * 3 + 1 + 1) * hidden);
    // Both halves of the first layer and a small one.
    let fixed = plan(&split.with_policy(PolicyConfig::Fixed(vec![0, 1, 4])));
    assert_eq!(fixed.gradients, (1024 + 3072 + 1024) * 4);
    assert_eq!(fixed.activations, (2 * 3 + 2 + 1) * hidden);
}

/// Less than a layer needs.
const SUBLAYER: u64 = 100;

#[derive(Module, Debug)]
struct InSublayers {
    net: Net,
}

impl Footprint for InSublayers {
    fn activations(&self, workload: &Workload) -> Activations {
        Activations {
            sublayer: SUBLAYER,
            ..self.net.activations(workload)
        }
    }
}

#[test]
fn by_sublayer_few_hidden_states_and_one_sublayer_are_held() {
    let frozen = Some(ParamGroup::from_any_predicates(vec!["embed", "head"]));
    let config = LisaConfig::new().with_frozen(frozen);
    let peak = |net: &InSublayers, recompute| {
        let workload = Workload {
            flex: false,
            recompute,
            ..Workload::new(net, 1, 256)
        };
        let plan = MemoryPlan::lisa(net, &config, &workload).unwrap();
        plan.peak_recomputed()
    };
    let net = InSublayers { net: net() };
    let hidden = 256 * 32 * 4;
    let every = |n| Recompute::new().with_every(n);
    // Two layers of 1024 elements, with their moments; eight inputs of layers and a gradient; a layer with
    // the gradients of its weights. At the head, its input and eight others.
    let fixed = (10 + 2 * 2) * 1024 * 4;
    let logits = 3 * hidden;
    assert_eq!(
        peak(&net, every(1)),
        fixed + 9 * hidden + (2 * hidden + 1024 * 4).max(logits)
    );
    // Two active layers at a time; half of the states. The graph of the last two exists at the head.
    assert_eq!(
        peak(&net, every(2)),
        fixed + (5 + 2 * 2) * hidden + (1024 * 4).max(logits)
    );
    // Of eight layers the inputs of three segments, of two more layers and of a sublayer, and a gradient.
    assert_eq!(
        peak(&net, every(3).with_sublayers()),
        fixed + 7 * hidden + SUBLAYER
    );
}

/// Plans one row of four tokens on a GPU.
fn on_gpu<M: Footprint>(model: &M, change: impl Fn(&mut Workload)) -> MemoryPlan {
    let mut workload = Workload {
        flex: false,
        ..Workload::new(model, 1, 4)
    };
    change(&mut workload);
    MemoryPlan::lisa(model, &LisaConfig::new(), &workload).unwrap()
}

#[test]
fn the_gradients_of_earlier_batches_are_in_memory_during_the_passes_of_a_batch() {
    let net = net();
    let workload = |accumulated, in_backward| Workload {
        in_backward,
        accumulated,
        ..Workload::new(&net, 1, 4)
    };
    let config = LisaConfig::new();
    let adapters = Adapters::all(300, false);
    for of in [
        &|workload: &Workload| MemoryPlan::lisa(&net, &config, workload).unwrap(),
        &|workload: &Workload| MemoryPlan::lora(&net, &adapters, workload).unwrap(),
    ] as [&dyn Fn(&Workload) -> MemoryPlan; 2]
    {
        let (one, two) = (of(&workload(1, false)), of(&workload(2, false)));
        assert_eq!(two.peak(), one.peak() + one.gradients);
        assert_eq!(two.peak_recomputed(), one.peak_recomputed() + one.gradients);
        assert_eq!(two.peak(), of(&workload(9, false)).peak());
        // An update in the backward pass is that of a single batch.
        let layered = of(&workload(2, true)).peak_recomputed();
        assert_eq!(layered, of(&workload(1, true)).peak_recomputed());
        assert!(layered < one.peak_recomputed());
    }
}

#[test]
fn without_an_update_in_the_backward_pass_gradients_add_up_while_states_are_freed() {
    let large = Backward {
        net: net(),
        layer: 1 << 20,
    };
    let found = on_gpu(&large, |workload| workload.in_backward = false);
    let (hidden, gradient) = (4 * 32 * 4, 1024 * 4);
    // When the second active layer begins: a gradient of it, and those of the first one and of the head;
    // the states of seven layers, the gradient of its output, and what it keeps.
    let layer = 3 * gradient + (7 + 1 + 2) * hidden + (1 << 20) + 7;
    assert_eq!(
        found.peak_recomputed(),
        found.weights + found.optimizer_state + layer
    );
    // Without a layer that needs more: all gradients, and AdamW's temporary tensors.
    let net = net();
    let found = on_gpu(&net, |workload| workload.in_backward = false);
    let end = found.gradients + 4 * gradient;
    assert_eq!(
        found.peak_recomputed(),
        found.weights + found.optimizer_state + end
    );
}

#[test]
fn the_gradients_of_large_adapters_exist_at_the_end_of_the_backward_pass() {
    let net = net();
    let workload = Workload::new(&net, 1, 4);
    let plan = MemoryPlan::lora(&net, &Adapters::all(300, false), &workload).unwrap();
    let found = plan.at_peak;
    assert_eq!(
        (found.gradients, found.activations),
        (plan.gradients, hidden_of(&net))
    );
    assert_eq!(plan.gradients, 8 * 300 * (32 + 32) * 4);
    // The update of a matrix of 300 x 32 elements.
    assert_eq!(found.temporary - hidden_of(&net), 16 * 300 * 32);
    // The lowest layer runs backward last.
    let large = Backward {
        net: net.clone(),
        layer: 1 << 24,
    };
    let found = MemoryPlan::lora(&large, &Adapters::all(300, false), &workload).unwrap();
    assert_eq!(found.at_peak.gradients, plan.gradients);
}

/// Bytes of the logits of a [`Net`] for one row of four tokens.
fn hidden_of(net: &Net) -> u64 {
    net.activations(&Workload::new(net, 1, 4)).logits
}

#[derive(Module, Debug)]
struct OnGraph {
    net: Net,
}

impl Footprint for OnGraph {
    fn activations(&self, workload: &Workload) -> Activations {
        Activations {
            logits: 0,
            head: 1,
            head_backward: 1 << 20,
            ..self.net.activations(workload)
        }
    }
}

#[test]
fn the_backward_pass_of_a_trainable_head_has_its_temporary_tensors() {
    let model = OnGraph { net: net() };
    let found = on_gpu(&model, |_| ());
    let hidden = 4 * 32 * 4;
    assert_eq!(found.at_peak.temporary, (1 << 20) + 5 * hidden);
    // All activations and the gradient of the head exist then.
    assert_eq!(found.at_peak.activations, (6 + 2 * 2) * hidden);
    assert_eq!(found.at_peak.gradients, 1024 * 4);
    assert!(found.peak_recomputed() < 1 << 20);
    let frozen = Some(ParamGroup::from_any_predicates(vec!["embed", "head"]));
    let config = LisaConfig::new().with_frozen(frozen);
    let frozen = plan(&model, &config).unwrap();
    assert!(frozen.peak() < 1 << 20);
}

#[derive(Module, Debug)]
struct Parts {
    net: Net,
    input: u64,
    freed: u64,
}

impl Footprint for Parts {
    fn activations(&self, workload: &Workload) -> Activations {
        Activations {
            layer_backward: 1 << 20,
            input: self.input,
            freed: self.freed,
            ..self.net.activations(workload)
        }
    }
}

#[test]
fn the_input_of_a_recomputed_layer_is_counted_once_and_what_is_freed_not_in_the_backward_pass() {
    let hidden = 4 * 32 * 4;
    let peaks = |input, freed| {
        let net = Parts {
            net: net(),
            input,
            freed,
        };
        let found = plan(&net, &LisaConfig::new()).unwrap();
        let lora = MemoryPlan::lora(&net, &Adapters::all(2, false), &Workload::new(&net, 1, 4));
        let lora = lora.unwrap();
        [
            found.peak(),
            found.peak_recomputed(),
            lora.peak(),
            lora.peak_recomputed(),
        ]
    };
    let [plain, recomputed, lora, lora_recomputed] = peaks(0, 0);
    assert_eq!(
        peaks(hidden, 0),
        [plain, recomputed - hidden, lora, lora_recomputed - hidden]
    );
    // The second layer that runs backward is active. LoRA keeps what is freed.
    assert_eq!(
        peaks(0, 100),
        [plain - 100, recomputed - 100, lora, lora_recomputed]
    );
}
