//! Parts of layers: [`LayerMap::split`]. Tests: `layers/tests.rs`.

use super::map::{Layer, LayerMap};
use crate::{ErrorKind, LisaError};

impl LayerMap {
    /// Splits each layer into two parts, and each part then counts as a layer. The first has the
    /// parameters whose path within the layer contains one of `parts`; the second has the others.
    ///
    /// The new paths are `layers.0[attn]` and `layers.0[other]`; several names are joined by `+`. A
    /// layer is not split if the names match all of its parameters or none. Without names, nothing
    /// changes.
    ///
    /// # Errors
    ///
    /// A name occurs in no path of any layer, or the names split no layer.
    ///
    /// # Example
    ///
    /// ```
    /// # use burn::module::Module;
    /// # use burn::nn::{Linear, LinearConfig};
    /// # use burn::tensor::Device;
    /// use lisa::LayerMap;
    ///
    /// #[derive(Module, Debug)]
    /// struct Block {
    ///     self_attn: Linear,
    ///     mlp: Linear,
    /// }
    /// # let device = Device::flex().autodiff();
    /// # let linear = |n| LinearConfig::new(4, n).init(&device);
    /// # let block = || Block { self_attn: linear(4), mlp: linear(8) };
    /// # #[derive(Module, Debug)]
    /// # struct Model { layers: Vec<Block> }
    /// # let model = Model { layers: vec![block(), block()] };
    /// let map = LayerMap::find(&model)?.split(&["attn".into()])?;
    /// let parts: Vec<_> = map.layers().iter().map(|l| (l.path.as_str(), l.size)).collect();
    /// assert_eq!(parts[..2], [("layers.0[attn]", 20), ("layers.0[other]", 40)]);
    /// # Ok::<(), lisa::LisaError>(())
    /// ```
    pub fn split(self, parts: &[String]) -> Result<Self, LisaError> {
        if parts.is_empty() {
            return Ok(self);
        }
        let within = |layer: &Layer, parameter: usize| -> &str {
            let path = self.parameters()[parameter].path.as_str();
            path.strip_prefix(&layer.path).unwrap_or(path)
        };
        let refuse = |what: String| {
            let mut names: Vec<&str> = Vec::new();
            if let Some(layer) = self.layers().first() {
                names.extend(layer.parameters.iter().map(|&i| within(layer, i)));
            }
            let message = format!(
                "{what}; the first layer has {}",
                names.join(", ").replace(" .", " ").trim_start_matches('.')
            );
            Err(LisaError::new(ErrorKind::Layers, message)
                .with_help("give parts of these paths, such as attn"))
        };
        let all = || {
            let layers = self.layers().iter();
            layers.flat_map(|layer| layer.parameters.iter().map(move |&i| (layer, i)))
        };
        if let Some(part) = parts
            .iter()
            .find(|part| !all().any(|(layer, i)| within(layer, i).contains(part.as_str())))
        {
            return refuse(format!(
                "the layers cannot be split by `{part}`, which is in no path of a parameter of them"
            ));
        }
        let name = parts.join("+");
        let mut layers = Vec::with_capacity(2 * self.layers().len());
        let mut item_of = Vec::with_capacity(layers.capacity());
        for (index, layer) in self.layers().iter().enumerate() {
            let named = |&&i: &&usize| {
                let path = within(layer, i);
                parts.iter().any(|part| path.contains(part.as_str()))
            };
            let (first, second): (Vec<usize>, Vec<usize>) =
                layer.parameters.iter().partition(named);
            if first.is_empty() || second.is_empty() {
                layers.push(layer.clone());
                item_of.push(self.item_of(index));
                continue;
            }
            for (name, parameters) in [(name.as_str(), first), ("other", second)] {
                layers.push(Layer {
                    path: format!("{}[{name}]", layer.path),
                    size: parameters.iter().map(|&i| self.parameters()[i].len()).sum(),
                    parameters,
                });
                item_of.push(self.item_of(index));
            }
        }
        if layers.len() == self.layers().len() {
            return refuse(format!(
                "the layers cannot be split by `{name}`: of each layer all parameters are named, \
                 or none"
            ));
        }
        Ok(self.with_layers(layers, item_of))
    }
}
