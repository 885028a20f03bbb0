//! Adding an operation to Burn's autodiff graph, and access to the values of flex tensors.

use burn::backend::{Autodiff, Flex};
use burn::tensor::{Bool, DType, Device, GradientCheckpointingStrategy, Shape, Tensor, TensorData};
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::ops::{Backward, OpsKind};
use burn_flex::{FlexTensor, Layout};

use super::rows::{Out, Rows, run};
use crate::model::ops::is_flex;

pub(super) type WithAutodiff =
    <Autodiff<Flex> as burn::backend::BackendTypes>::FloatTensorPrimitive;

/// Whether operations on tensors of this device and dtype are fused: f32 on flex, without Burn's
/// gradient checkpointing.
pub(crate) fn takes(device: &Device, dtype: DType) -> bool {
    let recomputes = Some(GradientCheckpointingStrategy::Balanced);
    dtype == DType::F32 && is_flex(device) && device.gradient_checkpointing_strategy() != recomputes
}

/// A tensor of flex.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    /// Without autodiff.
    Plain(FlexTensor),
    /// With autodiff.
    Autodiff(WithAutodiff),
}

impl Operand {
    pub(super) fn of<const D: usize>(x: &Tensor<D>) -> Option<Self> {
        let device = x.device();
        if !takes(&device, x.dtype()) {
            return None;
        }
        let x = x.clone();
        if device.is_autodiff() {
            x.try_into_primitive::<Autodiff<Flex>>()
                .ok()
                .map(Self::Autodiff)
        } else {
            x.try_into_primitive::<Flex>().ok().map(Self::Plain)
        }
    }

    pub(super) fn has_autodiff(&self) -> bool {
        matches!(self, Self::Autodiff(_))
    }

    /// Whether the backward pass computes a gradient of the tensor.
    pub(super) fn is_tracked(&self) -> bool {
        matches!(self, Self::Autodiff(x) if x.is_tracked())
    }
}

/// The mask as a contiguous tensor of bytes.
pub(super) fn mask_of(mask: &Tensor<4, Bool>) -> Option<FlexTensor> {
    let (device, mask) = (mask.device(), mask.clone());
    let mask = if device.is_autodiff() {
        mask.try_into_primitive::<Autodiff<Flex>>().ok()
    } else {
        mask.try_into_primitive::<Flex>().ok()
    };
    mask.map(|mask| mask.to_contiguous())
}

/// Runs an operation forward, and adds it to the autodiff graph if its inputs are tracked. `None`
/// if some inputs have autodiff and others do not. `forward` returns the result and the state for
/// the backward pass.
pub(super) fn apply<const D: usize, const N: usize, O: Backward<Flex, N>>(
    op: O,
    inputs: [Operand; N],
    forward: impl FnOnce([FlexTensor; N]) -> (FlexTensor, O::State),
) -> Option<Tensor<D>> {
    let (mut plain, mut tracked) = (Vec::with_capacity(N), Vec::with_capacity(N));
    for input in inputs {
        match input {
            Operand::Plain(x) => plain.push(x),
            Operand::Autodiff(x) => tracked.push(x),
        }
    }
    if tracked.is_empty() {
        let plain = plain.try_into().ok()?;
        return Some(Tensor::from_primitive::<Flex>(forward(plain).0));
    }
    Some(with_autodiff(op, tracked.try_into().ok()?, forward))
}

/// Like [`apply`], for inputs with autodiff.
pub(super) fn with_autodiff<const D: usize, const N: usize, O: Backward<Flex, N>>(
    op: O,
    inputs: [WithAutodiff; N],
    forward: impl FnOnce([FlexTensor; N]) -> (FlexTensor, O::State),
) -> Tensor<D> {
    let nodes = inputs.each_ref().map(WithAutodiff::node);
    let prepared = op.prepare::<NoCheckpointing>(nodes).compute_bound();
    let (out, state) = forward(inputs.map(WithAutodiff::into_primitive));
    let out = match prepared.stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(state, out),
        OpsKind::UnTracked(prepared) => prepared.finish(out),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(out)
}

/// The values of a contiguous tensor.
pub(super) fn values(x: &FlexTensor) -> &[f32] {
    let start = x.layout().start_offset();
    &x.storage()[start..start + x.layout().num_elements()]
}

/// The tensor, to be written to. It is copied if its storage is shared.
pub(super) fn owned(x: FlexTensor) -> FlexTensor {
    FlexTensor::from_data(x.into_data())
}

/// A contiguous tensor of these values.
pub(super) fn tensor_of(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// The size of the last dimension.
pub(super) fn width_of(x: &FlexTensor) -> usize {
    let shape = x.layout().shape();
    shape[shape.num_dims() - 1]
}

/// The output of a kernel, in the shape of `like`.
pub(super) fn made(kernel: &impl Rows, like: &FlexTensor) -> FlexTensor {
    let mut out = vec![0.0; like.layout().num_elements()];
    run(kernel, Out::new(&mut out, width_of(like)), Out::none());
    tensor_of(out, like.layout().shape().clone())
}

/// The tensor with contiguous rows and no negative strides; it is copied if necessary.
pub(super) fn with_rows(x: FlexTensor) -> FlexTensor {
    let layout: &Layout = x.layout();
    if layout.has_contiguous_inner() && layout.has_positive_strides() {
        x
    } else {
        x.to_contiguous()
    }
}

/// `[.., width]` reshaped to `[rows, width]`.
pub(super) fn flat(x: &FlexTensor) -> FlexTensor {
    let shape = x.layout().shape();
    let width = shape[shape.num_dims() - 1];
    x.reshape(Shape::new([shape.num_elements() / width.max(1), width]))
}
