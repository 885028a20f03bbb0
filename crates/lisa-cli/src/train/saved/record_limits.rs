//! [`check_sizes`]: a run whose checkpoints Burn could write but not read is refused before it
//! starts.

use anyhow::Result;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, FloatDType, Tensor};
use burn_pack::{MAX_FILE_SIZE, MAX_TENSOR_COUNT, MAX_TENSOR_SIZE};
use lisa_lm::CausalLm;

use crate::terminal::text::size;
use crate::user_error::require;

/// The most optimizer state that a checkpoint of the run has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    pub(crate) tensors: u64,
    pub(crate) bytes: u64,
}

/// Refuses a run whose weights or whose optimizer state exceed what Burn reads: 100,000 tensors and
/// 100 GiB in a file, 10 GiB in a tensor. The model's parameters are not initialized.
pub(crate) fn check_sizes(model: &CausalLm, dtype: FloatDType, state: State) -> Result<()> {
    let mut sizes = Elements::default();
    model.visit(&mut sizes);
    let bytes = DType::from(dtype).size() as u64;
    let Elements {
        parameters,
        all,
        largest,
    } = sizes;
    fits("weights", parameters, bytes * all, bytes * largest)?;
    // Moments and master weights have at most 4 bytes an element.
    fits("optimizer state", state.tensors, state.bytes, 4 * largest)
}

fn fits(what: &str, tensors: u64, all: u64, largest: u64) -> Result<()> {
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
    // A smaller dtype has as many.
    require!(
        tensors <= MAX_TENSOR_COUNT as u64,
        "choose a smaller model, or fewer trained parameters: --freeze, --active-layers, --method lora",
        "a checkpoint of this run would have {tensors} tensors of {what} in one file, and Burn reads at \
         most {MAX_TENSOR_COUNT}"
    );
    Ok(())
}

/// The number of parameters, their elements, and those of the largest one.
#[derive(Default)]
struct Elements {
    parameters: u64,
    all: u64,
    largest: u64,
}

impl ModuleVisitor for Elements {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let elements = param.lazy_shape().num_elements() as u64;
        self.parameters += 1;
        self.all += elements;
        self.largest = self.largest.max(elements);
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use lisa_lm::ModelConfig;
    use lisa_lm::model::config::LlamaConfig;

    use super::*;
    use crate::settings::{Dtype, Flags, Method};
    use crate::train::memory::disk::{state_bytes, state_tensors};
    use crate::train::memory::hardware::Hardware;
    use crate::train::memory::planned::Planner;

    #[test]
    fn what_burn_writes_and_does_not_read_is_refused() {
        let gib = |n: u64| n << 30;
        assert!(fits("weights", 100_000, gib(100), gib(10)).is_ok());
        let message = |tensors, all, largest| {
            let error = fits("weights", tensors, all, largest).unwrap_err();
            error.to_string()
        };
        let file = message(1, gib(100) + 1, gib(1));
        assert!(file.contains("100.00 GiB of weights in one file"), "{file}");
        let tensor = message(1, gib(90), gib(11));
        assert!(
            tensor.contains("11.00 GiB of weights in one tensor"),
            "{tensor}"
        );
        let tensors = message(100_001, gib(1), gib(1));
        assert!(
            tensors
                .contains("100001 tensors of weights in one file, and Burn reads at most 100000"),
            "{tensors}"
        );
    }

    /// The tensors of the state of full training on a CPU, and whether the run is refused. Nothing is
    /// allocated.
    fn full(config: LlamaConfig, dtype: Dtype) -> (u64, Result<()>) {
        let device = Device::default();
        let model = ModelConfig::Llama(config).init(&device).unwrap();
        let mut settings = Flags::default().resolve(None).unwrap();
        settings.method.method = Method::Full;
        settings.memory.dtype = dtype;
        let planner = Planner::new(&model, Hardware::Flex);
        let state = State {
            tensors: state_tensors(planner, &settings).unwrap(),
            bytes: state_bytes(planner, &settings).unwrap(),
        };
        let checked = check_sizes(&model, dtype.into(), state);
        assert!(!model.model.layers[0].mlp.down_proj.weight.is_initialized());
        (state.tensors, checked)
    }

    #[test]
    fn full_training_of_llama_2_7b_on_a_cpu_has_checkpoints_that_burn_reads() {
        let config = || LlamaConfig {
            intermediate_size: 11_008,
            ..LlamaConfig::new(32_000, 4096, 32, 32)
        };
        // Two moments of 128 slices of each matrix, and of two norms a layer and the last one.
        let moments = 2 * (128 * (32 * 7 + 2) + 32 * 2 + 1);
        let (tensors, checked) = full(config(), Dtype::F32);
        assert_eq!(tensors, moments);
        checked.unwrap();
        let (tensors, checked) = full(config(), Dtype::Bf16);
        assert_eq!(tensors, moments + 32 * 9 + 3);
        checked.unwrap();
    }

    #[test]
    fn a_run_with_more_tensors_of_state_than_burn_reads_is_refused() {
        // Of 128 slices and fewer: 1284 tensors a layer.
        let config = LlamaConfig {
            intermediate_size: 4096,
            ..LlamaConfig::new(32_000, 2048, 90, 16)
        };
        let (tensors, checked) = full(config, Dtype::F32);
        assert!(tensors > 100_000, "{tensors}");
        let error = checked.unwrap_err().to_string();
        assert!(error.contains("tensors of optimizer state"), "{error}");
    }
}
