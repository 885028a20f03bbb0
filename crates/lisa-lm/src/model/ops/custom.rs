//! [`with_backward`]: an operation with its own backward pass, in Burn's operations.
//!
//! Adding it to Burn's autodiff graph needs the type of the backend, so it is available on the
//! backends that this crate has a feature for.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use burn::backend::{Autodiff, Backend, TensorMetadata};
use burn::tensor::{Shape, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};

/// What an operation of `N` inputs of `D` dimensions, with a result of `O` dimensions, keeps for its
/// backward pass. No tensor in it has autodiff.
pub(super) trait CustomBackward<const D: usize, const N: usize, const O: usize = D>:
    Clone + Debug + Send + 'static
{
    /// The gradients of the inputs that are wanted, for the gradient of the result.
    ///
    /// `take` removes the sum of the gradients that other operations have found for an input, so that
    /// this operation can add its own in place. If there are none, it is a tensor of one element, 0, in
    /// the dtype of `gradient`. It is `None` if the sum cannot be removed, or must not be: then the
    /// gradient is added to it afterwards.
    fn gradients(
        self,
        gradient: Tensor<O>,
        wanted: [bool; N],
        take: impl FnMut(usize) -> Option<Tensor<D>>,
    ) -> [Option<Tensor<D>>; N];
}

/// The result of `forward`, which gets the inputs without autodiff, as a node of the autodiff graph.
///
/// `None` if an input has no autodiff, uses Burn's gradient checkpointing, or is on a backend that
/// this crate has no feature for.
#[cfg_attr(
    not(any(
        feature = "flex",
        feature = "cuda",
        feature = "rocm",
        feature = "wgpu",
        feature = "tch"
    )),
    allow(unused)
)]
pub(super) fn with_backward<
    const D: usize,
    const N: usize,
    const O: usize,
    S: CustomBackward<D, N, O>,
>(
    inputs: [&Tensor<D>; N],
    forward: impl FnOnce([Tensor<D>; N]) -> (Tensor<O>, S),
) -> Option<Tensor<O>> {
    macro_rules! on {
        ($backend:ty) => {{
            let found = inputs.map(|x| x.clone().try_into_primitive::<Autodiff<$backend>>().ok());
            if found.iter().all(Option::is_some) {
                let nodes = found.map(|x| x.expect("all are found").node());
                let (out, state) = forward(inputs.map(|x| x.clone().inner()));
                let out = out.try_into_primitive::<$backend>().expect(STAYS);
                let bridge = Bridge::<$backend, S, D, O> {
                    output: Tensor::from_primitive::<$backend>,
                    input: Tensor::from_primitive::<$backend>,
                    primitive: |x| x.try_into_primitive::<$backend>().expect(STAYS),
                    state: PhantomData,
                };
                let prepared = bridge.prepare::<NoCheckpointing>(nodes).compute_bound();
                let out = match prepared.stateful() {
                    OpsKind::Tracked(prepared) => prepared.finish(state, out),
                    OpsKind::UnTracked(prepared) => prepared.finish(out),
                };
                return Some(Tensor::from_primitive::<Autodiff<$backend>>(out));
            }
        }};
    }
    #[cfg(feature = "flex")]
    on!(burn::backend::Flex);
    // One type for all of them.
    #[cfg(any(feature = "cuda", feature = "rocm", feature = "wgpu"))]
    on!(burn::backend::Cube);
    #[cfg(feature = "tch")]
    #[allow(deprecated)]
    {
        on!(burn::backend::LibTorch);
    }
    None
}

const STAYS: &str = "the operation stays on its backend";

/// Calls the backward pass of `S` with the tensors of a backend.
#[derive(Debug)]
struct Bridge<B: Backend, S, const D: usize, const O: usize> {
    output: fn(B::FloatTensorPrimitive) -> Tensor<O>,
    input: fn(B::FloatTensorPrimitive) -> Tensor<D>,
    primitive: fn(Tensor<D>) -> B::FloatTensorPrimitive,
    state: PhantomData<S>,
}

impl<B: Backend, S: CustomBackward<D, N, O>, const D: usize, const N: usize, const O: usize>
    Backward<B, N> for Bridge<B, S, D, O>
{
    type State = S;

    fn backward(self, ops: Ops<S, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (mut node, parents) = (ops.node, ops.parents);
        let wanted = parents.each_ref().map(Option::is_some);
        let (device, dtype) = (gradient.device(), gradient.dtype());
        // Burn removes gradients of intermediate nodes only, so this operation's own node, which is no
        // longer needed, gets the id of the input.
        let take = |input: usize| {
            let parent = parents[input].as_ref()?;
            // Burn sends the gradient of a distributed parameter when it is registered for the last time.
            if parent.distributed_params.is_some() {
                return None;
            }
            Arc::get_mut(&mut node)?.id = parent.id;
            // Burn panics if there is no gradient; this one changes none.
            let zero = B::float_zeros(Shape::new([1; D]), &device, dtype.into());
            grads.register::<B>(parent.id, zero);
            Some((self.input)(grads.consume::<B>(&node)))
        };
        let gradient = (self.output)(gradient);
        let found = ops.state.gradients(gradient, wanted, take);
        for (parent, gradient) in parents.into_iter().zip(found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent.id, (self.primitive)(gradient));
            }
        }
    }
}
