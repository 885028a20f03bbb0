//! [`LisaMetric`]: one value of a run as a metric of burn-train.

use std::sync::Arc;

use burn::tensor::{Device, TensorReadError};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

use super::board::Board;
use crate::memory::DeviceUsage;

/// One value of a run as a metric of burn-train, made by [`LisaMetrics`](super::LisaMetrics).
///
/// Register it like any other metric, with `metric_train_numeric` or `metrics`. The value of an
/// epoch is the mean of its steps.
#[derive(Clone, Debug)]
pub struct LisaMetric {
    name: Arc<String>,
    unit: &'static str,
    source: Source,
    board: Board,
    value: Option<f64>,
    sum: f64,
    count: usize,
}

/// Where the value comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    ActiveLayers,
    Trainable,
    OptimizerState,
    DeviceMemory(Option<Device>),
    GradientNorm(usize),
}

impl LisaMetric {
    pub(super) fn new(name: String, unit: &'static str, source: Source, board: Board) -> Self {
        Self {
            name: Arc::new(name),
            unit,
            source,
            board,
            value: None,
            sum: 0.0,
            count: 0,
        }
    }

    /// The value and its text; `None` if it is not available.
    fn read(&self) -> Result<Option<(f64, String)>, TensorReadError> {
        let value = match &self.source {
            Source::ActiveLayers => {
                let active = self.board.active();
                return Ok(Some((active.len() as f64, format!("{active:?}"))));
            }
            Source::Trainable => Some(self.board.trainable() as f64),
            Source::OptimizerState => Some(self.board.optimizer_state() as f64),
            Source::DeviceMemory(device) => {
                let usage = device.as_ref().and_then(DeviceUsage::of);
                usage.map(|usage| usage.in_use as f64)
            }
            Source::GradientNorm(layer) => match self.board.squares(*layer) {
                Some(squares) => Some(squares.try_into_scalar::<f64>()?.sqrt()),
                None => None,
            },
        };
        Ok(value.map(|value| (value, value.to_string())))
    }

    fn with_unit(&self, text: &str) -> String {
        format!("{text} {}", self.unit).trim_end().to_owned()
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

impl Metric for LisaMetric {
    type Input = ();

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: (!self.unit.is_empty()).then(|| self.unit.to_string()),
            higher_is_better: false,
        }
        .into()
    }

    fn update(
        &mut self,
        (): &(),
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let Some((value, text)) = self.read()? else {
            self.value = None;
            return Ok(SerializedEntry::not_available(None));
        };
        self.value = Some(value);
        self.sum += value;
        self.count += 1;
        let text = self.with_unit(&text);
        Ok(SerializedEntry::new(text, value.to_string()))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(match self.mean() {
            Some(mean) => SerializedEntry::new(self.with_unit(&mean.to_string()), mean.to_string()),
            None => SerializedEntry::not_available(None),
        })
    }

    fn clear(&mut self) {
        (self.sum, self.count, self.value) = (0.0, 0, None);
    }
}

impl Numeric for LisaMetric {
    fn value(&self) -> Option<NumericEntry> {
        self.value.map(NumericEntry::Value)
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.mean().map(NumericEntry::Value)
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Value(self.mean().unwrap_or(f64::NAN))
    }
}
