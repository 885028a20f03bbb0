use burn::module::ParamGroup;
use burn::tensor::FloatDType;
use lisa::LisaConfig;
use lisa::memory::{MemoryPlan, Workload};

use super::*;
use crate::ModelConfig;
use crate::checkpoint::Checkpoint;
use crate::model::config::{Gpt2Config, LlamaConfig};
use crate::model::ops::Activation;
use crate::model::spec::{BlockSpec, NormPlacement};
use crate::test_support::{MODELS, fixture};

#[test]
fn planned_adapters_are_those_that_are_added() {
    let device = Device::default().autodiff();
    let mut llama = LlamaConfig::new(64, 16, 3, 4);
    llama.num_key_value_heads = 2;
    let configs = [
        (
            ModelConfig::Llama(llama),
            "v_proj",
            "layers.1.mlp.down_proj",
        ),
        (
            ModelConfig::Gpt2(Gpt2Config::new(64, 16, 3, 4)),
            "c_attn",
            "h.1.mlp.c_proj",
        ),
    ];
    for (config, name, one) in configs {
        let all = LoraConfig::new(3);
        for (lora, layers) in [
            (all.clone(), [true; 3]),
            (all.clone().with_modules([name]), [true; 3]),
            (all.clone().with_modules([one]), [false, true, false]),
            (all.with_modules(["lm_head"]), [false; 3]),
        ] {
            let model = config.init(&device).unwrap();
            let run = Workload::new(&model, 2, 5);
            let planned = model.planned_lora(&lora, &run);
            let weight = &model.model.layers[0].mlp.down_proj.weight;
            assert!(!weight.is_initialized());
            let of_layers = planned.of_layers.clone().unwrap();
            let has = of_layers.iter().map(|layer| !layer.weights.is_empty());
            assert!(has.eq(layers), "{of_layers:?}");
            let plan = MemoryPlan::lora(&model, &planned, &run).unwrap();
            let mut added = model.with_lora(&lora).unwrap();
            let adapters = added.linear_mut().filter_map(|(.., projection)| {
                let lora = projection.lora.as_ref()?;
                Some(lora.a.dims()[0] + lora.b.dims()[1])
            });
            let elements = 3 * adapters.sum::<usize>();
            assert_eq!(plan.gradients, 4 * elements as u64, "{lora:?}");
        }
    }
}

#[test]
fn adapters_on_all_matrices_keep_the_inputs_of_all_matmuls() {
    let device = Device::default().autodiff();
    for name in MODELS {
        let checkpoint = Checkpoint::open(fixture(name)).unwrap();
        let model = checkpoint.config().init(&device).unwrap();
        let run = Workload::new(&model, 2, 5);
        let named = model.planned_lora(&LoraConfig::new(3), &run);
        let plan = |adapters| MemoryPlan::lora(&model, &adapters, &run).unwrap();
        assert_eq!(plan(named), plan(Adapters::all(3, false)), "{name}");
    }
}

#[test]
fn with_dropout_each_adapter_keeps_its_own_input_and_a_mask() {
    let device = Device::default().autodiff();
    let config = ModelConfig::Llama(LlamaConfig::new(64, 16, 3, 2));
    let model = config.init(&device).unwrap();
    let run = Workload::new(&model, 2, 5);
    let inputs = |dropout, modules: &[&str]| {
        let lora = LoraConfig::new(3).with_dropout(dropout);
        let lora = lora.with_modules(modules.iter().copied());
        let planned = model.planned_lora(&lora, &run);
        planned.of_layers.unwrap()[1].inputs
    };
    let of_hidden = 2 * 5 * 16 * 4;
    let qkv = ["q_proj", "k_proj", "v_proj"];
    assert_eq!(inputs(0.0, &qkv), of_hidden);
    assert_eq!(inputs(0.1, &qkv), 3 * 2 * of_hidden);
    assert_eq!(inputs(0.1, &["v_proj"]), 2 * of_hidden);
}

#[test]
fn each_row_has_a_mask_which_all_heads_share() {
    let device = Device::default().autodiff();
    let workspace = |kv_heads, window, rows| {
        let mut llama = LlamaConfig::new(64, 16, 3, 4);
        llama.num_key_value_heads = kv_heads;
        llama.sliding_window = window;
        llama.sliding_layers[0] = window.is_some();
        let model = ModelConfig::Llama(llama).init(&device).unwrap();
        model
            .activations(&Workload::new(&model, rows, 32))
            .workspace
    };
    let one = workspace(4, None, 1);
    // And cosines and sines in f32, for heads of four elements.
    let (mask, tables) = (32 * 32, 2 * 32 * 4 * 4);
    assert_eq!(workspace(4, None, 3) - one, 2 * (mask + tables));
    assert_eq!(workspace(1, None, 3), workspace(4, None, 3));
    // Layers with a window have another mask, unless the window covers the row.
    assert_eq!(workspace(4, Some(31), 1), one + mask);
    assert_eq!(workspace(4, Some(32), 1), one);
}

#[cfg(feature = "custom-backward")]
#[test]
fn a_recomputed_layer_keeps_nothing_that_grows_with_the_square_of_the_length() {
    let plain = Device::default().autodiff();
    let kept = |device: &Device, dtype, sequence| {
        let config = ModelConfig::Llama(LlamaConfig::new(64, 16, 3, 2));
        let model = config.init(device).unwrap();
        let workload = Workload {
            dtype,
            ..Workload::new(&model, 2, sequence)
        };
        model.activations(&workload).frozen_layer
    };
    let half = FloatDType::BF16;
    assert_eq!(kept(&plain, half, 2048), 16 * kept(&plain, half, 128));
    // In bf16: two norms, queries, keys and values, rotated queries, gate and up.
    let inner = LlamaConfig::new(64, 16, 3, 2).intermediate_size;
    let elements = 2 * 16 + 3 * 16 + 16 + 2 * inner;
    assert_eq!(kept(&plain, half, 128), (2 * 128 * elements * 2) as u64);
    // With Burn's gradient checkpointing, operations are written out.
    let written_out = plain.gradient_checkpointing();
    for dtype in [half, FloatDType::F32] {
        let [short, long] = [128, 2048].map(|n| kept(&written_out, dtype, n));
        assert!(long > 32 * short, "{dtype:?}: {short} {long}");
    }
}

#[test]
fn a_frozen_head_needs_nothing_for_its_gradient() {
    let device = Device::default().autodiff();
    let mut llama = LlamaConfig::new(4096, 16, 3, 2);
    llama.tie_word_embeddings = true;
    for config in [
        ModelConfig::Llama(llama),
        ModelConfig::Gpt2(Gpt2Config::new(4096, 16, 3, 2)),
    ] {
        let model = config.init(&device).unwrap();
        let run = Workload {
            dtype: FloatDType::BF16,
            ..Workload::new(&model, 2, 64)
        };
        let temporary = |config: &LisaConfig| {
            let plan = MemoryPlan::lisa(&model, config, &run).unwrap();
            plan.at_peak_recomputed.temporary
        };
        // The final norm still trains, and so do GPT-2's positions, which are a matrix, too.
        let frozen = ParamGroup::from_any_predicates(vec!["embed_tokens", "lm_head"]);
        let [all, frozen] =
            [None, Some(frozen)].map(|frozen| temporary(&LisaConfig::new().with_frozen(frozen)));
        let of_weight = model.activations(&run).head_weight;
        assert!(of_weight > 0);
        assert_eq!(all - frozen, of_weight);
    }
}

#[test]
fn the_loss_of_an_adapted_head_needs_more_than_that_of_another() {
    let device = Device::default().autodiff();
    let config = ModelConfig::Llama(LlamaConfig::new(4096, 16, 3, 2));
    let model = config.init(&device).unwrap();
    let run = Workload::new(&model, 2, 64);
    let head_loss = |lora: LoraConfig| model.planned_lora(&lora, &run).head_loss;
    assert_eq!(head_loss(LoraConfig::new(3)), 0);
    let adapted = head_loss(LoraConfig::new(3).with_modules(["lm_head"]));
    // The logits and their exponentials at least, which are all in one slice.
    assert!(adapted > model.activations(&run).head.max(2 * 128 * 4096 * 4));
}

/// Options that no supported family has.
#[test]
fn blocks_of_other_families_are_counted() {
    let llama = LlamaConfig::new(64, 16, 3, 4);
    let inner = llama.intermediate_size;
    let plain = ModelConfig::Llama(llama).spec();
    let of = |form, change: fn(&mut BlockSpec)| {
        let mut spec = plain.clone();
        change(&mut spec.block);
        per_token(&spec, form, 4, true)
    };
    for form in [Form::Fused, Form::Recomputed, Form::WrittenOut] {
        let frozen = |change: fn(&mut BlockSpec)| of(form, change).frozen;
        let one = frozen(|_| ());
        assert_eq!(frozen(|block| block.placement = NormPlacement::After), one);
        let both = frozen(|block| block.placement = NormPlacement::Both);
        assert_eq!(both, one + 2 * 16, "{form:?}");
        // Rotated queries and keys, next to the output of one projection.
        let joint = frozen(|block| block.attention.fused_qkv = true);
        assert_eq!(joint, one + 2 * 16, "{form:?}");
    }
    // A gate is fused with SiLU alone: GELU has five tensors more.
    let feed_forward = |change: fn(&mut BlockSpec)| of(Form::Fused, change).feed_forward;
    let gelu = feed_forward(|block| block.feed_forward.activation = Activation::Gelu);
    assert_eq!(feed_forward(|_| ()), 2 * 16 + 3 * inner);
    assert_eq!(gelu, 2 * 16 + (2 + 5) * inner);
}
