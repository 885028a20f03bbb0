//! Random module trees: in any tree, exactly the sampled layers train.
//!
//! The tree is read here a second time, by paths alone, so that nothing of `LayerMap` is taken for
//! granted. A failure names the seed of its tree.

use std::collections::BTreeMap;

use burn::nn::{LayerNorm, LayerNormConfig};

use super::*;
use crate::LayerMap;

/// Trees of one run.
const TREES: u64 = 400;

#[derive(Module, Debug)]
enum Leaf {
    Linear(Linear),
    Norm(LayerNorm),
    Pair((Linear, Linear)),
}

#[derive(Module, Debug)]
struct Tree {
    first: Option<Leaf>,
    children: Vec<Tree>,
    stack: Vec<Leaf>,
    nested: Vec<Vec<Linear>>,
    array: [Linear; 2],
    last: Option<LayerNorm>,
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: u64) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % end) as usize
    }

    fn linear(&mut self, same: bool) -> Linear {
        let size = |rng: &mut Self| if same { 2 } else { 1 + rng.below(3) };
        let (input, output) = (size(self), size(self));
        LinearConfig::new(input, output)
            .with_bias(same || self.below(2) == 0)
            .init(&device())
    }

    fn leaf(&mut self, same: bool) -> Leaf {
        match if same { 0 } else { self.below(4) } {
            1 => Leaf::Norm(LayerNormConfig::new(1 + self.below(3)).init(&device())),
            2 => Leaf::Pair((self.linear(false), self.linear(false))),
            _ => Leaf::Linear(self.linear(same)),
        }
    }

    /// A list whose items are alike, or not.
    fn list<T>(&mut self, most: u64, mut item: impl FnMut(&mut Self, bool) -> T) -> Vec<T> {
        let same = self.below(3) > 0;
        let count = if self.below(3) == 0 {
            0
        } else {
            self.below(most)
        };
        (0..count).map(|_| item(self, same)).collect()
    }

    fn tree(&mut self, depth: u64) -> Tree {
        let children = if depth == 0 {
            Vec::new()
        } else {
            let state = self.0;
            self.list(4, |rng, same| {
                if same {
                    // From the same numbers comes the same tree.
                    Rng(state).tree(depth - 1)
                } else {
                    rng.tree(depth - 1)
                }
            })
        };
        Tree {
            first: (self.below(2) == 0).then(|| self.leaf(false)),
            children,
            // More than ten, so that `stack.1` is not `stack.10`.
            stack: self.list(13, Self::leaf),
            nested: self.list(3, |rng, _| rng.list(4, Self::linear)),
            array: [self.linear(true), self.linear(true)],
            last: (self.below(2) == 0).then(|| LayerNormConfig::new(2).init(&device())),
        }
    }
}

/// What a visitor finds out about each parameter: its id, whether it requires gradients, its bits.
#[derive(Default)]
struct Look {
    path: Vec<String>,
    found: BTreeMap<String, (ParamId, bool, Vec<u32>)>,
    /// Paths of lists, by what the module says of its containers.
    lists: BTreeSet<String>,
    loss: Option<Tensor<1>>,
}

impl ModuleVisitor for Look {
    fn enter_module(&mut self, name: &str, container: &str) {
        if matches!(container, "Vec" | "Array") {
            self.lists.insert(self.path.join("."));
        }
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let data = value.clone().into_data();
        let bits = data.iter::<f32>().map(f32::to_bits).collect();
        let path = self.path.join(".");
        self.found
            .insert(path, (param.id, value.is_require_grad(), bits));
        // A gradient for each parameter, and never 0: (x + 3)^2, with weights far from -3.
        let loss = value.add_scalar(3.0).square().sum();
        self.loss = Some(match self.loss.take() {
            Some(sum) => sum + loss,
            None => loss,
        });
    }
}

fn look<M: Module>(module: &M) -> Look {
    let mut look = Look::default();
    module.visit(&mut look);
    look
}

/// Trains `module` over some draws and compares each step with what paths say.
fn check<M: Module>(seed: u64, config: &LisaConfig, module: M) {
    let (mut lisa, mut module) = config.init(adamw(), module).unwrap();
    for step in 0..6 {
        let layers: Vec<String> = lisa
            .layers()
            .layers()
            .iter()
            .map(|layer| layer.path.clone())
            .collect();
        let before = look(&module);
        let within = |path: &str, layer: &String| path.starts_with(&format!("{layer}."));
        let trains = |path: &str| match layers.iter().position(|layer| within(path, layer)) {
            Some(layer) => lisa.active_layers().contains(&layer),
            None => true,
        };
        let expected: BTreeSet<&String> = before.found.keys().filter(|path| trains(path)).collect();
        let requires: BTreeSet<&String> = (before.found.iter())
            .filter_map(|(path, found)| found.1.then_some(path))
            .collect();
        assert_eq!(requires, expected, "tree {seed}, step {step}: gradients");
        let ids: BTreeSet<u64> = expected.iter().map(|p| before.found[*p].0.val()).collect();
        let draws = step % config.sampling_period + 1 == config.sampling_period;

        let grads = before.loss.as_ref().map(Tensor::backward);
        let grads = grads.map(|grads| GradientsParams::from_grads(grads, &module));
        module = lisa.step(0.01, module, grads.unwrap());

        let after = look(&module);
        for (path, (_, _, bits)) in &before.found {
            let same = *bits == after.found[path].2;
            assert_eq!(
                !same,
                expected.contains(path),
                "tree {seed}, step {step}: {path}"
            );
        }
        let bytes = lisa.get_ref().to_record().into_bytes().unwrap();
        let reader = burn_pack::Reader::from_bytes(bytes).unwrap();
        let held: BTreeSet<u64> = reader
            .tensor_names()
            .iter()
            .filter_map(|name| name.split('.').next()?.parse().ok())
            .collect();
        if draws {
            // What was drawn again keeps its moments, what left has none.
            let requires = after.found.values().filter(|found| found.1);
            let requires: BTreeSet<u64> = requires.map(|found| found.0.val()).collect();
            let stay: BTreeSet<u64> = ids.intersection(&requires).copied().collect();
            assert_eq!(held, stay, "tree {seed}, step {step}: moments after a draw");
        } else {
            assert_eq!(held, ids, "tree {seed}, step {step}: moments");
        }
    }
}

#[test]
fn exactly_the_drawn_layers_train_whatever_the_tree() {
    let (mut found, mut named, mut refused) = (0, 0, 0);
    for seed in 0..TREES {
        let mut rng = Rng(seed);
        let depth = rng.below(3) as u64;
        let tree = rng.tree(depth);
        let config = LisaConfig::new()
            .with_seed(seed)
            .with_active_layers(1)
            .with_sampling_period(2);
        match LayerMap::find(&tree) {
            Ok(map) => {
                assert!(map.layers().len() > 1, "tree {seed}");
                let config = config.with_active_layers(1 + rng.below(map.layers().len() as u64));
                check(seed, &config, tree);
                found += 1;
            }
            Err(error) => {
                let message = error.to_string();
                assert!(
                    message.contains("ambiguous") || message.contains("no stack"),
                    "tree {seed}: {message}"
                );
                // Any list may be named; that of lists inside it is another one.
                let lists: Vec<String> = look(&tree).lists.into_iter().collect();
                let list = lists[rng.below(lists.len() as u64)].clone();
                match LayerMap::at(&tree, std::slice::from_ref(&list)) {
                    Ok(map) if !map.layers().is_empty() => {
                        check(seed, &config.with_layers(vec![list]), tree);
                        named += 1;
                    }
                    _ => refused += 1,
                }
            }
        }
    }
    // The generator makes all kinds.
    assert!(found > 100 && named > 20, "{found} {named} {refused}");
}

#[test]
fn a_list_that_is_the_whole_model_is_found() {
    for seed in 0..20 {
        let mut rng = Rng(seed);
        let list: Vec<Linear> = (0..2 + rng.below(11)).map(|_| rng.linear(true)).collect();
        let count = list.len();
        let map = LayerMap::find(&list).unwrap();
        assert_eq!(map.layers().len(), count);
        assert_eq!(map.layers()[1].path, "1");
        check(seed, &LisaConfig::new().with_sampling_period(2), list);
    }
}

#[test]
fn a_tied_parameter_is_refused_wherever_it_is() {
    let mut tied = 0;
    for seed in 0..TREES {
        let mut rng = Rng(seed);
        let mut tree = rng.tree(2);
        let from = tree.array[0].weight.clone();
        let deepest = |tree: &mut Tree| -> Option<Param<Tensor<2>>> {
            let child = tree.children.last_mut()?;
            Some(std::mem::replace(&mut child.array[1].weight, from.clone()))
        };
        if deepest(&mut tree).is_none() {
            continue;
        }
        tied += 1;
        let message = LayerMap::find(&tree).unwrap_err().to_string();
        assert!(message.contains("tied"), "tree {seed}: {message}");
        assert!(LisaConfig::new().init(adamw(), tree).is_err());
    }
    assert!(tied > 50, "{tied}");
}
