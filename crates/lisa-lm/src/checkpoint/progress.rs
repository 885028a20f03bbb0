//! [`Progress`]: how many bytes have been read or written.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::store::burn_pack::Tensor as PackTensor;

/// Counts the bytes of tensors when they are read, and reports the count and the total.
#[derive(Clone)]
pub(super) struct Progress {
    done: Arc<AtomicU64>,
    total: u64,
    report: Arc<dyn Fn(u64, u64) + Send + Sync>,
}

impl Progress {
    pub(super) fn new(total: u64, report: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        Self {
            done: Arc::default(),
            total,
            report: Arc::new(report),
        }
    }

    /// Returns the tensor; its bytes are counted when they are read.
    pub(super) fn counted(&self, tensor: PackTensor) -> PackTensor {
        let (progress, bytes) = (self.clone(), tensor.byte_len());
        PackTensor::deferred(
            tensor.name.clone(),
            tensor.dtype,
            tensor.shape.clone(),
            tensor.param_id,
            bytes,
            move || {
                let data = tensor.to_bytes()?;
                let before = progress.done.fetch_add(bytes as u64, Ordering::Relaxed);
                (progress.report)(before + bytes as u64, progress.total);
                Ok(data)
            },
        )
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = self.done.load(Ordering::Relaxed);
        write!(f, "Progress({done} of {})", self.total)
    }
}
