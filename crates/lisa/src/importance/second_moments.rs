//! [`SecondMoments`]: an estimate of the second moment of each element of a gradient.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{FloatDType, Tensor};

use crate::LayerMap;
use crate::gradients::{Gradients, LayerSquares};

/// Keeps the quotient of a gradient of 0 and its second moment of 0 finite.
const LEAST: f32 = f32::MIN_POSITIVE;

/// The second moments of the gradients of the observed batches, from the sums of the rows and columns
/// of the squares, as in Adafactor (arXiv 1804.04235). They are exact for vectors.
#[derive(Clone, Debug, Default)]
pub(super) struct SecondMoments(HashMap<ParamId, Sums>);

/// The sums of the rows and of the columns, over the batches.
#[derive(Clone, Debug)]
struct Sums {
    rows: Tensor<2>,
    columns: Tensor<2>,
    batches: f64,
}

impl SecondMoments {
    /// Adds the gradients of a batch. Returns, for each layer, the sum over its elements of the squared
    /// gradient, divided by the root of the second moment with this batch.
    pub(super) fn add<M: Module>(
        &mut self,
        model: &M,
        grads: &mut GradientsParams,
        map: &LayerMap,
    ) -> LayerSquares {
        let mut add = Add {
            moments: self,
            map,
            grads,
            quotients: LayerSquares::default(),
        };
        model.visit(&mut add);
        add.quotients
    }

    /// The sum of the quotients of a parameter, whose gradient has these squares.
    fn quotient(&mut self, id: ParamId, squares: Tensor<2>) -> Tensor<1> {
        let (rows, columns) = (squares.clone().sum_dim(1), squares.clone().sum_dim(0));
        let sums = match self.0.remove(&id) {
            Some(before) => Sums {
                rows: before.rows + rows,
                columns: before.columns + columns,
                batches: before.batches + 1.0,
            },
            None => Sums {
                rows,
                columns,
                batches: 1.0,
            },
        };
        // Divided by their total before they are multiplied: the product of two sums may underflow.
        let total = sums.rows.clone().sum().add_scalar(LEAST).unsqueeze::<2>();
        let rows = (sums.rows.clone() / total).sqrt();
        let columns = (sums.columns.clone() / sums.batches).sqrt();
        self.0.insert(id, sums);
        (squares / (rows * columns).add_scalar(LEAST)).sum()
    }
}

/// Visits the parameters of the layers.
struct Add<'a> {
    moments: &'a mut SecondMoments,
    map: &'a LayerMap,
    grads: &'a mut GradientsParams,
    quotients: LayerSquares,
}

impl ModuleVisitor for Add<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(layer) = self.map.layer_of_id(param.id) else {
            return;
        };
        let Some(grad) = Gradients::get::<D>(self.grads, param.id) else {
            return;
        };
        let columns = grad.dims()[D - 1];
        let rows = grad.shape().num_elements() / columns.max(1);
        let squares = grad.cast(FloatDType::F32).square().reshape([rows, columns]);
        self.quotients
            .add(layer, self.moments.quotient(param.id, squares));
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
    use burn::tensor::{Device, TensorData};

    use super::*;

    #[derive(Module, Debug)]
    struct Layer {
        matrix: Linear,
        norm: LayerNorm,
    }

    #[derive(Module, Debug)]
    struct Net {
        layers: Vec<Layer>,
    }

    /// The quotients of the layers of a batch in which the first matrix and the last vector have gradients.
    fn added(
        moments: &mut SecondMoments,
        net: &Net,
        matrix: [f32; 6],
        vector: [f32; 3],
    ) -> Vec<(usize, f32)> {
        let device = Device::flex();
        let mut grads = GradientsParams::new();
        let matrix = Tensor::<2>::from_data(TensorData::new(matrix.to_vec(), [2, 3]), &device);
        grads.register(net.layers[0].matrix.weight.id, matrix);
        let vector = Tensor::<1>::from_data(vector, &device);
        grads.register(net.layers[1].norm.gamma.id, vector.cast(FloatDType::BF16));
        let map = LayerMap::find(net).unwrap();
        let sums = moments.add(net, &mut grads, &map).into_sums();
        sums.map(|(layer, sum)| (layer, sum.into_scalar::<f32>()))
            .collect()
    }

    #[test]
    fn the_second_moment_is_that_of_rows_and_columns_over_the_batches() {
        let device = Device::flex();
        let layer = |_| Layer {
            matrix: LinearConfig::new(2, 3).with_bias(false).init(&device),
            norm: LayerNormConfig::new(3).init(&device),
        };
        let net = Net {
            layers: (0..2).map(layer).collect(),
        };
        let mut moments = SecondMoments::default();
        // By NumPy in float64, for the sums r of the rows and c of the columns of the squares s over n batches:
        // v = np.outer(r, c) / r.sum() / n; (s / np.sqrt(v))[v > 0].sum()
        let first = added(
            &mut moments,
            &net,
            [1.0, 2.0, 0.0, -3.0, 0.5, 0.0],
            [0.5, -2.0, 0.0],
        );
        let second = added(
            &mut moments,
            &net,
            [0.0, 1.0, 1.0, 2.0, -1.0, 4.0],
            [0.5, 1.0, 3.0],
        );
        let expected = FIRST.into_iter().chain(SECOND);
        for ((layer, found), (at, value)) in first.into_iter().chain(second).zip(expected) {
            assert_eq!(layer, at);
            assert!(
                (found - value).abs() < 1e-5 * value,
                "{found} instead of {value}"
            );
        }
    }

    const FIRST: [(usize, f32); 2] = [(0, 7.492_422_6), (1, 2.5)];
    const SECOND: [(usize, f32); 2] = [(0, 10.491_503), (1, 5.375_096)];
}
