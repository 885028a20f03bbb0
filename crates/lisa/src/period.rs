//! [`PeriodSums`]: sums of gradient statistics over a period, on the device.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};

use crate::gradients::LayerSquares;
use crate::policy::{Scores, Statistic};

/// For each layer: the sum of a statistic of its gradient over the steps of this period, and the
/// number of these steps. The sums stay on the device until they are read.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeriodSums(BTreeMap<usize, (Tensor<1>, u32)>);

impl PeriodSums {
    /// Adds one step. Does not wait for the device. `scores` has the sizes of the layers.
    pub(crate) fn add(&mut self, squares: LayerSquares, statistic: Statistic, scores: &Scores) {
        for (layer, square) in squares.into_sums() {
            let n = scores.get(layer).parameters.max(1);
            let mean = square.div_scalar(n as f64);
            let value = match statistic {
                Statistic::RootMeanSquare => mean.sqrt(),
                Statistic::MeanSquare => mean,
            };
            let next = match self.0.remove(&layer) {
                Some((sum, steps)) => {
                    let value = value.to_device(&sum.device());
                    (sum + value, steps + 1)
                }
                None => (value, 1),
            };
            self.0.insert(layer, next);
        }
    }

    /// For each layer: the mean over the steps of this period. Removes the sums. Waits for the
    /// device once, if anything was measured.
    pub(crate) fn take_means(&mut self) -> BTreeMap<usize, f32> {
        let sums = self.read().into_iter();
        let means = sums.map(|(layer, (sum, steps))| (layer, sum / steps as f32));
        let means = means.collect();
        self.0.clear();
        means
    }

    /// For each layer: the sum and its number of steps. Makes one transfer for all layers.
    pub(crate) fn read(&self) -> BTreeMap<usize, (f32, u32)> {
        let Some((first, _)) = self.0.values().next() else {
            return BTreeMap::new();
        };
        let device = first.device();
        let sums = self.0.values();
        let sums = sums
            .map(|(sum, _)| sum.clone().to_device(&device))
            .collect();
        let read = Tensor::cat(sums, 0).into_data();
        let read = read.iter::<f32>().zip(&self.0);
        read.map(|(sum, (&layer, (_, steps)))| (layer, (sum, *steps)))
            .collect()
    }

    /// Puts sums that were [read](Self::read) back on `device`.
    pub(crate) fn of(sums: impl IntoIterator<Item = (usize, (f32, u32))>, device: &Device) -> Self {
        let sum = |(layer, (sum, steps)): (usize, (f32, u32))| {
            (
                layer,
                (Tensor::from_data(TensorData::from([sum]), device), steps),
            )
        };
        Self(sums.into_iter().map(sum).collect())
    }

    /// Whether nothing was measured in this period.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_over_the_steps_in_which_a_layer_trained() {
        let device = Device::flex();
        let scores = Scores::new([4, 2]);
        let squares = |layers: &[(usize, f32)]| -> LayerSquares {
            let mut squares = LayerSquares::default();
            for &(layer, value) in layers {
                squares.add(layer, Tensor::from_data(TensorData::from([value]), &device));
            }
            squares
        };
        let mut sums = PeriodSums::default();
        sums.add(squares(&[(0, 16.0)]), Statistic::RootMeanSquare, &scores);
        sums.add(
            squares(&[(0, 64.0), (1, 2.0)]),
            Statistic::RootMeanSquare,
            &scores,
        );
        let saved = sums.read();
        assert_eq!(saved, BTreeMap::from([(0, (6.0, 2)), (1, (1.0, 1))]));
        assert_eq!(PeriodSums::of(saved.clone(), &device).read(), saved);
        assert_eq!(sums.take_means(), BTreeMap::from([(0, 3.0), (1, 1.0)]));
        assert!(sums.is_empty() && sums.take_means().is_empty());
        sums.add(squares(&[(1, 8.0)]), Statistic::MeanSquare, &scores);
        assert_eq!(sums.take_means(), BTreeMap::from([(1, 4.0)]));
    }
}
