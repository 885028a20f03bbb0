//! [`Slices`]: steps a large parameter slice by slice, so that the temporary tensors of a step have
//! the size of a slice. The result is bit-identical. Tests: here, and `lisa/tests.rs`.

use std::any::TypeId;
use std::ops::Range;

use burn::optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource, join_path};
use burn::tensor::{Device, Tensor};

use super::bytes::{StateBytes, Weighed, tensor_bytes};
use super::exact;
use crate::slicing::{count_stepped, elements, rows_of};

/// The prefix of a slice's leaves in a record: `slice0`, `slice1` and so on.
const SLICED: &str = "slice";

/// Steps parameters in slices if the optimizer is elementwise. State kept: that of the inner
/// optimizer, for each slice.
#[derive(Clone)]
pub(crate) struct Slices<O>(O);

/// Wraps an optimizer.
pub(crate) fn slices<O: Optimizer>(inner: O) -> Slices<O> {
    Slices(inner)
}

impl<O: Optimizer> Optimizer for Slices<O> {
    type State<const D: usize> = Sliced<O, D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        mut tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Sliced<O, D>>,
    ) -> (Tensor<D>, Option<Sliced<O, D>>) {
        let dtype = tensor.dtype();
        let slices = match &state {
            // A record may be of another device, or of a version that made more slices.
            Some(Sliced(slices)) => slices.len(),
            None if is_elementwise::<O>() => {
                count_stepped(&tensor.dims(), elements(&tensor.device()))
            }
            None => 1,
        };
        let mut states = match state {
            Some(Sliced(states)) => states.into_iter().map(Some).collect(),
            None => vec![None; slices],
        };
        if slices == 1 {
            let state = states.pop().flatten();
            let (tensor, state) = self.0.step(lr, tensor, grad.cast(dtype), state);
            return (tensor, state.map(|state| Sliced(vec![state])));
        }
        let rows = tensor.dims()[0];
        let mut next = Vec::with_capacity(slices);
        for (slice, state) in states.into_iter().enumerate() {
            let part = rows_of(slice, slices, rows);
            let values = tensor.clone().slice_dim(0, part.clone());
            let gradient = grad.clone().slice_dim(0, part.clone()).cast(dtype);
            let (values, state) = self.0.step(lr, values, gradient, state);
            let mut ranges: [Range<usize>; D] = tensor.dims().map(|size| 0..size);
            ranges[0] = part;
            tensor = tensor.slice_assign(ranges, values);
            next.extend(state);
        }
        // An optimizer without a state has none for any slice.
        let state = (next.len() == slices).then_some(Sliced(next));
        (tensor, state)
    }

    fn to_device<const D: usize>(state: Sliced<O, D>, device: &Device) -> Sliced<O, D> {
        let slices = state.0.into_iter();
        Sliced(slices.map(|state| O::to_device(state, device)).collect())
    }
}

impl<O: Optimizer> Weighed for Slices<O> {
    /// Slice by slice, so that only one slice is on the host at a time.
    fn weigh<const D: usize>(state: &Sliced<O, D>) -> StateBytes {
        StateBytes {
            state: state.0.iter().map(tensor_bytes).sum(),
            master: 0,
        }
    }
}

/// The inner optimizer's state of each slice of a parameter.
pub(crate) struct Sliced<O: Optimizer, const D: usize>(Vec<O::State<D>>);

impl<O: Optimizer, const D: usize> Clone for Sliced<O, D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<O: Optimizer, const D: usize> RecordState for Sliced<O, D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        match &self.0[..] {
            [state] => state.state_flatten(prefix, out),
            slices => {
                for (slice, state) in slices.iter().enumerate() {
                    state.state_flatten(&path(prefix, slice), out);
                }
            }
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let read =
            |path: &str, src: &mut StateSource| exact::read::<O::State<D>, D>(path, src, device);
        let mut slices = Vec::new();
        while src.has_under(&path(prefix, slices.len())) {
            let path = path(prefix, slices.len());
            slices.push(read(&path, src)?);
        }
        if slices.is_empty() {
            slices.push(read(prefix, src)?);
        }
        Some(Self(slices))
    }
}

fn path(prefix: &str, slice: usize) -> String {
    join_path(prefix, &format!("{SLICED}{slice}"))
}

/// The slice that a leaf of a record, such as `ID.moments.slice0...`, belongs to.
pub(super) fn slice_of(leaf: &str) -> Option<usize> {
    let mut names = leaf.split('.').skip(1);
    let name = names.find(|name| name.starts_with(SLICED))?;
    name.strip_prefix(SLICED)?.parse().ok()
}

/// Whether an optimizer is elementwise, so that slices may be stepped one by one.
pub(super) fn is_elementwise<O: 'static>() -> bool {
    use burn::optim::{AdaGrad, Adam, AdamW, Lion, RmsProp, Sgd};
    let this = TypeId::of::<O>();
    [
        TypeId::of::<AdaGrad>(),
        TypeId::of::<Adam>(),
        TypeId::of::<AdamW>(),
        TypeId::of::<Lion>(),
        TypeId::of::<RmsProp>(),
        TypeId::of::<Sgd>(),
    ]
    .contains(&this)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::optim::{AdamW, AdamWConfig, MuonConfig};

    fn values(seed: f32) -> Tensor<2> {
        let values = (0..300 * 300).map(|i| (i as f32 * 0.7 + seed).sin());
        let values: Vec<f32> = values.collect();
        Tensor::<1>::from_floats(values.as_slice(), &Device::flex()).reshape([300, 300])
    }

    #[test]
    fn a_large_parameter_is_stepped_in_slices_to_the_same_values() {
        let adamw = AdamWConfig::new().build();
        let sliced = slices(adamw.clone());
        let (mut a, mut b) = (values(0.0), values(0.0));
        let (mut of_a, mut of_b) = (None, None);
        for step in 0..3 {
            let grad = values(step as f32);
            (a, of_a) = adamw.step::<2>(0.1, a, grad.clone(), of_a);
            (b, of_b) = sliced.step::<2>(0.1, b, grad, of_b);
        }
        assert_eq!(a.into_data(), b.into_data());
        let state = of_b.unwrap();
        assert_eq!(state.0.len(), 2);
        assert_eq!(Slices::weigh(&state).state, 2 * 4 * 300 * 300);
        assert!(!is_elementwise::<burn::optim::Muon>() && is_elementwise::<burn::optim::AdamW>());
        let (_, state) =
            slices(MuonConfig::new().build()).step::<2>(0.1, values(0.0), values(1.0), None);
        assert_eq!(state.unwrap().0.len(), 1);
    }

    #[test]
    fn state_of_more_slices_than_are_made_now_is_read_and_stepped_to_the_same_values() {
        let adamw = AdamWConfig::new().build();
        let (whole, of_whole) = adamw.step::<2>(0.1, values(0.0), values(1.0), None);
        let slice = |slice| {
            let part = |tensor: Tensor<2>| tensor.slice_dim(0, rows_of(slice, 150, 300));
            let stepped = adamw.step::<2>(0.1, part(values(0.0)), part(values(1.0)), None);
            stepped.1.unwrap()
        };
        let mut saved = StateSink::default();
        Sliced::<AdamW, 2>((0..150).map(slice).collect()).state_flatten("1", &mut saved);
        let mut source = StateSource::new(saved.scalars.iter().cloned().collect());
        for (name, data) in &saved.tensors {
            source.insert_tensor(name.clone(), data.clone());
        }
        let loaded = Sliced::<AdamW, 2>::state_unflatten("1", &mut source, &Device::flex());
        assert!(loaded.is_some());
        let sliced = slices(adamw.clone());
        let (found, state) = sliced.step::<2>(0.1, whole.clone(), values(2.0), loaded);
        let (expected, _) = adamw.step::<2>(0.1, whole, values(2.0), of_whole);
        assert_eq!(found.into_data(), expected.into_data());
        assert_eq!(state.unwrap().0.len(), 150);
    }
}
