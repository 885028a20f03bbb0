//! What burn-train needs of a language model: a training step, a validation step, and a batcher.

use burn::data::dataloader::batcher::Batcher;
use burn::module::Module;
use burn::tensor::{Device, ExecutionError, Tensor};
use burn::train::metric::{Adaptor, LossInput};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};
use lisa_lm::CausalLm;
use lisa_lm::model::BatchTensors;
use lisa_lm::text::{Batch, Encoded, Row};

/// A language model that burn-train can train.
#[derive(Module, Debug)]
pub(crate) struct TextModel {
    pub(crate) model: CausalLm,
    /// How many devices' gradients are summed: each divides its loss by it.
    pub(crate) summed: usize,
}

impl TrainStep for TextModel {
    type Input = BatchTensors;
    type Output = Loss;

    fn step(&self, batch: BatchTensors) -> TrainOutput<Loss> {
        let loss = self.model.batch_loss(batch);
        let shown = loss.clone().detach();
        let loss = loss / self.summed as f64;
        TrainOutput::new(self, loss.backward(), Loss(shown))
    }
}

impl InferenceStep for TextModel {
    type Input = BatchTensors;
    type Output = Loss;

    fn step(&self, batch: BatchTensors) -> Loss {
        Loss(self.model.batch_loss(batch))
    }
}

/// The mean loss of a batch's answer tokens, in nats.
#[derive(Debug)]
pub(crate) struct Loss(Tensor<1>);

impl ItemLazy for Loss {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl Adaptor<LossInput> for Loss {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.0.clone())
    }
}

/// Pads encoded examples to one length.
#[derive(Clone, Debug)]
pub(crate) struct TextBatcher {
    pub(crate) pad_id: u32,
}

impl Batcher<Encoded, BatchTensors> for TextBatcher {
    fn batch(&self, items: Vec<Encoded>, device: &Device) -> BatchTensors {
        let rows = items.iter().map(|example| Row::new([example])).collect();
        Batch::collate(rows, self.pad_id).to_tensors(device)
    }
}
