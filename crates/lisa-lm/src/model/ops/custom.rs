//! [`with_backward`]: an operation with its own backward pass, in Burn's operations.
//!
//! Adding it to Burn's autodiff graph needs the type of the backend, so it is available on the
//! backends that this crate has a feature for.

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::{Autodiff, Backend};
use burn::tensor::Tensor;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};

/// What an operation of `N` inputs keeps for its backward pass. No tensor in it has autodiff.
pub(super) trait CustomBackward<const D: usize, const N: usize>:
    Clone + Debug + Send + 'static
{
    /// The gradients of the inputs that are wanted, for the gradient of the result.
    fn gradients(self, gradient: Tensor<D>, wanted: [bool; N]) -> [Option<Tensor<D>>; N];
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
pub(super) fn with_backward<const D: usize, const N: usize, S: CustomBackward<D, N>>(
    inputs: [&Tensor<D>; N],
    forward: impl FnOnce([Tensor<D>; N]) -> (Tensor<D>, S),
) -> Option<Tensor<D>> {
    macro_rules! on {
        ($backend:ty) => {{
            let found = inputs.map(|x| x.clone().try_into_primitive::<Autodiff<$backend>>().ok());
            if found.iter().all(Option::is_some) {
                let nodes = found.map(|x| x.expect("all are found").node());
                let (out, state) = forward(inputs.map(|x| x.clone().inner()));
                let primitive = |x: Tensor<D>| {
                    let found = x.try_into_primitive::<$backend>();
                    found.expect("the backward pass stays on its backend")
                };
                let bridge = Bridge::<$backend, S, D> {
                    tensor: Tensor::from_primitive::<$backend>,
                    primitive,
                    state: PhantomData,
                };
                let prepared = bridge.prepare::<NoCheckpointing>(nodes).compute_bound();
                let out = match prepared.stateful() {
                    OpsKind::Tracked(prepared) => prepared.finish(state, primitive(out)),
                    OpsKind::UnTracked(prepared) => prepared.finish(primitive(out)),
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

/// Calls the backward pass of `S` with the tensors of a backend.
#[derive(Debug)]
struct Bridge<B: Backend, S, const D: usize> {
    tensor: fn(B::FloatTensorPrimitive) -> Tensor<D>,
    primitive: fn(Tensor<D>) -> B::FloatTensorPrimitive,
    state: PhantomData<S>,
}

impl<B: Backend, S: CustomBackward<D, N>, const D: usize, const N: usize> Backward<B, N>
    for Bridge<B, S, D>
{
    type State = S;

    fn backward(self, ops: Ops<S, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = (self.tensor)(grads.consume::<B>(&ops.node));
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let found = ops.state.gradients(gradient, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent.id, (self.primitive)(gradient));
            }
        }
    }
}
