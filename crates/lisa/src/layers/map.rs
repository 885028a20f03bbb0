//! [`LayerMap`]: the parameters of a module, and the layer that each belongs to.

use std::collections::HashMap;

use burn::module::ParamId;
use burn::tensor::DType;

/// A float parameter of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parameter {
    /// Its path, such as `model.layers.3.mlp.up_proj.weight`.
    pub path: String,
    /// Its identity in Burn.
    pub id: ParamId,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its dtype.
    pub dtype: DType,
    /// Whether it required gradients when the map was made.
    pub trainable: bool,
}

impl Parameter {
    /// How many elements it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One layer: an element of a stack, or a part of one after [`LayerMap::split`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layer {
    /// Its path, such as `model.layers.3`, or `model.layers.3[attn]` for a part.
    pub path: String,
    /// Its parameters, as indices into [`LayerMap::parameters`].
    pub parameters: Vec<usize>,
    /// The number of elements of these parameters.
    pub size: usize,
}

/// Which parameters of a module belong to which layer, and which belong to no layer.
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
    /// For each layer, the index of its element in the stacks; the parts of a split layer have the
    /// same index.
    item_of: Vec<usize>,
    index: HashMap<ParamId, usize>,
}

impl LayerMap {
    /// The map of these layers. `item_of[layer]` is the index of its element in the stacks.
    pub(super) fn new(parameters: Vec<Parameter>, layers: Vec<Layer>, item_of: Vec<usize>) -> Self {
        let mut layer_of = vec![None; parameters.len()];
        for (index, layer) in layers.iter().enumerate() {
            for &parameter in &layer.parameters {
                layer_of[parameter] = Some(index);
            }
        }
        let index = parameters.iter().enumerate();
        Self {
            index: index.map(|(i, p)| (p.id, i)).collect(),
            parameters,
            layers,
            layer_of,
            item_of,
        }
    }

    /// The same map, with the dtypes of `other`, a map of the same parameters, for those that are quantized.
    pub(crate) fn with_float_dtypes_of(mut self, other: &Self) -> Self {
        for (parameter, other) in self.parameters.iter_mut().zip(&other.parameters) {
            if !parameter.dtype.is_float() {
                parameter.dtype = other.dtype;
            }
        }
        self
    }

    /// The same map with other layers.
    pub(super) fn with_layers(self, layers: Vec<Layer>, item_of: Vec<usize>) -> Self {
        Self::new(self.parameters, layers, item_of)
    }

    /// The index of the stack element of this layer.
    pub(crate) fn item_of(&self, layer: usize) -> usize {
        self.item_of[layer]
    }

    /// The layer that this parameter belongs to; `None` if it is outside the layers.
    pub(crate) fn layer_of_id(&self, id: ParamId) -> Option<usize> {
        self.index_of(id).and_then(|index| self.layer_of(index))
    }

    /// The index of a parameter in [`parameters`](Self::parameters).
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

    /// The layer that the parameter with this index belongs to; `None` if it is outside the layers.
    #[must_use]
    pub fn layer_of(&self, parameter: usize) -> Option<usize> {
        self.layer_of.get(parameter).copied().flatten()
    }

    /// The parameters outside the layers: embeddings, final norm, head.
    pub fn outside(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters
            .iter()
            .zip(&self.layer_of)
            .filter_map(|(parameter, layer)| layer.is_none().then_some(parameter))
    }
}
