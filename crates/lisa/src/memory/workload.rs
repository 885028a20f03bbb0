//! [`Workload`]: the batches, the dtype and the device that a plan is made for.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, FloatDType, Tensor};

use super::device::DeviceUsage;
use crate::recompute::Recompute;
use crate::slicing::{SLICE, SLICE_ON_HOST, count_stepped, stepped};

/// The batches, the dtype and the device of a planned run.
///
/// # Example
///
/// In this example, the model is in f32 on the host, and the planned run is in bf16 on a GPU:
///
/// ```
/// # use burn::nn::LinearConfig;
/// # use burn::tensor::Device;
/// # let model = LinearConfig::new(2, 2).init(&Device::flex());
/// use burn::tensor::FloatDType;
/// use lisa::memory::Workload;
///
/// let workload = Workload {
///     dtype: FloatDType::BF16,
///     flex: false,
///     ..Workload::new(&model, 4, 1024)
/// };
/// # assert!(Workload::new(&model, 4, 1024).flex);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Rows in a batch.
    pub batch: usize,
    /// Tokens in a row.
    pub sequence: usize,
    /// The dtype of the weights.
    pub dtype: FloatDType,
    /// Whether the run is on flex, Burn's CPU backend. flex makes a second copy of the result of
    /// each matmul, and stores int4 as int8.
    pub flex: bool,
    /// The lowest layer that is ever active, or 0 if unknown. If nothing before the stack is
    /// trainable, layers below `lowest_active` store no activations.
    pub lowest_active: usize,
    /// How layers are recomputed, for
    /// [`MemoryPlan::peak_recomputed`](super::MemoryPlan::peak_recomputed).
    pub recompute: Recompute,
    /// With recomputation, whether each layer is updated during the backward pass, as
    /// [`Lisa::step_layered`](crate::Lisa::step_layered) does. Otherwise all gradients exist until the
    /// update.
    pub in_backward: bool,
    /// Batches whose gradients are added up for a step. If there are several, the sum of the
    /// gradients is in memory while those of the next batch are computed. A step that updates
    /// during the backward pass has one batch.
    pub accumulated: usize,
}

impl Workload {
    /// Batches of `batch` rows of `sequence` tokens for this model, with its dtype and on its
    /// device.
    ///
    /// Lazy parameters count as f32. A device that does not report its memory counts as flex.
    /// LibTorch does not report it, so set `flex = false` there. The workload assumes that every
    /// layer may be active, that each layer is a segment of recomputation and is updated during the
    /// recomputed backward pass, and that a step has one batch.
    #[must_use]
    pub fn new<M: Module>(model: &M, batch: usize, sequence: usize) -> Self {
        let devices = model.devices();
        let reports = |device| DeviceUsage::of(device).is_some();
        Self {
            batch,
            sequence,
            dtype: dtype_of(model),
            flex: !devices.first().is_some_and(reports),
            lowest_active: 0,
            recompute: Recompute::new(),
            in_backward: true,
            accumulated: 1,
        }
    }

    /// Whether gradients of an earlier batch of the step are in memory during a pass.
    pub(super) fn accumulates(&self) -> bool {
        self.accumulated > 1
    }

    /// Bytes of the temporary tensors of AdamW, four in f32, for a slice of a parameter with this many
    /// elements.
    pub(super) fn update(&self, elements: u64) -> u64 {
        let slice = stepped(elements as usize, self.slice()) as u64;
        16 * slice.min(elements)
    }

    /// Tensors of AdamW's moments of a parameter of this shape in a record: two of each slice.
    pub(super) fn moments(&self, shape: &[usize]) -> u64 {
        2 * count_stepped(shape, self.slice()) as u64
    }

    /// Elements in a slice on the device.
    fn slice(&self) -> usize {
        if self.flex { SLICE_ON_HOST } else { SLICE }
    }

    /// Bytes of an element of the weights.
    pub(super) fn element(&self) -> u64 {
        DType::from(self.dtype).size() as u64
    }

    /// How many copies of the result of a matmul exist while it is computed.
    pub(super) fn copies(&self) -> u64 {
        if self.flex { 2 } else { 1 }
    }
}

/// The dtype of the first parameter that is not quantized.
fn dtype_of<M: Module>(model: &M) -> FloatDType {
    struct First(Option<DType>);
    impl ModuleVisitor for First {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.0.is_none() {
                let dtype = if param.is_initialized() {
                    param.val().dtype()
                } else {
                    DType::F32
                };
                self.0 = dtype.is_float().then_some(dtype);
            }
        }
    }
    let mut first = First(None);
    model.visit(&mut first);
    match first.0 {
        Some(DType::BF16) => FloatDType::BF16,
        Some(DType::F16) => FloatDType::F16,
        _ => FloatDType::F32,
    }
}
