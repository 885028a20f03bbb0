//! The loss of a model on held-out examples, and a batch as the model takes it.

use anyhow::Result;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use lisa_lm::{Batch, BatchOptions, Batches, CausalLm, Encoded, Input};

/// The batch as the model takes it, with its targets.
pub(crate) fn input_of(batch: &Batch, device: &Device) -> (Input, Tensor<2, Int>) {
    let tensors = batch.to_tensors(device);
    let targets = tensors.targets.clone();
    (Input::from(tensors), targets)
}

/// Mean loss over all targets of the examples.
pub(crate) fn held_out_loss(
    model: &CausalLm,
    examples: &[Encoded],
    batch_size: usize,
    pad_id: u32,
    device: &Device,
) -> Result<f64> {
    let model = model.valid();
    let options = BatchOptions {
        batch_size,
        pack_to: None,
        shuffle: false,
        seed: 0,
        pad_id,
    };
    let mut batches = Batches::new(examples.to_vec(), options)?;
    let (mut sum, mut count) = (0.0, 0);
    for _ in 0..batches.per_epoch() {
        let batch = batches.next_batch();
        let n = batch.trained();
        let (input, targets) = input_of(&batch, device);
        let loss = model.next_token_loss(&input, targets).into_scalar::<f32>();
        sum += f64::from(loss) * n as f64;
        count += n;
    }
    Ok(sum / count.max(1) as f64)
}
