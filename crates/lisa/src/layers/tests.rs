//! Discovery on module trees of several shapes, and what is refused.

use super::*;
use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::Device;

fn linear(n: usize) -> Linear {
    LinearConfig::new(n, n).init(&Device::flex().autodiff())
}

fn stack(layers: usize, n: usize) -> Vec<Linear> {
    (0..layers).map(|_| linear(n)).collect()
}

#[derive(Module, Debug)]
struct Block {
    attention: Linear,
    experts: Vec<Linear>,
}

#[derive(Module, Debug)]
struct Decoder {
    embed: Embedding,
    blocks: Vec<Block>,
    tail: Option<Linear>,
}

#[derive(Module, Debug)]
struct Pair {
    encoder: Vec<Linear>,
    decoder: Vec<Linear>,
}

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)]
enum Either {
    Decoder(Decoder),
    Pair(Pair),
}

fn decoder() -> Decoder {
    let device = Device::flex().autodiff();
    Decoder {
        embed: EmbeddingConfig::new(100, 4).init(&device),
        blocks: (0..3)
            .map(|_| Block {
                attention: linear(4),
                experts: stack(2, 4),
            })
            .collect(),
        tail: None,
    }
}

#[test]
fn the_outer_of_two_nested_stacks_is_the_one() {
    let map = LayerMap::find(&decoder()).unwrap();
    let paths: Vec<&str> = map.layers().iter().map(|l| l.path.as_str()).collect();
    assert_eq!(paths, ["blocks.0", "blocks.1", "blocks.2"]);
    assert_eq!(map.layers()[0].size, 3 * 20);
    assert_eq!(
        map.outside().map(|p| p.path.as_str()).collect::<Vec<_>>(),
        ["embed.weight"]
    );
    assert_eq!(map.parameters().len(), 1 + 3 * 6);
}

#[test]
fn the_stages_around_the_largest_stack_make_it_ambiguous() {
    let mut model = decoder();
    model.blocks[1].experts = stack(5, 4);
    let message = LayerMap::find(&model).unwrap_err().to_string();
    assert!(
        message.contains("`blocks.1.experts` and `blocks` are both candidates"),
        "{message}"
    );
    assert_eq!(
        LayerMap::at(&model, &["blocks".into()])
            .unwrap()
            .layers()
            .len(),
        3
    );
}

#[test]
fn options_and_enums_in_the_tree_are_walked() {
    let mut decoder = decoder();
    decoder.tail = Some(linear(4));
    let map = LayerMap::find(&Either::Decoder(decoder)).unwrap();
    assert_eq!(map.layers()[1].path, "Decoder.blocks.1");
    assert_eq!(map.outside().count(), 3);
}

#[test]
fn two_stacks_of_like_size_are_ambiguous_until_named() {
    let pair = Pair {
        encoder: stack(3, 4),
        decoder: stack(4, 4),
    };
    let message = LayerMap::find(&pair).unwrap_err().to_string();
    assert!(
        message.contains("`encoder` (3 layers, 60 parameters)"),
        "{message}"
    );
    assert!(
        message.contains("`decoder` (4 layers, 80 parameters)"),
        "{message}"
    );

    let map = LayerMap::at(&pair, &["decoder".into(), "encoder".into()]).unwrap();
    assert_eq!(map.layers().len(), 7);
    assert_eq!(map.layers()[4].path, "encoder.0");
    assert_eq!(map.outside().count(), 0);

    let small = Pair {
        encoder: stack(3, 2),
        decoder: stack(4, 4),
    };
    assert_eq!(LayerMap::find(&small).unwrap().layers().len(), 4);
    // A large list of modules that differ may be the stack as well.
    let mixed = Pair {
        encoder: vec![linear(8), linear(9)],
        decoder: stack(2, 2),
    };
    let message = LayerMap::find(&mixed).unwrap_err().to_string();
    assert!(
        message.contains("`decoder` and `encoder` are both candidates"),
        "{message}"
    );
    let map = LayerMap::at(&mixed, &["encoder".into()]).unwrap();
    assert_eq!(map.layers().len(), 2);
    // A stack of one layer counts where there is no larger one.
    let one = Pair {
        encoder: stack(1, 4),
        decoder: stack(2, 2),
    };
    assert_eq!(LayerMap::find(&one).unwrap().layers().len(), 2);
    let one = Pair {
        encoder: stack(1, 4),
        decoder: stack(1, 2),
    };
    assert_eq!(LayerMap::find(&one).unwrap().layers()[0].path, "encoder.0");
}

#[test]
fn a_path_may_leave_out_its_front_and_must_name_one_stack() {
    let pair = Either::Pair(Pair {
        encoder: stack(3, 4),
        decoder: stack(4, 4),
    });
    let at = |paths: &[&str]| {
        let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
        LayerMap::at(&pair, &paths)
            .map(|map| map.layers().len())
            .map_err(|e| e.to_string())
    };
    assert_eq!(at(&["encoder"]), Ok(3));
    assert_eq!(at(&["Pair.decoder"]), Ok(4));
    assert!(
        at(&["middle"])
            .unwrap_err()
            .contains("no stack of layers is at `middle`")
    );
    assert!(
        at(&["encoder", "encoder"])
            .unwrap_err()
            .contains("asked for twice")
    );
    let nested = LayerMap::at(&decoder(), &["experts".into()])
        .unwrap_err()
        .to_string();
    assert!(nested.contains("`experts` names 3 stacks"), "{nested}");
    let nested = ["blocks".into(), "blocks.1.experts".into()];
    let nested = LayerMap::at(&decoder(), &nested).unwrap_err().to_string();
    assert!(nested.contains("inside another"), "{nested}");
}

#[test]
fn a_module_without_a_stack_says_so() {
    let message = LayerMap::find(&linear(4)).unwrap_err().to_string();
    assert!(message.contains("found no stack of layers"), "{message}");
    let uneven = vec![linear(2), linear(3)];
    let pair = Pair {
        encoder: uneven,
        decoder: Vec::new(),
    };
    let message = LayerMap::find(&pair).unwrap_err().to_string();
    assert!(message.contains("of different shapes"), "{message}");
    assert_eq!(
        LayerMap::at(&pair, &["encoder".into()])
            .unwrap()
            .layers()
            .len(),
        2
    );
}

#[test]
fn tied_parameters_are_refused_by_name() {
    let mut pair = Pair {
        encoder: stack(3, 4),
        decoder: stack(1, 4),
    };
    pair.decoder[0].weight = pair.encoder[2].weight.clone();
    let message = LayerMap::find(&pair).unwrap_err().to_string();
    assert!(
        message.contains("`encoder.2.weight` and `decoder.0.weight`"),
        "{message}"
    );
}

#[test]
fn lazy_parameters_are_initialised_so_that_clones_stay_free() {
    let model = Pair {
        encoder: stack(3, 4),
        decoder: Vec::new(),
    };
    let clone = model.clone();
    LayerMap::find(&model).unwrap();
    let mut mask = crate::FreezeMask::new(burn::module::list_param_ids(&model));
    let model = mask.change(model, []);
    assert!(!model.encoder[0].weight.is_require_grad());
    assert!(clone.encoder[0].weight.is_require_grad());
}

#[test]
fn layers_are_split_by_names_and_stay_whole_where_these_split_nothing() {
    let split = |parts: &[&str]| {
        let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
        LayerMap::find(&decoder()).unwrap().split(&parts)
    };
    let map = split(&["attention"]).unwrap();
    let paths: Vec<&str> = map.layers().iter().map(|l| l.path.as_str()).collect();
    assert_eq!(paths.len(), 6);
    assert_eq!(paths[2..4], ["blocks.1[attention]", "blocks.1[other]"]);
    assert_eq!((map.layers()[2].size, map.layers()[3].size), (20, 40));
    assert_eq!((map.item_of(2), map.item_of(3), map.item_of(4)), (1, 1, 2));
    for (i, parameter) in map.parameters().iter().enumerate() {
        let layer = map.layer_of(i).map(|layer| &map.layers()[layer]);
        assert_eq!(layer.is_some(), parameter.path.starts_with("blocks"));
        assert!(layer.is_none_or(|layer| layer.parameters.contains(&i)));
    }
    let two = split(&["attention", "experts.1"]).unwrap();
    assert_eq!(two.layers()[0].path, "blocks.0[attention+experts.1]");
    assert_eq!(two.layers()[0].size, 40);
    assert_eq!(split(&[]).unwrap().layers().len(), 3);

    let message = split(&["attention", "mlp"]).unwrap_err().to_string();
    assert!(message.contains("`mlp`, which is in no path"), "{message}");
    assert!(message.contains("has attention.weight, attention.bias, experts.0"));
    let message = split(&["weight", "bias"]).unwrap_err().to_string();
    assert!(message.contains("all parameters are named"), "{message}");
    // A layer of another kind, of which nothing is named, stays whole.
    let mut pair = Pair {
        encoder: stack(3, 4),
        decoder: stack(4, 4),
    };
    for linear in &mut pair.decoder {
        linear.bias = None;
    }
    let map = LayerMap::at(&pair, &["decoder".into(), "encoder".into()]).unwrap();
    let map = map.split(&["bias".into()]).unwrap();
    assert_eq!(map.layers().len(), 4 + 2 * 3);
    assert_eq!(map.layers()[3].path, "decoder.3");
    assert_eq!(map.layers()[4].path, "encoder.0[bias]");
}
