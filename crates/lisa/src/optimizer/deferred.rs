//! [`deferred`]: the state of an optimizer as tensors that are read when they are written to a file.
//!
//! Burn's `ModuleOptimizer` keeps the states private, and `to_record` copies all of them to host
//! memory. But it asks each state for its leaves, and the states of a run are
//! [`Placed`](super::offload::Placed), which calls [`flatten`].

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use burn::optim::{ModuleOptimizer, StateSink};
use burn::tensor::Bytes;
use burn_pack::{Error, Reader, Tensor};

thread_local! {
    /// The tensors of the record that is deferred on this thread.
    static TENSORS: RefCell<Option<Vec<Tensor>>> = const { RefCell::new(None) };
}

/// The record of an optimizer without the tensors of our states, and all its tensors, by name.
///
/// A tensor is copied to host memory when it is read, with the other tensors of its parameter,
/// which stay there until they are read, too. So when the tensors are read one after the other, the
/// state of one parameter is in host memory. Cost: two copies of each state, one of them here.
pub(super) fn deferred(optimizer: &ModuleOptimizer) -> Result<(Reader, Vec<Tensor>), Error> {
    TENSORS.set(Some(Vec::new()));
    let _stop = Stop;
    let bytes = optimizer.to_record().into_bytes();
    let bytes = bytes.map_err(|error| Error::ValidationError(error.to_string()))?;
    let mut tensors = TENSORS.take().unwrap_or_default();
    // States that are not ours: those of a group that the user has added to Burn's optimizer.
    tensors.extend(Reader::from_bytes(bytes.clone())?.into_tensors()?);
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((Reader::from_bytes(bytes)?, tensors))
}

/// Ends the record, also if a state panics.
struct Stop;

impl Drop for Stop {
    fn drop(&mut self) {
        TENSORS.set(None);
    }
}

/// Writes the leaves of a parameter's state, which `write` has, to `out`; or defers the tensors.
/// `prefix` is the parameter's id.
pub(super) fn flatten(
    prefix: &str,
    out: &mut StateSink,
    write: impl Fn(&mut StateSink) + Send + Sync + 'static,
) {
    let start = out.tensors.len();
    write(out);
    TENSORS.with_borrow_mut(|deferred| {
        let Some(deferred) = deferred else { return };
        let state = Arc::new(State {
            write: Box::new(write),
            unread: Mutex::new(Vec::new()),
        });
        let id = prefix.parse().ok();
        for (at, (name, data)) in out.tensors.drain(start..).enumerate() {
            let (bytes, shape, dtype) = data.into_parts();
            let state = Arc::clone(&state);
            let read = move || Ok(state.read(at));
            deferred.push(Tensor::deferred(name, dtype, shape, id, bytes.len(), read));
        }
    });
}

/// The state of a parameter whose tensors are deferred.
struct State {
    write: Box<dyn Fn(&mut StateSink) + Send + Sync>,
    /// The tensors in host memory that were not read yet.
    unread: Mutex<Vec<Option<Bytes>>>,
}

impl State {
    fn read(&self, at: usize) -> Bytes {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = unread.get_mut(at).and_then(Option::take) {
            return bytes;
        }
        let mut out = StateSink::default();
        (self.write)(&mut out);
        let bytes = out
            .tensors
            .into_iter()
            .map(|(_, data)| Some(data.into_bytes()));
        *unread = bytes.collect();
        unread[at]
            .take()
            .expect("a state has the same leaves each time")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use burn::tensor::TensorData;

    use super::*;

    #[test]
    fn a_tensor_is_read_with_those_of_its_parameter_and_no_others() {
        TENSORS.set(Some(Vec::new()));
        let stop = Stop;
        let written = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let mut out = StateSink::default();
        for id in 0..2 {
            let written = Arc::clone(&written);
            flatten(&id.to_string(), &mut out, move |out| {
                written[id].fetch_add(1, Ordering::Relaxed);
                for leaf in ["a", "b"] {
                    let values = [id as f32, f32::from(leaf.as_bytes()[0])];
                    out.push_tensor(&id.to_string(), leaf, TensorData::from(values));
                }
            });
        }
        assert!(out.tensors.is_empty());
        let tensors = TENSORS.take().unwrap();
        drop(stop);
        let counts = || [0, 1].map(|id: usize| written[id].load(Ordering::Relaxed));
        assert_eq!(counts(), [1, 1]);
        let names: Vec<_> = tensors.iter().map(|t| (&t.name[..], t.param_id)).collect();
        let expected = [
            ("0.a", Some(0)),
            ("0.b", Some(0)),
            ("1.a", Some(1)),
            ("1.b", Some(1)),
        ];
        assert_eq!(names, expected);
        for (at, expected) in [[2, 1], [2, 1], [2, 2], [2, 2]].into_iter().enumerate() {
            let (name, dtype, shape, _, bytes) = tensors[at].clone().into_parts().unwrap();
            let data = TensorData::from_bytes(bytes, shape, dtype);
            let values = [(at / 2) as f32, f32::from(b"ab"[at % 2])];
            assert_eq!(data, TensorData::from(values), "{name}");
            assert_eq!(counts(), expected, "{name}");
        }
        // A tensor may be read again.
        tensors[1].to_bytes().unwrap();
        assert_eq!(counts(), [3, 2]);
        flatten("7", &mut out, |out| {
            out.push_tensor("7", "a", TensorData::from([1.0]));
        });
        assert_eq!(out.tensors.len(), 1);
    }
}
