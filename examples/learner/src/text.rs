//! What burn-train asks of a language model: a step, an output with a loss, a batcher.

use burn::data::dataloader::batcher::Batcher;
use burn::module::Module;
use burn::tensor::{Device, ExecutionError, Tensor};
use burn::train::metric::{Adaptor, LossInput};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};
use lisa_lm::{Batch, BatchTensors, CausalLm, Encoded, Input, Row};

/// A language model that burn-train can train.
#[derive(Module, Debug)]
pub(crate) struct TextModel {
    model: CausalLm,
}

impl TextModel {
    /// Wraps a model.
    pub(crate) fn new(model: CausalLm) -> Self {
        Self { model }
    }

    /// The model.
    pub(crate) fn into_inner(self) -> CausalLm {
        self.model
    }

    fn loss(&self, batch: BatchTensors) -> Tensor<1> {
        let targets = batch.targets.clone();
        self.model.next_token_loss(&Input::from(batch), targets)
    }
}

/// The mean loss of a batch's answers in nats.
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

impl TrainStep for TextModel {
    type Input = BatchTensors;
    type Output = Loss;

    fn step(&self, batch: BatchTensors) -> TrainOutput<Loss> {
        let loss = self.loss(batch);
        let shown = loss.clone().detach();
        TrainOutput::new(self, loss.backward(), Loss(shown))
    }
}

impl InferenceStep for TextModel {
    type Input = BatchTensors;
    type Output = Loss;

    fn step(&self, batch: BatchTensors) -> Loss {
        Loss(self.loss(batch))
    }
}

/// Pads encoded examples to a batch.
#[derive(Clone, Debug)]
pub(crate) struct TextBatcher {
    pad_id: u32,
}

impl TextBatcher {
    /// Pads with this token.
    pub(crate) fn new(pad_id: u32) -> Self {
        Self { pad_id }
    }
}

impl Batcher<Encoded, BatchTensors> for TextBatcher {
    fn batch(&self, items: Vec<Encoded>, device: &Device) -> BatchTensors {
        let rows = items.iter().map(|example| Row::new([example])).collect();
        Batch::collate(rows, self.pad_id).to_tensors(device)
    }
}
