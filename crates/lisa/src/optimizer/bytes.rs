//! [`StateBytes`]: what the optimizer's state of a parameter weighs, and how a wrapper says it.

use burn::optim::{Optimizer, RecordState, StateSink};

/// Bytes of a parameter's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StateBytes {
    /// The inner optimizer's state.
    pub(crate) state: u64,
    /// The f32 master weights.
    pub(crate) master: u64,
}

impl StateBytes {
    /// Both together.
    pub(crate) fn total(self) -> u64 {
        self.state + self.master
    }
}

/// An optimizer that knows what its state weighs.
pub(crate) trait Weighed: Optimizer {
    /// Bytes of this state.
    fn weigh<const D: usize>(state: &Self::State<D>) -> StateBytes;
}

/// Bytes of all tensors of a state. It copies the state to the host to find out.
pub(super) fn tensor_bytes<S: RecordState>(state: &S) -> u64 {
    let mut sink = StateSink::default();
    state.state_flatten("", &mut sink);
    let bytes = sink.tensors.iter().map(|(_, data)| data.as_bytes().len());
    bytes.sum::<usize>() as u64
}
