//! Visiting the float parameters of a module together with their paths, and what a visitor asks of one.
//!
//! Burn gives a visitor the name of each module that it enters and leaves. The path of a parameter
//! is built from these names here, for all visitors of the crate.

use std::fmt;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// A visitor of float parameters with their paths: see [`visit_floats`].
pub(crate) trait FloatVisitor {
    /// Visits one parameter. `path` prints as `model.layers.3.weight`.
    fn visit_float<const D: usize>(&mut self, path: &ModulePath, param: &Param<Tensor<D>>);
}

/// Whether a parameter requires gradients. A quantized one takes none, whatever its flag says.
///
/// Initializes a lazy parameter: Burn does not tell what is set for one.
pub(crate) fn requires_gradients<const D: usize>(param: &Param<Tensor<D>>) -> bool {
    let tensor = param.val();
    tensor.dtype().is_float() && tensor.is_require_grad()
}

/// Calls a visitor for every float parameter of a module, in the order of the module tree.
pub(crate) fn visit_floats<M: Module, V: FloatVisitor>(module: &M, visitor: &mut V) {
    let path = ModulePath::default();
    module.visit(&mut WithPath { path, visitor });
}

/// The path of a parameter: the names of the modules that contain it, and its own name.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModulePath(Vec<Name>);

#[derive(Clone, Debug)]
struct Name {
    name: String,
    /// Whether it is the index of an item in a list.
    item: bool,
}

impl ModulePath {
    /// The lists of modules that contain the parameter, the outermost first: the path of the list,
    /// and the index of the item.
    pub(crate) fn lists(&self) -> impl Iterator<Item = (String, usize)> {
        self.0.iter().enumerate().filter_map(|(depth, name)| {
            let index = name.name.parse().ok().filter(|_| name.item)?;
            Some((join(&self.0[..depth]), index))
        })
    }
}

impl fmt::Display for ModulePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(&self.0))
    }
}

fn join(names: &[Name]) -> String {
    let names: Vec<&str> = names.iter().map(|name| name.name.as_str()).collect();
    names.join(".")
}

struct WithPath<'a, V> {
    path: ModulePath,
    visitor: &'a mut V,
}

impl<V: FloatVisitor> ModuleVisitor for WithPath<'_, V> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.0.push(Name {
            name: name.into(),
            item: matches!(container_type, "Vec" | "Array"),
        });
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.0.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.visitor.visit_float(&self.path, param);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    #[derive(Module, Debug)]
    struct Model {
        blocks: Vec<Vec<Linear>>,
        head: Linear,
    }

    #[test]
    fn parameters_are_visited_with_their_paths_and_lists() {
        struct Paths(Vec<(String, Vec<(String, usize)>)>);
        impl FloatVisitor for Paths {
            fn visit_float<const D: usize>(&mut self, path: &ModulePath, _: &Param<Tensor<D>>) {
                self.0.push((path.to_string(), path.lists().collect()));
            }
        }
        let device = Device::flex();
        let linear = || LinearConfig::new(2, 2).with_bias(false).init(&device);
        let model = Model {
            blocks: vec![vec![linear()], vec![linear(), linear()]],
            head: linear(),
        };
        let mut paths = Paths(Vec::new());
        visit_floats(&model, &mut paths);
        let found: Vec<&str> = paths.0.iter().map(|(path, _)| path.as_str()).collect();
        let blocks = [
            "blocks.0.0.weight",
            "blocks.1.0.weight",
            "blocks.1.1.weight",
        ];
        assert_eq!(found, [&blocks[..], &["head.weight"]].concat());
        let lists = vec![("blocks".into(), 1), ("blocks.1".into(), 1)];
        assert_eq!(paths.0[2].1, lists);
        assert!(paths.0[3].1.is_empty());
    }
}
