//! Converts a batch of rows to the tensors of a model. Only this file connects text and models.

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};

use crate::model::{BatchTensors, Input};
use crate::text::{Batch, Row};

impl Batch {
    /// The tensors of the batch on a device. `weights` is `None` if no row has weights. `padding`
    /// is `None` if no row is padded. `segments` and `positions` are `None` if every row is one
    /// example.
    #[must_use]
    pub fn to_tensors(&self, device: &Device) -> BatchTensors {
        let ints = |of: fn(&Row) -> Vec<i64>| {
            let flat: Vec<i64> = self.rows().iter().flat_map(of).collect();
            Tensor::<2, Int>::from_data(TensorData::new(flat, self.shape()), device)
        };
        let [_, width] = self.shape();
        let is_packed = self.rows().iter().any(|row| row.segments.last() > Some(&0));
        let is_padded = self.lengths().iter().any(|length| *length < width);
        BatchTensors {
            input: Input {
                tokens: ints(|row| widen(&row.tokens)),
                padding: is_padded.then(|| padding(self, device)),
                segments: is_packed.then(|| ints(|row| widen(&row.segments))),
                positions: is_packed.then(|| ints(|row| widen(&row.positions))),
            },
            targets: ints(|row| row.targets.clone()),
            weights: self.is_weighted().then(|| weights(self, device)),
        }
    }
}

fn weights(batch: &Batch, device: &Device) -> Tensor<2> {
    let [rows, width] = batch.shape();
    let mut flat = Vec::with_capacity(rows * width);
    for row in batch.rows() {
        match &row.weights {
            Some(weights) => flat.extend(weights),
            None => flat.resize(flat.len() + width, 1.0),
        }
    }
    Tensor::from_data(TensorData::new(flat, [rows, width]), (device, DType::F32))
}

fn padding(batch: &Batch, device: &Device) -> Tensor<2, Bool> {
    let [rows, width] = batch.shape();
    let lengths = batch.lengths().iter();
    let flat: Vec<bool> = lengths
        .flat_map(|length| (0..width).map(move |at| at >= *length))
        .collect();
    Tensor::from_data(TensorData::new(flat, [rows, width]), device)
}

fn widen(values: &[u32]) -> Vec<i64> {
    values.iter().map(|value| i64::from(*value)).collect()
}

#[cfg(test)]
mod tests;
