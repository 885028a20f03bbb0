//! The operations, each with its backward pass.
//!
//! What is kept for backward stands at each. A gradient is computed in the memory of the numbers that it
//! takes the place of, where nobody else holds them. Tests: `tests.rs`, against the same steps written
//! out.

use burn::backend::{Autodiff, Flex};
use burn::tensor::{
    Bool, DType, Device, GradientCheckpointingStrategy, Int, Shape, Tensor, TensorData,
};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_flex::{FlexTensor, Layout};

use super::kernels::{
    CrossEntropy, GammaGradient, RmsNorm, RmsNormBackward, Rotate, SwiGlu, SwiGluBackward,
};
use super::rows::{Out, Rows, run};

type OnTape = <Autodiff<Flex> as burn::backend::BackendTypes>::FloatTensorPrimitive;

/// Whether tensors of this device and type are taken.
pub(crate) fn takes(device: &Device, dtype: DType) -> bool {
    let recomputes = Some(GradientCheckpointingStrategy::Balanced);
    dtype == DType::F32
        && *device == Device::flex()
        && device.gradient_checkpointing_strategy() != recomputes
}

/// Where a tensor is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// On no tape.
    Plain(FlexTensor),
    /// On a device with autodiff.
    Taped(OnTape),
}

impl Place {
    pub(super) fn of<const D: usize>(x: &Tensor<D>) -> Option<Self> {
        let device = x.device();
        if !takes(&device, x.dtype()) {
            return None;
        }
        let x = x.clone();
        if device.is_autodiff() {
            x.try_into_primitive::<Autodiff<Flex>>()
                .ok()
                .map(Self::Taped)
        } else {
            x.try_into_primitive::<Flex>().ok().map(Self::Plain)
        }
    }

    /// Whether the tensor has a gradient in backward.
    pub(super) fn is_tracked(&self) -> bool {
        matches!(self, Self::Taped(x) if x.is_tracked())
    }
}

/// The bytes of a mask, contiguous.
pub(super) fn mask_of(mask: &Tensor<4, Bool>) -> Option<FlexTensor> {
    let (device, mask) = (mask.device(), mask.clone());
    let mask = if device.is_autodiff() {
        mask.try_into_primitive::<Autodiff<Flex>>().ok()
    } else {
        mask.try_into_primitive::<Flex>().ok()
    };
    mask.map(|mask| mask.to_contiguous())
}

/// Runs an operation forward, and puts it on the tape where its inputs are on one and tracked; none
/// where some are on a tape and others are not. `forward` gives the result and what backward needs.
pub(super) fn apply<const D: usize, const N: usize, O: Backward<Flex, N>>(
    op: O,
    inputs: [Place; N],
    forward: impl FnOnce([FlexTensor; N]) -> (FlexTensor, O::State),
) -> Option<Tensor<D>> {
    let (mut plain, mut taped) = (Vec::with_capacity(N), Vec::with_capacity(N));
    for input in inputs {
        match input {
            Place::Plain(x) => plain.push(x),
            Place::Taped(x) => taped.push(x),
        }
    }
    if taped.is_empty() {
        let plain = plain.try_into().ok()?;
        return Some(Tensor::from_primitive::<Flex>(forward(plain).0));
    }
    Some(on_tape(op, taped.try_into().ok()?, forward))
}

/// The same for inputs on a tape.
fn on_tape<const D: usize, const N: usize, O: Backward<Flex, N>>(
    op: O,
    inputs: [OnTape; N],
    forward: impl FnOnce([FlexTensor; N]) -> (FlexTensor, O::State),
) -> Tensor<D> {
    let nodes = inputs.each_ref().map(OnTape::node);
    let prepared = op.prepare::<NoCheckpointing>(nodes).compute_bound();
    let (out, state) = forward(inputs.map(OnTape::into_primitive));
    let out = match prepared.stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(state, out),
        OpsKind::UnTracked(prepared) => prepared.finish(out),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(out)
}

/// The numbers of a contiguous tensor.
pub(super) fn numbers(x: &FlexTensor) -> &[f32] {
    let start = x.layout().start_offset();
    &x.storage()[start..start + x.layout().num_elements()]
}

/// The same, to be overwritten; copied where somebody else holds them.
pub(super) fn owned(x: FlexTensor) -> FlexTensor {
    FlexTensor::from_data(x.into_data())
}

/// A tensor of numbers that lie in this order.
pub(super) fn tensor_of(numbers: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(numbers, shape))
}

/// The last dimension.
fn width_of(x: &FlexTensor) -> usize {
    let shape = x.layout().shape();
    shape[shape.num_dims() - 1]
}

/// What a kernel makes, in the shape of one of its inputs.
fn made(kernel: &impl Rows, like: &FlexTensor) -> FlexTensor {
    let mut out = vec![0.0; like.layout().num_elements()];
    run(kernel, Out::new(&mut out, width_of(like)), Out::none());
    tensor_of(out, like.layout().shape().clone())
}

/// `silu(gate) * up`. Keeps both.
pub(crate) fn swiglu(gate: &Tensor<3>, up: &Tensor<3>) -> Option<Tensor<3>> {
    let inputs = [Place::of(gate)?, Place::of(up)?];
    apply(SwiGluOp, inputs, |[gate, up]| {
        let (gate, up) = (gate.to_contiguous(), up.to_contiguous());
        let kernel = SwiGlu {
            gate: numbers(&gate),
            up: numbers(&up),
        };
        (made(&kernel, &gate), [gate, up])
    })
}

#[derive(Debug)]
struct SwiGluOp;

impl Backward<Flex, 2> for SwiGluOp {
    type State = [FlexTensor; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node).to_contiguous();
        let [gate, up] = ops.state;
        let width = width_of(&grad);
        let (mut gate, mut up) = (owned(gate), owned(up));
        let kernel = SwiGluBackward {
            grad: numbers(&grad),
        };
        run(
            &kernel,
            Out::new(gate.storage_mut(), width),
            Out::new(up.storage_mut(), width),
        );
        for (parent, grad) in ops.parents.into_iter().zip([gate, up]) {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, grad);
            }
        }
    }
}

/// `x / sqrt(mean(x^2) + epsilon) * gamma` along the last dimension. Keeps x.
pub(crate) fn rms_norm<const D: usize>(
    x: &Tensor<D>,
    gamma: &Tensor<1>,
    epsilon: f64,
) -> Option<Tensor<D>> {
    let epsilon = epsilon as f32;
    let inputs = [Place::of(x)?, Place::of(gamma)?];
    apply(RmsNormOp, inputs, |[x, gamma]| {
        let (x, gamma) = (x.to_contiguous(), gamma.to_contiguous());
        let kernel = RmsNorm {
            x: numbers(&x),
            gamma: numbers(&gamma),
            epsilon,
        };
        (made(&kernel, &x), (x, gamma, epsilon))
    })
}

#[derive(Debug)]
struct RmsNormOp;

impl Backward<Flex, 2> for RmsNormOp {
    type State = (FlexTensor, FlexTensor, f32);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let mut grad = owned(grads.consume::<Flex>(&ops.node));
        let (x, gamma, epsilon) = &ops.state;
        let width = width_of(x);
        let norm = || RmsNorm {
            x: numbers(x),
            gamma: numbers(gamma),
            epsilon: *epsilon,
        };
        let [of_x, of_gamma] = ops.parents;
        if let Some(parent) = of_gamma {
            let mut sum = vec![0.0; width];
            let kernel = GammaGradient {
                norm: norm(),
                grad: numbers(&grad),
            };
            run(&kernel, Out::new(&mut sum, width), Out::none());
            grads.register::<Flex>(parent.id, tensor_of(sum, Shape::new([width])));
        }
        if let Some(parent) = of_x {
            let out = Out::new(grad.storage_mut(), width);
            run(&RmsNormBackward(norm()), out, Out::none());
            grads.register::<Flex>(parent.id, grad);
        }
    }
}

/// Rotates heads, `[batch, heads, seq, dim]`, by tables of `[batch or 1, 1, seq, dim]`, of which the
/// sine is negative in the first half of the head. Keeps nothing but the tables.
pub(crate) fn rotate(x: &Tensor<4>, cos: &Tensor<4>, sin: &Tensor<4>) -> Option<Tensor<4>> {
    let table = |table: &Tensor<4>| {
        Some(match Place::of(table)? {
            Place::Plain(table) => table.to_contiguous(),
            Place::Taped(table) => table.into_primitive().to_contiguous(),
        })
    };
    let (x, tables) = (Place::of(x)?, [table(cos)?, table(sin)?]);
    apply(RotateOp, [x], |[x]| (turned(x, &tables, 1.0), tables))
}

#[derive(Debug)]
struct RotateOp;

impl Backward<Flex, 1> for RotateOp {
    type State = [FlexTensor; 2];

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let [parent] = ops.parents;
        if let Some(parent) = parent {
            grads.register::<Flex>(parent.id, turned(grad, &ops.state, -1.0));
        }
    }
}

/// Of heads in any order in memory: the result lies as `[batch, seq, heads, dim]`, as the products
/// before and behind it have it.
fn turned(x: FlexTensor, [cos, sin]: &[FlexTensor; 2], direction: f32) -> FlexTensor {
    let x = with_rows(x);
    let [batch, heads, seq, dim] = x.layout().shape().dims();
    let strides = |at: usize| x.layout().strides()[at] as usize;
    let mut out = vec![0.0; x.layout().num_elements()];
    let kernel = Rotate {
        x: x.storage(),
        start: x.layout().start_offset(),
        strides: [strides(0), strides(1), strides(2)],
        heads,
        seq,
        cos: numbers(cos),
        sin: numbers(sin),
        direction,
    };
    run(&kernel, Out::new(&mut out, dim), Out::none());
    tensor_of(out, Shape::new([batch, seq, heads, dim])).transpose(1, 2)
}

/// With rows that lie one number behind the other, and forwards.
pub(super) fn with_rows(x: FlexTensor) -> FlexTensor {
    let layout: &Layout = x.layout();
    if layout.has_contiguous_inner() && layout.has_positive_strides() {
        x
    } else {
        x.to_contiguous()
    }
}

/// Mean cross entropy of logits, `[rows, vocab]`, over the rows whose target is no negative number. Keeps
/// the gradient, in the place of the logits. Gives the logits back where they are not taken.
#[allow(clippy::result_large_err)] // What was given comes back.
pub(crate) fn cross_entropy(
    logits: Tensor<2>,
    targets: &Tensor<1, Int>,
) -> Result<Tensor<1>, Tensor<2>> {
    match Place::of(&logits) {
        None => Err(logits),
        Some(place) => {
            // Nobody else holds the numbers then.
            drop(logits);
            Ok(match place {
                Place::Plain(logits) => Tensor::from_primitive::<Flex>(entropy(logits, targets).0),
                Place::Taped(logits) => {
                    on_tape(CrossEntropyOp, [logits], |[x]| entropy(x, targets))
                }
            })
        }
    }
}

/// The same of logits that are on no tape, with their gradient.
#[allow(clippy::result_large_err)] // What was given comes back.
pub(crate) fn loss_and_gradient(
    logits: Tensor<2>,
    targets: &Tensor<1, Int>,
) -> Result<(Tensor<1>, Tensor<2>), Tensor<2>> {
    match Place::of(&logits) {
        Some(Place::Plain(values)) => {
            drop(logits);
            let (loss, gradient) = entropy(values, targets);
            Ok((
                Tensor::from_primitive::<Flex>(loss),
                Tensor::from_primitive::<Flex>(gradient),
            ))
        }
        _ => Err(logits),
    }
}

/// The loss and the gradient of the logits.
fn entropy(logits: FlexTensor, targets: &Tensor<1, Int>) -> (FlexTensor, FlexTensor) {
    let targets = targets.to_data();
    let targets: Vec<Option<usize>> = targets
        .iter::<i64>()
        .map(|target| usize::try_from(target).ok())
        .collect();
    let mut gradient = owned(logits);
    let [rows, vocab] = gradient.layout().shape().dims();
    let count = targets.iter().flatten().count().max(1);
    let mut losses = vec![0.0; rows];
    let kernel = CrossEntropy {
        targets: &targets,
        share: 1.0 / count as f32,
    };
    run(
        &kernel,
        Out::new(gradient.storage_mut(), vocab),
        Out::new(&mut losses, 1),
    );
    let loss = losses.iter().sum();
    (tensor_of(vec![loss], Shape::new([1])), gradient)
}

#[derive(Debug)]
struct CrossEntropyOp;

impl Backward<Flex, 1> for CrossEntropyOp {
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let factor = numbers(&grads.consume::<Flex>(&ops.node).to_contiguous())[0];
        let [parent] = ops.parents;
        if let Some(parent) = parent {
            let mut grad = owned(ops.state);
            if factor != 1.0 {
                let values: &mut [f32] = grad.storage_mut();
                for value in values {
                    *value *= factor;
                }
            }
            grads.register::<Flex>(parent.id, grad);
        }
    }
}
