//! The backward pass through one segment. Tests: `tests`.

use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::cuts::Cuts;
use super::gradients::hand_over;
use super::model::LayeredModel;
use super::stack::{Stack, is_trainable};

/// A hidden state, and whether the backward pass must find its gradient because something before it
/// is trainable.
pub(super) struct Input {
    pub(super) h: Tensor<3>,
    pub(super) needs_gradient: bool,
}

/// The model after the gradients were handed over, and the gradient of the input; `None` if it is
/// not needed.
type Back<M> = (M, Option<Tensor<3>>);

impl<M: LayeredModel> Stack<M> {
    /// Runs a segment again and then backward, given its input and the gradient of its output.
    /// Gradients of parameters are handed to `take`.
    pub(super) fn segment_backward(
        &self,
        model: M,
        segment: usize,
        input: Input,
        gradient: Tensor<3>,
        take: &mut impl FnMut(M, GradientsParams) -> M,
    ) -> Back<M> {
        if self.plan().by_sublayer() {
            return self.layers_backward(model, segment, input, gradient, take);
        }
        let run = |model: &M, h, _: &mut Cuts| self.run_segment(model, segment, h);
        graph_backward(model, input, gradient, run, take)
    }

    /// Runs layer by layer.
    fn layers_backward(
        &self,
        mut model: M,
        segment: usize,
        input: Input,
        mut gradient: Tensor<3>,
        take: &mut impl FnMut(M, GradientsParams) -> M,
    ) -> Back<M> {
        let layers = self.layers_of(segment);
        let trainable: Vec<bool> = layers.clone().map(|l| is_trainable(&model, l)).collect();
        let run = |model: &M, at, h| self.run_layer(model, layers.start + at, h);
        let inputs = inputs(&model, input.h, layers.len(), run);
        for (at, h) in inputs.into_iter().enumerate().rev() {
            let layer = layers.start + at;
            let needs_gradient = input.needs_gradient || trainable[..at].contains(&true);
            let input = Input { h, needs_gradient };
            let upstream;
            (model, upstream) = if trainable[at] {
                self.sublayers_backward(model, layer, input, gradient, take)
            } else {
                // A frozen layer has no gradients to hand over early.
                let run = |model: &M, h, _: &mut Cuts| self.run_layer(model, layer, h);
                graph_backward(model, input, gradient, run, take)
            };
            let Some(upstream) = upstream else {
                return (model, None);
            };
            gradient = upstream;
        }
        (model, Some(gradient))
    }

    /// Runs sublayer by sublayer, from cut to cut.
    fn sublayers_backward(
        &self,
        mut model: M,
        layer: usize,
        input: Input,
        mut gradient: Tensor<3>,
        take: &mut impl FnMut(M, GradientsParams) -> M,
    ) -> Back<M> {
        let run = |model: &M, at, h| self.run_sublayer(model, (layer, at), h, &mut Cuts::none());
        let inputs = inputs(&model, input.h, model.sublayers(), run);
        for (sublayer, h) in inputs.into_iter().enumerate().rev() {
            let needs_gradient = input.needs_gradient || sublayer > 0;
            let input = Input { h, needs_gradient };
            let run = |model: &M, h, cuts: &mut Cuts| {
                self.run_sublayer(model, (layer, sublayer), h, cuts)
            };
            let upstream;
            (model, upstream) = graph_backward(model, input, gradient, run, take);
            let Some(upstream) = upstream else {
                return (model, None);
            };
            gradient = upstream;
        }
        (model, Some(gradient))
    }
}

/// The inputs of `steps` steps, given the input of the first. Runs all but the last step, without a
/// graph.
fn inputs<M: LayeredModel>(
    model: &M,
    first: Tensor<3>,
    steps: usize,
    run: impl Fn(&M, usize, Tensor<3>) -> Tensor<3>,
) -> Vec<Tensor<3>> {
    let mut inputs = vec![first];
    if steps > 1 {
        let frozen = model.clone().no_grad();
        for step in 0..steps - 1 {
            inputs.push(run(&frozen, step, inputs[step].clone()));
        }
    }
    inputs
}

/// Runs a part of the model on a graph and then backward, from the last cut to the first.
fn graph_backward<M: LayeredModel>(
    mut model: M,
    input: Input,
    gradient: Tensor<3>,
    run: impl FnOnce(&M, Tensor<3>, &mut Cuts) -> Tensor<3>,
    take: &mut impl FnMut(M, GradientsParams) -> M,
) -> Back<M> {
    let mut h = input.h;
    if input.needs_gradient {
        h = h.require_grad();
    }
    let mut cuts = Cuts::enabled();
    let output = run(&model, h.clone(), &mut cuts);
    if !output.is_tracked() {
        return (model, None);
    }
    let mut grads = (output * gradient).sum().backward();
    loop {
        // Only the first graph, which is the last to run backward, contains the input.
        let upstream = input.needs_gradient.then(|| h.grad_remove(&mut grads));
        let root = cuts.pop(&mut grads);
        model = hand_over(model, grads, take);
        let Some(root) = root else {
            return (model, upstream.flatten());
        };
        grads = root.backward();
    }
}
