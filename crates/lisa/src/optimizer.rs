//! [`LisaOptimizer`]: wraps any Burn optimizer and owns the life of moments and master weights.
//!
//! Burn keeps the state of every parameter that was ever stepped and removes one only when a
//! step returns none. So layers that left are stepped once more with the learning rate
//! [`RELEASE`], on which this wrapper leaves the tensor as it is and answers by [`OnFreeze`].
//! Tests: `lisa.rs`.

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use burn::optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{DType, Device, FloatDType, Tensor};

use crate::OnFreeze;
pub use config::{Built, OptimizerConfig};

mod config;

/// The learning rate of the release pass: a NaN with a payload that no arithmetic yields.
pub(crate) const RELEASE: u64 = 0x7ff8_6c69_7361_0001;

/// Wraps a Burn optimizer so that a frozen layer's state can be dropped or sent to the host, and
/// half-precision parameters train through f32 master weights.
///
/// [`Lisa`](crate::Lisa) makes one of every optimizer it is given; use it directly only to build
/// a `ModuleOptimizer` by hand. A step costs what the inner optimizer's does; with master weights
/// two casts more.
#[derive(Clone)]
pub(crate) struct LisaOptimizer<O> {
    inner: O,
    on_freeze: OnFreeze,
    master_weights: bool,
    ledger: Ledger,
}

impl<O> fmt::Debug for LisaOptimizer<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LisaOptimizer")
            .field("inner", &std::any::type_name::<O>())
            .field("on_freeze", &self.on_freeze)
            .field("master_weights", &self.master_weights)
            .finish_non_exhaustive()
    }
}

impl<O: Optimizer> LisaOptimizer<O> {
    /// Wraps `inner`, which a Burn optimizer's config makes with `build()`.
    pub(crate) fn new(inner: O, on_freeze: OnFreeze, master_weights: bool) -> Self {
        Self {
            inner,
            on_freeze,
            master_weights,
            ledger: Ledger::default(),
        }
    }

    pub(crate) fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }

    /// Which shapes the tensors of a parameter's state have.
    pub(crate) fn shapes() -> StateShapes {
        use burn::optim::{Adafactor, Adan, Lamb, Muon};
        let this = TypeId::of::<O>();
        if elementwise::<O>() {
            StateShapes::Sliced
        } else if this == TypeId::of::<Adafactor>() {
            StateShapes::Factored
        } else if [
            TypeId::of::<Adan>(),
            TypeId::of::<Lamb>(),
            TypeId::of::<Muon>(),
        ]
        .contains(&this)
        {
            StateShapes::Whole
        } else {
            StateShapes::Free
        }
    }

    /// One step of the inner optimizer, or one for each slice of a large parameter: what it
    /// computes on the way is then of a slice's size, and no number comes out different.
    fn step_slices<const D: usize>(
        &self,
        lr: LearningRate,
        mut tensor: Tensor<D>,
        grad: Tensor<D>,
        moments: Option<Moments<O, D>>,
    ) -> (Tensor<D>, Option<Moments<O, D>>) {
        let dtype = tensor.dtype();
        let slices = match &moments {
            Some(Moments(slices)) => slices.len(),
            None if elementwise::<O>() => slices_of(&tensor.dims(), slice_of(&tensor.device())),
            None => 1,
        };
        let mut states = match moments {
            Some(Moments(states)) => states.into_iter().map(Some).collect(),
            None => vec![None; slices],
        };
        if slices == 1 {
            let state = states.pop().flatten();
            let (tensor, state) = self.inner.step(lr, tensor, grad.cast(dtype), state);
            return (tensor, state.map(|state| Moments(vec![state])));
        }
        let rows = tensor.dims()[0];
        let each = rows.div_ceil(slices);
        let mut next = Vec::with_capacity(slices);
        for (slice, state) in states.into_iter().enumerate() {
            let part = slice * each..((slice + 1) * each).min(rows);
            let values = tensor.clone().slice_dim(0, part.clone());
            let gradient = grad.clone().slice_dim(0, part.clone()).cast(dtype);
            let (values, state) = self.inner.step(lr, values, gradient, state);
            let mut ranges: [std::ops::Range<usize>; D] = tensor.dims().map(|size| 0..size);
            ranges[0] = part;
            tensor = tensor.slice_assign(ranges, values);
            next.extend(state);
        }
        // An optimizer without a state has none for any slice.
        let moments = (next.len() == slices).then_some(Moments(next));
        (tensor, moments)
    }

    /// What remains of the state of a parameter that froze.
    fn release<const D: usize>(&self, state: LisaState<O, D>) -> Option<LisaState<O, D>> {
        match self.on_freeze {
            OnFreeze::Drop => None,
            OnFreeze::Keep => Some(state),
            OnFreeze::Offload => Some(state.offload()),
        }
    }
}

impl<O: Optimizer> Optimizer for LisaOptimizer<O> {
    type State<const D: usize> = LisaState<O, D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        if lr.to_bits() == RELEASE {
            let state = state.and_then(|state| self.release(state));
            return (tensor, state);
        }
        let dtype = tensor.dtype();
        let (shape, fresh) = (tensor.dims(), state.is_none());
        let (moments, master) = match state.map(|state| state.load(&tensor.device())) {
            Some((moments, master)) => (moments, master),
            None => (None, None),
        };
        let half = matches!(dtype, DType::BF16 | DType::F16);
        let (tensor, moments, master) = if half && self.master_weights {
            let master = master.unwrap_or_else(|| tensor.cast(FloatDType::F32));
            let (master, moments) = self.step_slices(lr, master, grad, moments);
            (master.clone().cast(dtype), moments, Some(master))
        } else {
            let (tensor, moments) = self.step_slices(lr, tensor, grad, moments);
            (tensor, moments, None)
        };
        let state = (moments.is_some() || master.is_some()).then_some(LisaState {
            place: Place::Device { moments, master },
        });
        self.ledger.note(&shape, dtype, fresh, state.as_ref());
        (tensor, state)
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        match state.place {
            Place::Device { moments, master } => LisaState {
                place: Place::Device {
                    moments: moments.map(|Moments(slices)| {
                        let slices = slices.into_iter();
                        Moments(slices.map(|state| O::to_device(state, device)).collect())
                    }),
                    master: master.map(|master| master.to_device(device)),
                },
            },
            // It is rebuilt on the parameter's device when that is stepped.
            Place::Host(_) => state,
        }
    }
}

/// Numbers in a slice of a large parameter. On a processor what a step computes on the way then
/// stays in its cache; a GPU gets fewer and larger kernels.
pub(crate) const SLICE_ON_HOST: usize = 1 << 16;
pub(crate) const SLICE: usize = 1 << 22;

/// The size for a device: one that keeps no account of its memory is a processor.
fn slice_of(device: &Device) -> usize {
    if device.memory_pool_usage().is_none() {
        SLICE_ON_HOST
    } else {
        SLICE
    }
}

/// How many slices of this size a parameter is stepped in.
fn slices_of(shape: &[usize], slice: usize) -> usize {
    let rows = shape.first().copied().unwrap_or(1).max(1);
    let wanted = shape
        .iter()
        .product::<usize>()
        .div_ceil(slice)
        .clamp(1, rows);
    // With whole rows in each, the last ones may be left over.
    rows.div_ceil(rows.div_ceil(wanted))
}

/// Whether an optimizer treats each number by itself, so that slices may be stepped one by one.
fn elementwise<O: 'static>() -> bool {
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

/// Which shapes the tensors of a parameter's state have, for a record that may hold others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StateShapes {
    /// The parameter's, or that of its slices.
    Sliced,
    /// The parameter's.
    Whole,
    /// The parameter's, or that with one of the last two dimensions reduced to 1.
    Factored,
    /// Those of an optimizer that is not Burn's.
    Free,
}

impl StateShapes {
    pub(crate) fn is_free(self) -> bool {
        self == Self::Free
    }

    /// Whether the leaf of this name fits a parameter of this shape. `leaves` are all of the
    /// parameter's, with their shapes.
    pub(crate) fn fit(self, leaves: &[(&str, &[usize])], name: &str, shape: &[usize]) -> bool {
        let of = |name: &str| leaves.iter().find(|leaf| leaf.0 == name).map(|leaf| leaf.1);
        let Some(found) = of(name) else {
            return false;
        };
        let same = found == shape;
        if leaf_of(name) == MASTER {
            return same;
        }
        match self {
            Self::Free => true,
            Self::Whole => same,
            Self::Factored => {
                let reduced = |from_end: usize| {
                    let mut reduced = shape.to_vec();
                    if let Some(size) = reduced.iter_mut().nth_back(from_end - 1) {
                        *size = 1;
                    }
                    reduced
                };
                same || (shape.len() > 1 && (found == reduced(1) || found == reduced(2)))
            }
            Self::Sliced => {
                let slices: std::collections::BTreeSet<usize> =
                    leaves.iter().filter_map(|leaf| slice_in(leaf.0)).collect();
                let Some(slice) = slice_in(name) else {
                    return same && slices.is_empty();
                };
                let (count, rows) = (slices.len(), shape.first().copied().unwrap_or(1));
                // All of them, from the first on, and as `step_slices` cuts.
                if slices.last() != Some(&(count - 1)) || count > rows {
                    return false;
                }
                let each = rows.div_ceil(count);
                let part = (slice * each).min(rows)..((slice + 1) * each).min(rows);
                !part.is_empty()
                    && found.first() == Some(&part.len())
                    && found.get(1..) == shape.get(1..)
            }
        }
    }
}

/// The last part of a leaf's name.
fn leaf_of(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// The slice that a leaf, `ID.moments.slice0...`, is of.
fn slice_in(name: &str) -> Option<usize> {
    let mut parts = name.split('.').skip(1);
    let part = parts.find(|part| part.starts_with(SLICED))?;
    part.strip_prefix(SLICED)?.parse().ok()
}

/// The inner optimizer's state of each slice of a parameter.
struct Moments<O: Optimizer, const D: usize>(Vec<O::State<D>>);

impl<O: Optimizer, const D: usize> Clone for Moments<O, D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<O: Optimizer, const D: usize> RecordState for Moments<O, D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        match &self.0[..] {
            [state] => state.state_flatten(prefix, out),
            slices => {
                for (slice, state) in slices.iter().enumerate() {
                    let path = burn::optim::join_path(prefix, &format!("{SLICED}{slice}"));
                    state.state_flatten(&path, out);
                }
            }
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let path = |slice: usize| burn::optim::join_path(prefix, &format!("{SLICED}{slice}"));
        let mut slices = Vec::new();
        while src.has_under(&path(slices.len())) {
            let path = path(slices.len());
            slices.push(<O::State<D> as RecordState>::state_unflatten(
                &path, src, device,
            )?);
        }
        if slices.is_empty() {
            slices.push(<O::State<D> as RecordState>::state_unflatten(
                prefix, src, device,
            )?);
        }
        Some(Self(slices))
    }
}

/// State of a [`LisaOptimizer`] for one parameter: the inner optimizer's moments and, for a
/// half-precision parameter, its f32 master weights; on the device, or on the host while frozen.
pub(crate) struct LisaState<O: Optimizer, const D: usize> {
    place: Place<O, D>,
}

// One for each parameter, in a map of Burn's that boxes it: a second box would buy nothing.
#[allow(clippy::large_enum_variant)]
enum Place<O: Optimizer, const D: usize> {
    Device {
        moments: Option<Moments<O, D>>,
        master: Option<Tensor<D>>,
    },
    Host(Arc<StateSink>),
}

impl<O: Optimizer, const D: usize> Clone for LisaState<O, D> {
    fn clone(&self) -> Self {
        Self {
            place: match &self.place {
                Place::Device { moments, master } => Place::Device {
                    moments: moments.clone(),
                    master: master.clone(),
                },
                Place::Host(sink) => Place::Host(sink.clone()),
            },
        }
    }
}

impl<O: Optimizer, const D: usize> fmt::Debug for LisaState<O, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.place {
            Place::Device { .. } => "LisaState { on the device }",
            Place::Host(_) => "LisaState { on the host }",
        })
    }
}

impl<O: Optimizer, const D: usize> LisaState<O, D> {
    fn offload(self) -> Self {
        match self.place {
            Place::Device { .. } => {
                let mut sink = StateSink::default();
                self.state_flatten("", &mut sink);
                Self {
                    place: Place::Host(Arc::new(sink)),
                }
            }
            Place::Host(_) => self,
        }
    }

    /// Moments and master weights, on this device.
    fn load(self, device: &Device) -> (Option<Moments<O, D>>, Option<Tensor<D>>) {
        match self.place {
            Place::Device { moments, master } => (moments, master),
            Place::Host(sink) => {
                let mut source = StateSource::new(sink.scalars.iter().cloned().collect());
                for (name, data) in &sink.tensors {
                    source.insert_tensor(name.clone(), data.clone());
                }
                match Self::state_unflatten("", &mut source, device).map(|state| state.place) {
                    Some(Place::Device { moments, master }) => (moments, master),
                    _ => (None, None),
                }
            }
        }
    }
}

/// Names of the leaves in a record: `ID.moments.…`, `ID.moments.slice0.…` and `ID.master`.
const SLICED: &str = "slice";
const MOMENTS: &str = "moments";
const MASTER: &str = "master";

impl<O: Optimizer, const D: usize> RecordState for LisaState<O, D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        match &self.place {
            Place::Device { moments, master } => {
                if let Some(moments) = moments {
                    moments.state_flatten(&burn::optim::join_path(prefix, MOMENTS), out);
                }
                if let Some(master) = master {
                    out.push_tensor(prefix, MASTER, master.clone().into_data());
                }
            }
            Place::Host(sink) => {
                for (name, data) in &sink.tensors {
                    out.push_tensor(prefix, name, data.clone());
                }
                for (name, value) in &sink.scalars {
                    out.push_scalar(prefix, name, *value);
                }
            }
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let path = burn::optim::join_path(prefix, MOMENTS);
        let moments = if src.has_under(&path) {
            Some(Moments::state_unflatten(&path, src, device)?)
        } else {
            None
        };
        let master = src.take_tensor(prefix, MASTER).map(|data| {
            let dtype = data.dtype();
            Tensor::from_data(data, (device, dtype))
        });
        (moments.is_some() || master.is_some()).then_some(Self {
            place: Place::Device { moments, master },
        })
    }
}

/// Bytes of a parameter's state: moments and master weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StateBytes {
    pub(crate) moments: u64,
    pub(crate) master: u64,
}

/// What the state of a parameter of some shape and type weighs, measured when the first two such
/// parameters are stepped (an optimizer such as Adan adds to its state in the second step).
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Mutex<Sizes>>);

/// By shape and type: what the state weighs, and whether that was seen after a second step.
type Sizes = HashMap<(Vec<usize>, DType), (StateBytes, bool)>;

impl Ledger {
    fn note<O: Optimizer, const D: usize>(
        &self,
        shape: &[usize; D],
        dtype: DType,
        fresh: bool,
        state: Option<&LisaState<O, D>>,
    ) {
        let mut sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (shape.to_vec(), dtype);
        match sizes.get(&key) {
            Some((_, settled)) if *settled || fresh => return,
            _ => {}
        }
        let mut bytes = StateBytes::default();
        if let Some(LisaState {
            place: Place::Device { moments, master },
        }) = state
        {
            // Slice by slice: what is measured exists twice for a moment.
            for state in moments.iter().flat_map(|Moments(slices)| slices) {
                let mut sink = StateSink::default();
                state.state_flatten("", &mut sink);
                let sizes = sink.tensors.iter().map(|(_, t)| t.as_bytes().len() as u64);
                bytes.moments += sizes.sum::<u64>();
            }
            if master.is_some() {
                bytes.master = 4 * shape.iter().product::<usize>() as u64;
            }
        }
        sizes.insert(key, (bytes, !fresh));
    }

    /// What was measured for this shape and type.
    pub(crate) fn bytes(&self, shape: &[usize], dtype: DType) -> StateBytes {
        let sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sizes
            .get(&(shape.to_vec(), dtype))
            .map(|(bytes, _)| *bytes)
            .unwrap_or_default()
    }
}
