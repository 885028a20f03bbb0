//! Plans with recomputed segments of several layers.

use super::*;

/// One segment is plain autodiff. Its plan has one more hidden state: the input of the stack is counted as
/// that of a segment and as that of the first layer.
#[test]
fn one_segment_of_all_layers_needs_as_much_as_no_recomputation() {
    let (hidden, matrix) = (4 * 32 * 4, 1024 * 4);
    let large = Backward {
        net: net(),
        layer: 1 << 20,
    };
    for weights in [
        FrozenWeights::Exact,
        FrozenWeights::Int8,
        FrozenWeights::Int4,
    ] {
        let config = LisaConfig::new().with_frozen_weights(weights);
        let found = |every, in_backward| {
            let workload = Workload {
                flex: false,
                recompute: Recompute::new().with_every(every),
                in_backward,
                ..Workload::new(&large, 1, 4)
            };
            MemoryPlan::lisa(&large, &config, &workload).unwrap()
        };
        let plain = found(1, false).peak() + hidden;
        assert_eq!(found(8, false).peak_recomputed(), plain, "{weights:?}");
        // The gradient of the head is used before.
        assert_eq!(found(8, true).peak_recomputed(), plain - matrix);
        // Of three layers two are active.
        let smaller = found(3, true).peak_recomputed();
        assert!(found(1, true).peak_recomputed() < smaller && smaller < plain - matrix);
    }
    let workload = |every| Workload {
        recompute: Recompute::new().with_every(every),
        in_backward: false,
        ..Workload::new(&large, 1, 4)
    };
    let adapters = Adapters::all(2, false);
    let lora = |every| MemoryPlan::lora(&large, &adapters, &workload(every)).unwrap();
    assert_eq!(lora(8).peak_recomputed(), lora(8).peak() + hidden);
}

#[test]
fn the_last_segment_of_several_layers_exists_while_the_head_runs() {
    let sliced = Sliced { net: net() };
    let (hidden, matrix) = (4 * 32 * 4, 1024 * 4);
    let head = HEAD + HEAD_WEIGHT + 5 * hidden + matrix;
    let at_head = |every, weights| {
        let workload = Workload {
            recompute: every,
            ..Workload::new(&sliced, 1, 4)
        };
        let config = LisaConfig::new().with_frozen_weights(weights);
        let found = MemoryPlan::lisa(&sliced, &config, &workload).unwrap();
        found.peak_recomputed() - found.weights - found.optimizer_state - head
    };
    let every = |n| Recompute::new().with_every(n);
    let exact = |every| at_head(every, FrozenWeights::Exact);
    // The inputs of three segments and of the head, and the last two layers, which may be active.
    assert_eq!(exact(every(3)), 4 * hidden + 2 * 2 * hidden);
    assert_eq!(exact(every(7)), 3 * hidden + 2 * hidden);
    assert_eq!(exact(every(8)), 2 * hidden + (2 * 2 + 6) * hidden);
    // It is recomputed by sublayer, and so are segments of one layer.
    assert_eq!(exact(every(3).with_sublayers()), 4 * hidden);
    assert_eq!(exact(every(1)), 9 * hidden);
    // Frozen layers are dequantized.
    let int8 = |every| at_head(every, FrozenWeights::Int8);
    assert_eq!(int8(every(3)), 4 * hidden + 2 * (hidden + matrix));
    assert_eq!(int8(every(8)), exact(every(8)) + 6 * matrix);
    assert_eq!(int8(every(1)), 9 * hidden);
    // LoRA has the inputs and the products of its adapters.
    let lora = |every| {
        let workload = Workload {
            recompute: every,
            ..Workload::new(&sliced, 1, 4)
        };
        let found = MemoryPlan::lora(&sliced, &Adapters::all(2, false), &workload).unwrap();
        found.peak_recomputed() - found.weights - found.optimizer_state - HEAD - 5 * hidden
    };
    let layer = 2 * hidden - hidden / 4 + 2 * 4 * 4;
    assert_eq!(lora(every(3)), 4 * hidden + 2 * layer);
    assert_eq!(lora(every(3).with_sublayers()), 4 * hidden);
}

#[derive(Module, Debug)]
struct Halves {
    blocks: Blocks,
}

impl Footprint for Halves {
    fn activations(&self, workload: &Workload) -> Activations {
        Activations {
            layer_backward: 1 << 20,
            ..self.blocks.activations(workload)
        }
    }
}

#[test]
fn the_frozen_part_of_an_active_layer_is_dequantized() {
    let device = Device::flex().autodiff();
    let linear = |n| LinearConfig::new(32, n).with_bias(false).init(&device);
    let block = || Block {
        self_attn: linear(32),
        mlp: linear(64),
    };
    let blocks = Blocks {
        layers: (0..4).map(|_| block()).collect(),
        head: linear(32),
    };
    let halves = Halves { blocks };
    let config = LisaConfig::new()
        .with_split(vec!["attn".into()])
        .with_frozen_weights(FrozenWeights::Int8);
    let workload = Workload {
        flex: false,
        ..Workload::new(&halves, 1, 4)
    };
    let found = MemoryPlan::lisa(&halves, &config, &workload).unwrap();
    let hidden = 4 * 32 * 4;
    // The states of four layers and a gradient. In a layer, the larger part trains and the other is frozen.
    let layer = (3 * hidden) + (2048 + 1024) * 4 + (1 << 20);
    assert_eq!(
        found.peak_recomputed() - found.weights - found.optimizer_state,
        5 * hidden + layer
    );
}
