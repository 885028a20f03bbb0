//! Slices of a large tensor along its first dimension, so that temporary tensors have the size of a
//! slice.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, Tensor};

/// Elements in a slice on a CPU: the temporary tensors of a step then fit its cache.
pub(crate) const SLICE_ON_HOST: usize = 1 << 16;
/// Elements in a slice on a GPU, which prefers fewer and larger kernels.
pub(crate) const SLICE: usize = 1 << 22;
/// The most slices in which a parameter is stepped. The state of each slice has tensors of its own
/// in a record, and Burn reads at most 100,000 of them.
const MOST_STEPPED: usize = 128;

/// The rows of each slice of a tensor, in order.
pub(crate) fn slices_of<const D: usize>(
    tensor: &Tensor<D>,
) -> impl ExactSizeIterator<Item = Range<usize>> + use<D> {
    let shape = tensor.dims();
    let (slices, rows) = (count(&shape, elements(&tensor.device())), shape[0]);
    (0..slices).map(move |slice| rows_of(slice, slices, rows))
}

/// The rows of a slice, given the number of rows and of slices of the parameter. Empty if there is
/// no such slice.
pub(crate) fn rows_of(slice: usize, slices: usize, rows: usize) -> Range<usize> {
    let each = rows.div_ceil(slices);
    (slice * each).min(rows)..((slice + 1) * each).min(rows)
}

/// Elements in a slice on this device. A device that does not report its memory counts as a CPU.
pub(crate) fn elements(device: &Device) -> usize {
    static SIZES: Sizes = Sizes::new();
    SIZES.of(device, |device| {
        if device.memory_pool_usage().is_none() {
            SLICE_ON_HOST
        } else {
            SLICE
        }
    })
}

/// The size of each device that was asked for. A device with operation fusion answers only after all its
/// operations, so it is asked once.
struct Sizes(Mutex<Vec<(Device, usize)>>);

impl Sizes {
    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn of(&self, device: &Device, ask: impl FnOnce(&Device) -> usize) -> usize {
        let mut sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, size)) = sizes.iter().find(|(known, _)| known == device) {
            return *size;
        }
        let size = ask(device);
        sizes.push((device.clone(), size));
        size
    }
}

/// The number of slices in which a parameter is stepped, on a device whose slices have this many
/// elements.
pub(crate) fn count_stepped(shape: &[usize], elements: usize) -> usize {
    count(shape, stepped(shape.iter().product(), elements))
}

/// Elements in a slice in which a parameter of `len` elements is stepped on such a device.
pub(crate) fn stepped(len: usize, elements: usize) -> usize {
    elements.max(len.div_ceil(MOST_STEPPED))
}

/// The number of slices of at most this many elements.
fn count(shape: &[usize], elements: usize) -> usize {
    let rows = shape.first().copied().unwrap_or(1).max(1);
    let wanted = shape
        .iter()
        .product::<usize>()
        .div_ceil(elements)
        .clamp(1, rows);
    // With whole rows in each, the last slices may be left over.
    rows.div_ceil(rows.div_ceil(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_asked_once() {
        let (sizes, mut asked) = (Sizes::new(), 0);
        for device in [Device::flex(), Device::flex().autodiff(), Device::flex()] {
            let size = sizes.of(&device, |_| {
                asked += 1;
                7
            });
            assert_eq!((size, asked), (7, 1));
        }
        assert_eq!(elements(&Device::flex()), SLICE_ON_HOST);
    }

    #[test]
    fn a_parameter_is_stepped_in_at_most_128_slices() {
        for (shape, elements, wanted) in [
            // The embedding and a matrix of Llama-2-7B, and a matrix of the model `small`.
            (&[32_000, 4096][..], SLICE_ON_HOST, 128),
            (&[11_008, 4096], SLICE_ON_HOST, 128),
            (&[11_008, 4096], SLICE, 11),
            (&[1536, 1024], SLICE_ON_HOST, 24),
            (&[129], 1, 65),
            (&[4096], SLICE_ON_HOST, 1),
            (&[], 1, 1),
        ] {
            let found = count_stepped(shape, elements);
            assert_eq!(found, wanted, "{shape:?} by {elements}");
        }
    }

    #[test]
    fn slices_have_whole_rows_and_none_is_empty() {
        for (shape, elements, wanted) in [
            (&[10, 3][..], 30, 1),
            (&[10, 3], 29, 2),
            (&[10, 3], 9, 4),
            (&[10, 3], 1, 10),
            (&[7], 2, 4),
            (&[], 1, 1),
        ] {
            let found = count(shape, elements);
            assert_eq!(found, wanted, "{shape:?} by {elements}");
            let rows = shape.first().copied().unwrap_or(1);
            let sizes = (0..found).map(|slice| rows_of(slice, found, rows).len());
            assert!(sizes.clone().all(|size| size > 0));
            assert_eq!(sizes.sum::<usize>(), rows);
        }
    }
}
