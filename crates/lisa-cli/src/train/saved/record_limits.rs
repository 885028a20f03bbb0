//! [`check_sizes`]: a run whose checkpoints Burn could write but not read is refused before it
//! starts.

use anyhow::Result;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, FloatDType, Tensor};
use burn_pack::{MAX_FILE_SIZE, MAX_TENSOR_SIZE};
use lisa_lm::CausalLm;

use crate::terminal::text::size;
use crate::user_error::require;

/// Refuses a run whose weights or whose optimizer state, of `state` bytes at most, exceed what Burn
/// reads: 100 GiB in a file, 10 GiB in a tensor. The model's parameters are not initialized.
pub(crate) fn check_sizes(model: &CausalLm, dtype: FloatDType, state: u64) -> Result<()> {
    let mut sizes = Elements::default();
    model.visit(&mut sizes);
    let bytes = DType::from(dtype).size() as u64;
    fits("weights", bytes * sizes.all, bytes * sizes.largest)?;
    // Moments and master weights have at most 4 bytes an element.
    fits("optimizer state", state, 4 * sizes.largest)
}

fn fits(what: &str, all: u64, largest: u64) -> Result<()> {
    const HELP: &str = "choose a smaller model or dtype, or fewer trained parameters: --freeze, \
                        --active-layers, --method lora";
    require!(
        all <= MAX_FILE_SIZE,
        HELP,
        "a checkpoint of this run would have {} of {what} in one file, and Burn reads at most {}",
        size(all),
        size(MAX_FILE_SIZE)
    );
    require!(
        largest <= MAX_TENSOR_SIZE as u64,
        HELP,
        "a checkpoint of this run would have {} of {what} in one tensor, and Burn reads at most {}",
        size(largest),
        size(MAX_TENSOR_SIZE as u64)
    );
    Ok(())
}

/// The elements of all parameters, and of the largest one.
#[derive(Default)]
struct Elements {
    all: u64,
    largest: u64,
}

impl ModuleVisitor for Elements {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let elements = param.lazy_shape().num_elements() as u64;
        self.all += elements;
        self.largest = self.largest.max(elements);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_burn_writes_and_does_not_read_is_refused() {
        let gib = |n: u64| n << 30;
        assert!(fits("weights", gib(100), gib(10)).is_ok());
        let message = |all, largest| fits("weights", all, largest).unwrap_err().to_string();
        let file = message(gib(100) + 1, gib(1));
        assert!(file.contains("100.00 GiB of weights in one file"), "{file}");
        let tensor = message(gib(90), gib(11));
        assert!(
            tensor.contains("11.00 GiB of weights in one tensor"),
            "{tensor}"
        );
    }
}
