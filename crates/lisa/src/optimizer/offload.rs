//! [`Placed`]: an optimizer's state, on the device or offloaded to host memory.

use std::sync::Arc;

use burn::optim::{Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::Device;
use burn_pack::Scalar;

use super::deferred::flatten;

/// The leaf of a record by which offloaded state is known. It is not among those of the inner state,
/// which are under other names.
const OFFLOADED: &str = "offloaded";

/// The state of a parameter, on the device or in host memory. Its leaves in a record are those of
/// the inner state; offloaded state has one more, so that loading does not move it to the device.
// There is one for each parameter, in a map of Burn's that boxes it: a second box would gain nothing.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Placed<O: Optimizer, const D: usize> {
    /// On the device of the parameter.
    Device(O::State<D>),
    /// In host memory.
    Host(Arc<StateSink>),
}

impl<O: Optimizer, const D: usize> Clone for Placed<O, D> {
    fn clone(&self) -> Self {
        match self {
            Self::Device(state) => Self::Device(state.clone()),
            Self::Host(sink) => Self::Host(sink.clone()),
        }
    }
}

impl<O: Optimizer, const D: usize> Placed<O, D> {
    /// The state in host memory.
    pub(super) fn offload(self) -> Self {
        match self {
            Self::Device(state) => {
                let mut sink = StateSink::default();
                state.state_flatten("", &mut sink);
                Self::Host(Arc::new(sink))
            }
            Self::Host(_) => self,
        }
    }

    /// The state on this device.
    pub(super) fn load(self, device: &Device) -> Option<O::State<D>> {
        match self {
            Self::Device(state) => Some(state),
            Self::Host(sink) => {
                let mut source = StateSource::new(sink.scalars.iter().cloned().collect());
                for (name, data) in &sink.tensors {
                    source.insert_tensor(name.clone(), data.clone());
                }
                <O::State<D> as RecordState>::state_unflatten("", &mut source, device)
            }
        }
    }

    /// The state after its parameter moved to another device. Offloaded state stays in host memory:
    /// it is copied to the parameter's device when the parameter is stepped.
    pub(super) fn moved(self, device: &Device) -> Self {
        match self {
            Self::Device(state) => Self::Device(O::to_device(state, device)),
            Self::Host(_) => self,
        }
    }

    /// Writes the leaves of the state, whose names begin with `prefix`.
    fn write(&self, prefix: &str, out: &mut StateSink) {
        match self {
            Self::Device(state) => state.state_flatten(prefix, out),
            Self::Host(sink) => {
                for (name, data) in &sink.tensors {
                    out.push_tensor(prefix, name, data.clone());
                }
                for (name, value) in &sink.scalars {
                    out.push_scalar(prefix, name, *value);
                }
                out.push_scalar(prefix, OFFLOADED, Scalar::Bool(true));
            }
        }
    }
}

impl<O: Optimizer, const D: usize> RecordState for Placed<O, D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        let (state, id) = (self.clone(), prefix.to_owned());
        flatten(prefix, out, move |out| state.write(&id, out));
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let state = <O::State<D> as RecordState>::state_unflatten(prefix, src, device)?;
        let is_offloaded = src
            .take_scalar(prefix, OFFLOADED)
            .is_some_and(says_offloaded);
        let state = Self::Device(state);
        // Only the state of this parameter was on the device.
        Some(if is_offloaded { state.offload() } else { state })
    }
}

/// Whether this leaf, `ID.offloaded`, says that the state of a parameter is offloaded.
pub(crate) fn is_offloaded(name: &str, value: Scalar) -> bool {
    let leaf = name.split_once('.').map(|(_, leaf)| leaf);
    leaf == Some(OFFLOADED) && says_offloaded(value)
}

fn says_offloaded(value: Scalar) -> bool {
    matches!(value, Scalar::Bool(true))
}
