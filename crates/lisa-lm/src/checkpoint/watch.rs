//! [`Watch`]: how far reading or writing has come. Tests: beside this file.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::store::burn_pack::Tensor as PackTensor;

/// Counts the bytes of tensors as they are asked for, and tells somebody.
#[derive(Clone)]
pub(super) struct Watch {
    done: Arc<AtomicU64>,
    total: u64,
    tell: Arc<dyn Fn(u64, u64) + Send + Sync>,
}

impl Watch {
    pub(super) fn new(total: u64, tell: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        Self {
            done: Arc::default(),
            total,
            tell: Arc::new(tell),
        }
    }

    /// The tensor, which counts when its bytes are asked for.
    pub(super) fn tensor(&self, tensor: PackTensor) -> PackTensor {
        let (watch, bytes) = (self.clone(), tensor.byte_len());
        PackTensor::deferred(
            tensor.name.clone(),
            tensor.dtype,
            tensor.shape.clone(),
            tensor.param_id,
            bytes,
            move || {
                let data = tensor.to_bytes()?;
                let before = watch.done.fetch_add(bytes as u64, Ordering::Relaxed);
                (watch.tell)(before + bytes as u64, watch.total);
                Ok(data)
            },
        )
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = self.done.load(Ordering::Relaxed);
        write!(f, "Watch({done} of {})", self.total)
    }
}
