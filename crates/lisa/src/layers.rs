//! [`LayerMap`]: finds the stack of layers in any module, and which parameters each layer owns.
//!
//! The module tree itself is read: a `Vec` (or array) of modules whose items share their
//! parameters' paths and shapes is a stack. Knows nothing of policies and optimizers.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Tensor};

use crate::{ErrorKind, LisaError};

mod split;

/// A float parameter of a module as the module tree has it.
///
/// # Example
///
/// ```
/// # use burn::module::Module;
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::tensor::Device;
/// # #[derive(Module, Debug)]
/// # struct Model { layers: Vec<Linear> }
/// # let device = Device::flex().autodiff();
/// # let model = Model { layers: (0..3).map(|_| LinearConfig::new(4, 2).init(&device)).collect() };
/// use burn::tensor::DType;
/// use lisa::layers::Parameter;
/// use lisa::LayerMap;
///
/// let map = LayerMap::find(&model)?;
/// let weight = &map.parameters()[0];
/// assert_eq!((weight.path.as_str(), &weight.shape[..]), ("layers.0.weight", &[4, 2][..]));
/// assert_eq!((weight.len(), weight.dtype, weight.trainable), (8, DType::F32, true));
/// assert_eq!(map.index_of(model.layers[0].weight.id), Some(0));
/// let all: usize = map.parameters().iter().map(Parameter::len).sum();
/// assert_eq!(all, 3 * (8 + 2));
/// # Ok::<(), lisa::LisaError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its path, such as `model.layers.3.mlp.up_proj.weight`.
    pub path: String,
    /// Its identity in Burn.
    pub id: ParamId,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its type.
    pub dtype: DType,
    /// Whether it required gradients when the map was made.
    pub trainable: bool,
}

impl Parameter {
    /// How many numbers it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One layer: an item of a stack, or after [`LayerMap::split`] a part of one.
///
/// # Example
///
/// ```
/// # use burn::module::Module;
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::tensor::Device;
/// # #[derive(Module, Debug)]
/// # struct Model { embed: Linear, layers: Vec<Linear> }
/// # let device = Device::flex().autodiff();
/// # let linear = || LinearConfig::new(4, 2).init(&device);
/// # let model = Model { embed: linear(), layers: vec![linear(), linear()] };
/// use lisa::layers::Layer;
/// use lisa::LayerMap;
///
/// let map = LayerMap::find(&model)?;
/// let second: &Layer = &map.layers()[1];
/// assert_eq!((second.path.as_str(), second.size), ("layers.1", 10));
/// assert_eq!(second.parameters, [4, 5]);
/// let path = |i: usize| map.parameters()[i].path.as_str();
/// assert_eq!((path(4), path(5)), ("layers.1.weight", "layers.1.bias"));
/// assert_eq!(map.layer_of(4), Some(1));
/// # Ok::<(), lisa::LisaError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its path, such as `model.layers.3`; of a part `model.layers.3[attn]`.
    pub path: String,
    /// Its parameters, as indices into [`LayerMap::parameters`].
    pub parameters: Vec<usize>,
    /// How many numbers these hold.
    pub size: usize,
}

/// Which parameters of a module belong to which layer, and which to none.
///
/// # Example
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::Device;
/// use lisa::LayerMap;
///
/// #[derive(Module, Debug)]
/// struct Model {
///     embed: Linear,
///     layers: Vec<Linear>,
/// }
///
/// let device = Device::flex().autodiff();
/// let linear = || LinearConfig::new(4, 4).init(&device);
/// let model = Model { embed: linear(), layers: (0..3).map(|_| linear()).collect() };
///
/// let map = LayerMap::find(&model)?;
/// assert_eq!(map.layers()[2].path, "layers.2");
/// assert_eq!(map.layers()[2].size, 20);
/// assert_eq!(map.outside().count(), 2);
/// // Where there are several stacks, name those that are meant.
/// assert_eq!(LayerMap::at(&model, &["layers".into()])?, map);
/// # Ok::<(), lisa::LisaError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerMap {
    parameters: Vec<Parameter>,
    layers: Vec<Layer>,
    layer_of: Vec<Option<usize>>,
    /// By layer: the item of the stacks that it is, or is a part of.
    item_of: Vec<usize>,
    index: HashMap<ParamId, usize>,
}

impl LayerMap {
    /// Finds the stack: of all stacks with at least two items, the one with the most parameters.
    ///
    /// Lazy parameters are initialised. Cost: one walk of the module tree.
    ///
    /// # Errors
    ///
    /// No stack; or a second one beside it (not inside it) with at least half as many
    /// parameters, as in an encoder-decoder: name one or both with
    /// [`at`](Self::at). The message lists the candidates with their paths and sizes. Tied
    /// parameters (one `ParamId` at two paths) are refused by name: Burn would give both one
    /// gradient and let the copies drift apart. Use one parameter twice in `forward` instead.
    pub fn find<M: Module>(module: &M) -> Result<Self, LisaError> {
        Self::best(Tree::read(module)?)
    }

    fn best(tree: Tree) -> Result<Self, LisaError> {
        let uniform: Vec<&Stack> = tree
            .stacks
            .iter()
            .filter(|stack| stack.uniform && stack.items.len() > 1)
            .collect();
        let Some(best) = uniform.iter().max_by_key(|stack| stack.size) else {
            return Err(tree.refuse(
                "found no stack of layers: no Vec of modules whose items share parameter paths \
                 and shapes",
            ));
        };
        let rival = uniform
            .iter()
            .filter(|s| s.path != best.path && !s.contains(best) && !best.contains(s))
            .find(|s| s.size * 2 >= best.size);
        if let Some(rival) = rival {
            return Err(tree.refuse(&format!(
                "the stack of layers is ambiguous: `{}` and `{}` are both candidates",
                best.path, rival.path
            )));
        }
        let stacks = [best.path.clone()];
        tree.map(&stacks)
    }

    /// Takes the stacks at these paths, in this order: `model.layers`, or `encoder.layers` and
    /// `decoder.layers`. Items need not have the same shapes. The front of a path may be left
    /// out where the rest names one stack only.
    ///
    /// # Errors
    ///
    /// A path that names no `Vec` of modules, or several; the message lists the candidates. Tied
    /// parameters, as in [`find`](Self::find).
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

    /// Like [`find`](Self::find) or [`at`](Self::at), without initialising anything: what is lazy
    /// counts as f32 and trainable.
    pub(crate) fn of_shapes<M: Module>(module: &M, paths: &[String]) -> Result<Self, LisaError> {
        let mut reader = Reader {
            lazy: true,
            ..Reader::default()
        };
        module.visit(&mut reader);
        let tree = Tree::of(reader)?;
        if paths.is_empty() {
            Self::best(tree)
        } else {
            Self::named(tree, paths)
        }
    }

    /// The place of a parameter in [`parameters`](Self::parameters).
    #[must_use]
    pub fn index_of(&self, id: ParamId) -> Option<usize> {
        self.index.get(&id).copied()
    }

    /// All float parameters of the module, in the order of the module tree.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The layers, in the order of their stacks.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The layer that the parameter with this index belongs to.
    #[must_use]
    pub fn layer_of(&self, parameter: usize) -> Option<usize> {
        self.layer_of.get(parameter).copied().flatten()
    }

    /// The parameters that are in no layer: embeddings, final norm, head.
    pub fn outside(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters
            .iter()
            .zip(&self.layer_of)
            .filter_map(|(parameter, layer)| layer.is_none().then_some(parameter))
    }
}

/// A candidate: the path of a `Vec` and its items' parameters.
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

/// The path of an item of the list at `path`.
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
        module.visit(&mut reader);
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
                         would drift apart after a step; keep it at one path and use it twice in \
                         forward",
                        parameter.path
                    ),
                ));
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
        let mut layer_of = vec![None; self.parameters.len()];
        let mut layers = Vec::new();
        for path in paths {
            let Some(stack) = self.stacks.iter().find(|s| s.path == *path) else {
                continue;
            };
            for (item, parameters) in &stack.items {
                for &parameter in parameters {
                    if layer_of[parameter].replace(layers.len()).is_some() {
                        return Err(self.refuse(&format!(
                            "the stack `{path}` lies inside another that was asked for"
                        )));
                    }
                }
                layers.push(Layer {
                    path: item_path(path, *item),
                    parameters: parameters.clone(),
                    size: parameters.iter().map(|&i| self.parameters[i].len()).sum(),
                });
            }
        }
        let index = self.parameters.iter().enumerate();
        Ok(LayerMap {
            index: index.map(|(i, p)| (p.id, i)).collect(),
            parameters: self.parameters,
            item_of: (0..layers.len()).collect(),
            layers,
            layer_of,
        })
    }

    fn refuse(&self, what: &str) -> LisaError {
        let mut message = format!("{what}. ");
        if self.stacks.is_empty() {
            message.push_str("The module has no Vec of modules with parameters; ");
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
            message = format!("{message}Candidates: {}; ", candidates.join(", "));
        }
        message.push_str("name the layers by LisaConfig::with_layers");
        LisaError::new(ErrorKind::Layers, message)
    }
}

/// Walks a module and notes every float parameter and every `Vec` above it.
#[derive(Default)]
struct Reader {
    /// Leave lazy parameters lazy.
    lazy: bool,
    path: Vec<(String, bool)>,
    parameters: Vec<Parameter>,
    stacks: BTreeMap<String, BTreeMap<usize, Vec<usize>>>,
}

impl ModuleVisitor for Reader {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        let item = matches!(container_type, "Vec" | "Array");
        self.path.push((name.to_string(), item));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let join = |names: &[(String, bool)]| {
            let names: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
            names.join(".")
        };
        for (depth, (name, item)) in self.path.iter().enumerate() {
            if let (true, Ok(index)) = (item, name.parse()) {
                self.stacks
                    .entry(join(&self.path[..depth]))
                    .or_default()
                    .entry(index)
                    .or_default()
                    .push(self.parameters.len());
            }
        }
        let (dtype, trainable) = if self.lazy && !param.is_initialized() {
            (DType::F32, true)
        } else {
            // Initialises a lazy parameter: freezing a lazy one would freeze its clones as well.
            let tensor = param.val();
            // A quantized tensor takes no gradient, whatever its flag says.
            let trainable = tensor.dtype().is_float() && tensor.is_require_grad();
            (tensor.dtype(), trainable)
        };
        self.parameters.push(Parameter {
            path: join(&self.path),
            id: param.id,
            shape: param.lazy_shape().to_vec(),
            dtype,
            trainable,
        });
    }
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
