//! [`Cuts`]: divides the autodiff graph of a sublayer.

use burn::tensor::{Gradients, Tensor};

/// The cuts in the autodiff graph of a sublayer.
///
/// Burn returns the gradients of a graph after the whole graph has run backward. A cut divides one
/// graph into two. The gradients of the later graph can then be used and freed before the earlier
/// graph runs backward. Values and gradients do not change. Without
/// [`Recompute::with_sublayers`](super::Recompute::with_sublayers), no graph is cut.
///
/// # Example
///
/// An MLP whose graph is cut before the last matrix:
///
/// ```
/// use burn::module::Module;
/// use burn::nn::Linear;
/// use burn::tensor::Tensor;
/// use burn::tensor::activation::relu;
/// use lisa::recompute::Cuts;
///
/// #[derive(Module, Debug)]
/// struct Mlp {
///     up: Linear,
///     down: Linear,
/// }
///
/// impl Mlp {
///     fn forward(&self, h: Tensor<3>, cuts: &mut Cuts) -> Tensor<3> {
///         let inner = relu(self.up.forward(h.clone()));
///         let [inner, h] = cuts.cut([inner, h]);
///         h + self.down.forward(inner)
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Cuts {
    /// One entry for each cut; `None` if the graph is not cut.
    made: Option<Vec<Vec<Crossing>>>,
}

/// A tensor that is used on both sides of a cut.
#[derive(Debug)]
struct Crossing {
    /// A leaf of the later graph.
    start: Tensor<1>,
    /// The same values, as an output of the earlier graph.
    end: Tensor<1>,
}

impl Cuts {
    /// Does not cut the graph: [`cut`](Self::cut) returns its input.
    #[must_use]
    pub fn none() -> Self {
        Self { made: None }
    }

    /// Divides the graph at each [`cut`](Self::cut).
    pub(super) fn enabled() -> Self {
        Self {
            made: Some(Vec::new()),
        }
    }

    /// Divides the graph, and returns the same tensors as leaves of a new graph. Tensors that are
    /// on no graph are returned unchanged.
    ///
    /// `x` must contain every tensor that is used after the cut and depends on something before it,
    /// including the input of the sublayer. Otherwise the earlier graph would have to run backward
    /// twice, which Burn refuses with a panic.
    #[must_use]
    pub fn cut<const D: usize, const N: usize>(&mut self, x: [Tensor<D>; N]) -> [Tensor<D>; N] {
        let Some(made) = &mut self.made else {
            return x;
        };
        let mut crossings = Vec::new();
        let x = x.map(|x| {
            if !x.is_tracked() {
                return x;
            }
            let shape = x.dims();
            let end = x.reshape([-1]);
            let start = end.clone().detach().require_grad();
            let x = start.clone().reshape(shape);
            crossings.push(Crossing { start, end });
            x
        });
        made.push(crossings);
        x
    }

    /// Removes the last cut. Given the gradients of the graph after it, returns the scalar from
    /// which the graph before it runs backward; `None` if there is no such graph.
    pub(super) fn pop(&mut self, grads: &mut Gradients) -> Option<Tensor<1>> {
        let made = self.made.as_mut()?;
        while let Some(crossings) = made.pop() {
            let ends = crossings.into_iter().filter_map(|Crossing { start, end }| {
                let gradient = start.grad_remove(grads)?;
                Some((end * gradient).sum())
            });
            let root = ends.reduce(|sum, end| sum + end);
            if root.is_some() {
                return root;
            }
        }
        None
    }
}
