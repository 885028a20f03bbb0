//! [`Ledger`]: the bytes of a parameter's state, without a copy of the state at each step, and how
//! often the optimizer that it belongs to has stepped a parameter.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::optim::{LearningRate, Optimizer};
use burn::tensor::{DType, Device, Tensor};

use super::bytes::{StateBytes, Weighed};

/// By shape and dtype of a parameter: the bytes of its state.
///
/// They are measured when a parameter of the shape is first stepped, and again when one is first
/// stepped a second time: an optimizer such as Adan adds tensors to its state in the second step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    sizes: Sizes,
    steps: u64,
}

/// The bytes, and whether they were measured after a second step.
type Sizes = HashMap<(Vec<usize>, DType), (StateBytes, bool)>;

impl Ledger {
    /// What was measured for this shape and dtype.
    pub(crate) fn bytes(&self, shape: &[usize], dtype: DType) -> StateBytes {
        let entries = self.entries();
        let found = entries.sizes.get(&(shape.to_vec(), dtype));
        found.map(|(bytes, _)| *bytes).unwrap_or_default()
    }

    /// How often its optimizer has stepped a parameter.
    pub(crate) fn steps(&self) -> u64 {
        self.entries().steps
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(
        &self,
        shape: &[usize],
        dtype: DType,
        first_step: bool,
        measure: impl FnOnce() -> StateBytes,
    ) {
        let mut entries = self.entries();
        entries.steps += 1;
        let key = (shape.to_vec(), dtype);
        match entries.sizes.get(&key) {
            Some((_, settled)) if *settled || first_step => {}
            _ => drop(entries.sizes.insert(key, (measure(), !first_step))),
        }
    }
}

/// Records the bytes of the inner optimizer's state. State kept: that of the inner optimizer.
#[derive(Clone)]
pub(crate) struct Ledgered<O> {
    inner: O,
    ledger: Ledger,
}

/// Wraps an optimizer, with the ledger that it writes.
pub(crate) fn ledgered<O: Weighed>(inner: O) -> (Ledgered<O>, Ledger) {
    let ledger = Ledger::default();
    let written = ledger.clone();
    (Ledgered { inner, ledger }, written)
}

impl<O: Weighed> Optimizer for Ledgered<O> {
    type State<const D: usize> = O::State<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<O::State<D>>,
    ) -> (Tensor<D>, Option<O::State<D>>) {
        let (shape, dtype, first_step) = (tensor.dims(), tensor.dtype(), state.is_none());
        let (tensor, state) = self.inner.step(lr, tensor, grad, state);
        self.ledger.note(&shape, dtype, first_step, || {
            state.as_ref().map(O::weigh).unwrap_or_default()
        });
        (tensor, state)
    }

    fn to_device<const D: usize>(state: O::State<D>, device: &Device) -> O::State<D> {
        O::to_device(state, device)
    }
}
