//! [`LayerMap::find`] and [`LayerMap::at`]: which list of modules is the stack of layers.

use std::collections::{BTreeMap, HashMap, HashSet};

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Tensor};

use super::map::{Layer, LayerMap, Parameter};
use crate::visit::{FloatVisitor, ModulePath, requires_gradients, visit_floats};
use crate::{ErrorKind, LisaError};

impl LayerMap {
    /// Finds the stack of layers: of all lists of modules whose items have the same parameter paths
    /// and shapes, the one with the most parameters. A list with one item counts only if no list
    /// has more.
    ///
    /// Lazy parameters are initialized. Cost: one visit of the module.
    ///
    /// # Errors
    ///
    /// - There is no such list. Or another list, whose items may differ, has at least half as many
    ///   parameters and is not inside the stack, as in an encoder-decoder model or a model with
    ///   blocks of two kinds: name one or both with [`at`](Self::at). The message lists the
    ///   candidates with their paths and sizes.
    /// - There are tied parameters: one `ParamId` at two paths. Burn would give both the same
    ///   gradient, and the copies would then diverge. Use one parameter twice in `forward` instead.
    pub fn find<M: Module>(module: &M) -> Result<Self, LisaError> {
        Self::best(Tree::read(module)?)
    }

    fn best(tree: Tree) -> Result<Self, LisaError> {
        let of_size = |least: usize| -> Vec<&Stack> {
            let stacks = tree.stacks.iter();
            let is_one = |stack: &&Stack| stack.uniform && stack.items.len() >= least;
            stacks.filter(is_one).collect()
        };
        let mut uniform = of_size(2);
        if uniform.is_empty() {
            uniform = of_size(1);
        }
        let Some(best) = uniform.iter().max_by_key(|stack| stack.size) else {
            return Err(tree.refuse(
                "found no stack of layers: no Vec of modules whose items share parameter paths \
                 and shapes",
            ));
        };
        // Items of several kinds may be the layers as well: blocks of two kinds, or stages, of which
        // the best stack is one.
        let several = tree.stacks.iter();
        let several = several.filter(|s| !s.uniform && s.items.len() >= 2);
        let mut others = uniform.iter().copied().chain(several);
        let rival = others.find(|s| {
            let is_apart = s.path != best.path && !best.contains(s);
            is_apart && (s.size * 2 >= best.size || s.contains(best))
        });
        if let Some(rival) = rival {
            return Err(tree.refuse(&format!(
                "the stack of layers is ambiguous: `{}` and `{}` are both candidates",
                best.path, rival.path
            )));
        }
        let stacks = [best.path.clone()];
        tree.map(&stacks)
    }

    /// Takes the stacks at these paths, in this order, for example `model.layers`, or
    /// `encoder.layers` and `decoder.layers`. Items need not have the same shapes. The first names
    /// of a path may be left out if the rest still identifies one stack.
    ///
    /// # Errors
    ///
    /// A path names no `Vec` of modules, or several; the message lists the candidates. There are
    /// tied parameters, as in [`find`](Self::find).
    pub fn at<M: Module>(module: &M, paths: &[String]) -> Result<Self, LisaError> {
        Self::named(Tree::read(module)?, paths)
    }

    fn named(tree: Tree, paths: &[String]) -> Result<Self, LisaError> {
        let mut found = Vec::with_capacity(paths.len());
        for path in paths {
            let tail = format!(".{path}");
            let mut hits: Vec<&Stack> = tree.stacks.iter().filter(|s| s.path == *path).collect();
            if hits.is_empty() {
                let ends = |s: &&Stack| s.path.ends_with(&tail);
                hits = tree.stacks.iter().filter(ends).collect();
            }
            match hits[..] {
                [stack] if found.contains(&stack.path) => {
                    return Err(tree.refuse(&format!("`{path}` is asked for twice")));
                }
                [stack] => found.push(stack.path.clone()),
                [] => return Err(tree.refuse(&format!("no stack of layers is at `{path}`"))),
                _ => return Err(tree.refuse(&format!("`{path}` names {} stacks", hits.len()))),
            }
        }
        tree.map(&found)
    }

    /// [`find`](Self::find), or [`at`](Self::at) these paths if there are any.
    pub(crate) fn of<M: Module>(module: &M, paths: &[String]) -> Result<Self, LisaError> {
        Self::of_tree(Tree::read(module)?, paths)
    }

    /// [`of`](Self::of) that initializes nothing: a lazy parameter counts as f32 and trainable.
    pub(crate) fn of_shapes<M: Module>(module: &M, paths: &[String]) -> Result<Self, LisaError> {
        let mut reader = Reader {
            lazy: true,
            ..Reader::default()
        };
        visit_floats(module, &mut reader);
        Self::of_tree(Tree::of(reader)?, paths)
    }

    fn of_tree(tree: Tree, paths: &[String]) -> Result<Self, LisaError> {
        if paths.is_empty() {
            Self::best(tree)
        } else {
            Self::named(tree, paths)
        }
    }
}

/// A candidate: the path of a `Vec` and the parameters of its elements.
struct Stack {
    path: String,
    items: BTreeMap<usize, Vec<usize>>,
    uniform: bool,
    size: usize,
}

impl Stack {
    fn contains(&self, other: &Self) -> bool {
        let inner = other.path.strip_prefix(&self.path);
        // A model that is a list has no path.
        self.path != other.path
            && inner.is_some_and(|inner| self.path.is_empty() || inner.starts_with('.'))
    }
}

/// The path of an element of the `Vec` at `path`.
fn item_path(path: &str, item: usize) -> String {
    if path.is_empty() {
        item.to_string()
    } else {
        format!("{path}.{item}")
    }
}

/// All parameters of a module and every `Vec` of modules in it.
struct Tree {
    parameters: Vec<Parameter>,
    stacks: Vec<Stack>,
}

impl Tree {
    fn read<M: Module>(module: &M) -> Result<Self, LisaError> {
        let mut reader = Reader::default();
        visit_floats(module, &mut reader);
        Self::of(reader)
    }

    fn of(reader: Reader) -> Result<Self, LisaError> {
        let parameters = reader.parameters;

        let mut paths: HashMap<ParamId, &str> = HashMap::new();
        for parameter in &parameters {
            if let Some(other) = paths.insert(parameter.id, &parameter.path) {
                return Err(LisaError::new(
                    ErrorKind::Layers,
                    format!(
                        "`{other}` and `{}` are one tied parameter at two paths, whose copies \
                         would drift apart after a step",
                        parameter.path
                    ),
                )
                .with_help("keep it at one path and use it twice in forward"));
            }
        }

        let stacks = reader
            .stacks
            .into_iter()
            .map(|(path, items)| {
                let shape_of = |item: usize, parameters_of: &Vec<usize>| -> Vec<_> {
                    let front = item_path(&path, item);
                    parameters_of
                        .iter()
                        .map(|&i| {
                            let p = &parameters[i];
                            let inner = p.path.strip_prefix(&front).unwrap_or(&p.path);
                            (inner.to_string(), p.shape.clone())
                        })
                        .collect()
                };
                let mut shapes = items.iter().map(|(&i, ps)| shape_of(i, ps));
                let first = shapes.next();
                let uniform = shapes.all(|shape| Some(&shape) == first.as_ref());
                let size = items.values().flatten().map(|&i| parameters[i].len()).sum();
                Stack {
                    path,
                    items,
                    uniform,
                    size,
                }
            })
            .collect();
        Ok(Self { parameters, stacks })
    }

    fn map(self, paths: &[String]) -> Result<LayerMap, LisaError> {
        let mut taken = HashSet::new();
        let mut layers = Vec::new();
        for path in paths {
            let Some(stack) = self.stacks.iter().find(|s| s.path == *path) else {
                continue;
            };
            for (item, parameters) in &stack.items {
                if parameters.iter().any(|&parameter| !taken.insert(parameter)) {
                    return Err(self.refuse(&format!(
                        "the stack `{path}` lies inside another that was asked for"
                    )));
                }
                layers.push(Layer {
                    path: item_path(path, *item),
                    parameters: parameters.clone(),
                    size: parameters.iter().map(|&i| self.parameters[i].len()).sum(),
                });
            }
        }
        let item_of = (0..layers.len()).collect();
        Ok(LayerMap::new(self.parameters, layers, item_of))
    }

    fn refuse(&self, what: &str) -> LisaError {
        let found = if self.stacks.is_empty() {
            "the module has no Vec of modules with parameters".to_owned()
        } else {
            let show = |stack: &Stack| {
                let shapes = if stack.uniform {
                    ""
                } else {
                    ", of different shapes"
                };
                let (path, items, size) = (&stack.path, stack.items.len(), stack.size);
                format!("`{path}` ({items} layers, {size} parameters{shapes})")
            };
            let candidates: Vec<String> = self.stacks.iter().map(show).collect();
            format!("candidates: {}", candidates.join(", "))
        };
        LisaError::new(ErrorKind::Layers, format!("{what}; {found}")).with_help(
            "name the layers: by LisaConfig::with_layers for a run, otherwise by LayerMap::at",
        )
    }
}

/// Records every float parameter of a module and every list of modules that contains it.
#[derive(Default)]
struct Reader {
    /// Whether lazy parameters are left uninitialized.
    lazy: bool,
    parameters: Vec<Parameter>,
    /// By path of a list: its items by index, and their parameters.
    stacks: BTreeMap<String, BTreeMap<usize, Vec<usize>>>,
}

impl FloatVisitor for Reader {
    fn visit_float<const D: usize>(&mut self, path: &ModulePath, param: &Param<Tensor<D>>) {
        for (list, index) in path.lists() {
            let items = self.stacks.entry(list).or_default();
            items.entry(index).or_default().push(self.parameters.len());
        }
        let (dtype, trainable) = if self.lazy && !param.is_initialized() {
            (DType::F32, true)
        } else {
            // Initializes a lazy parameter: freezing a lazy one would freeze its clones as well.
            (param.val().dtype(), requires_gradients(param))
        };
        self.parameters.push(Parameter {
            path: path.to_string(),
            id: param.id,
            shape: param.lazy_shape().to_vec(),
            dtype,
            trainable,
        });
    }
}
