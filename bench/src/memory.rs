//! Memory in use: from the device where it reports it, else from the process's allocator.

use burn::tensor::Device;
use peak_alloc::PeakAlloc;

/// Counts the bytes in use, for backends that do not report them.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Bytes in use now.
pub(crate) fn live(device: &Device) -> u64 {
    match device.memory_pool_usage() {
        Some(usage) => usage.bytes_in_use,
        None => HEAP.current_usage() as u64,
    }
}

/// The most bytes in use since [`reset`] or [`reset_heap`]; for a device, the bytes that it reserved.
pub(crate) fn peak(device: &Device) -> u64 {
    match device.memory_pool_usage() {
        Some(usage) => usage.bytes_reserved,
        None => HEAP.peak_usage() as u64,
    }
}

/// Starts a new measurement of every peak.
pub(crate) fn reset(device: &Device) {
    if device.memory_pool_usage().is_some() {
        device.memory_cleanup();
    }
    reset_heap();
    // On Linux this resets the high-water mark; other systems have none to read.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Starts a new measurement of the allocator's peak.
pub(crate) fn reset_heap() {
    HEAP.reset_peak_usage();
}

/// The high-water mark of the resident set, where the system reports it.
pub(crate) fn resident_peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Bytes as whole MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / 1_048_576.0)
}

#[cfg(test)]
#[cfg(feature = "flex")]
mod tests {
    use burn::module::{Module, Param, ParamId};
    use burn::nn::Linear;
    use burn::optim::{GradientsParams, SgdConfig};
    use burn::tensor::{DType, Int, Tensor};
    use lisa::LisaConfig;
    use lisa::recompute::Recompute;
    use lisa_lm::model::config::LlamaConfig;
    use lisa_lm::model::{BatchTensors, Input};
    use lisa_lm::{ModelConfig, linear_cross_entropy};

    use super::*;

    /// The most bytes that are in use during a call, without those in use before it. The allocator
    /// counts the whole process, so a test that asks for this runs [`alone`].
    fn during(run: impl FnOnce()) -> usize {
        let before = HEAP.current_usage();
        reset_heap();
        run();
        HEAP.peak_usage().saturating_sub(before)
    }

    /// Runs a test of this file again in a process of its own. Returns whether this is that process.
    fn alone(test: &str) -> bool {
        const ALONE: &str = "BENCH_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            return true;
        }
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([&format!("memory::tests::{test}"), "--exact"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        let passed = output.status.success() && printed.contains("1 passed");
        assert!(passed, "{printed}");
        false
    }

    fn tokens<const D: usize>(shape: [usize; D], vocab: usize, device: &Device) -> Tensor<D, Int> {
        let count: usize = shape.iter().product();
        let tokens = Tensor::<1, Int>::arange(0..count as i64, device);
        tokens
            .mul_scalar(7)
            .remainder_scalar(vocab as i64)
            .reshape(shape)
    }

    #[test]
    fn the_logits_of_all_rows_never_exist() {
        if !alone("the_logits_of_all_rows_never_exist") {
            return;
        }
        let device = Device::flex().autodiff();
        let (rows, width, vocab) = (1024, 8, 65536);
        let of = |shape| Tensor::<2>::ones(shape, &device).require_grad();
        let (hidden, weight) = (of([rows, width]), of([width, vocab]));
        let targets = tokens([rows], vocab, &device);
        let peak = during(|| {
            let loss = linear_cross_entropy(hidden.clone(), weight.clone(), targets);
            let grads = loss.backward();
            assert!(hidden.grad(&grads).is_some() && weight.grad(&grads).is_some());
        });
        let logits = rows * vocab * 4;
        assert!(peak < logits / 2, "{peak} of {logits}");
    }

    const WIDTH: usize = 2048;

    #[test]
    fn clipping_and_the_search_for_bad_gradients_copy_no_gradient() {
        if !alone("clipping_and_the_search_for_bad_gradients_copy_no_gradient") {
            return;
        }
        let device = Device::flex().autodiff();
        for dtype in [DType::F32, DType::BF16] {
            let layer = || Linear {
                weight: Param::from_tensor(Tensor::ones([WIDTH, WIDTH], (&device, dtype))),
                bias: None,
            };
            let config = LisaConfig::new().with_max_grad_norm(Some(1e-3));
            // Without momentum there is no state, so the step itself needs no more than a slice.
            let optimizer = SgdConfig::new();
            let (mut lisa, model) = config.init(optimizer, vec![layer(), layer()]).unwrap();
            let ids: Vec<ParamId> = model.iter().map(|layer| layer.weight.id).collect();
            let gradients = || {
                let mut grads = GradientsParams::new();
                for id in &ids {
                    let device = device.clone().inner();
                    let ones = Tensor::<2>::ones([WIDTH, WIDTH], (&device, dtype));
                    grads.register(*id, ones);
                }
                grads
            };
            let grads = gradients();
            let one = WIDTH * WIDTH * dtype.size();
            let peak = during(|| lisa.check_finite(&model, &grads).unwrap());
            assert!(peak < one / 8, "{dtype:?}: {peak} of {one}");
            // In bf16, the first step makes the f32 master weights.
            let mut model = Some(lisa.step(1e-3, model, grads));
            let grads = gradients();
            let peak = during(|| model = Some(lisa.step(1e-3, model.take().unwrap(), grads)));
            // In bf16, new weights are made from the master weights.
            let made = if dtype == DType::F32 { 0 } else { one };
            assert!(peak < made + one / 8, "{dtype:?}: {peak} of {one}");
        }
    }

    #[test]
    fn a_tied_embedding_has_one_gradient() {
        if !alone("a_tied_embedding_has_one_gradient") {
            return;
        }
        let device = Device::flex().autodiff();
        let (vocab, width) = (200_000, 256);
        let mut config = LlamaConfig::new(vocab, width, 1, 2);
        config.tie_word_embeddings = true;
        let model = ModelConfig::Llama(config).init(&device).unwrap();
        let batch = BatchTensors {
            tokens: tokens([1, 8], vocab, &device),
            targets: tokens([1, 8], vocab, &device),
            weights: None,
            padding: None,
            segments: None,
            positions: None,
        };
        // Initializes the weights.
        let input = Input::from(batch.clone());
        let _ = model
            .valid()
            .next_token_loss(&input, batch.targets.clone().inner());
        let plain = during(|| {
            let grads = model.batch_loss(batch.clone()).backward();
            assert_eq!(GradientsParams::from_grads(grads, &model).len(), 11);
        });
        let recomputed = during(|| {
            let pass = Recompute::new().forward(&model, &batch);
            assert_eq!(pass.backward(&model).len(), 11);
        });
        let one = vocab * width * 4;
        for peak in [plain, recomputed] {
            assert!(peak > one && peak < one + one / 2, "{peak} of {one}");
        }
    }
}
