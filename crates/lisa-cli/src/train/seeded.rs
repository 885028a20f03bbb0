//! [`seeded`]: random parameters that depend on a seed only. Tests: `tests/run/runs.rs`.

use std::sync::{Mutex, PoisonError};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

/// A device has one sequence of random numbers in a process, so only one run may draw from it.
static ONE: Mutex<()> = Mutex::new(());

/// The module that `init` makes, with its parameters initialized from the seed.
pub(crate) fn seeded<M: Module, E>(
    device: &Device,
    seed: u64,
    init: impl FnOnce() -> Result<M, E>,
) -> Result<M, E> {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    device.seed(seed);
    let module = init()?;
    module.visit(&mut Initialize);
    Ok(module)
}

/// Initializes lazy parameters.
struct Initialize;

impl ModuleVisitor for Initialize {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        drop(param.val());
    }
}
