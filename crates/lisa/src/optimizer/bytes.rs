//! [`StateBytes`]: the bytes of a parameter's optimizer state, and the trait by which a wrapper
//! returns them.

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

/// An optimizer that can count the bytes of its state.
pub(crate) trait Weighed: Optimizer {
    /// Bytes of this state.
    fn weigh<const D: usize>(state: &Self::State<D>) -> StateBytes;
}

/// Bytes of all tensors of a state. To count them, it copies the state to the host.
pub(super) fn tensor_bytes<S: RecordState>(state: &S) -> u64 {
    let mut sink = StateSink::default();
    state.state_flatten("", &mut sink);
    let bytes = sink.tensors.iter().map(|(_, data)| data.as_bytes().len());
    bytes.sum::<usize>() as u64
}
