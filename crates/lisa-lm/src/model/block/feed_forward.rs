//! [`FeedForward`]: the feed-forward network of a layer.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::projection::Projection;
use crate::model::spec::{FeedForwardSpec, InitSpec};

/// `down(activation(gate(x)) * up(x))` with a gate, `down(activation(up(x)))` without.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// The gate: `[hidden, width]`.
    pub gate_proj: Option<Projection>,
    /// `[hidden, width]`.
    pub up_proj: Projection,
    /// The output: `[width, hidden]`.
    pub down_proj: Projection,
    #[module(skip)]
    spec: FeedForwardSpec,
}

impl FeedForward {
    pub(crate) fn new(
        spec: FeedForwardSpec,
        hidden: usize,
        init: InitSpec,
        device: &Device,
    ) -> Self {
        let new = |sizes, deviation| Projection::new(sizes, spec.bias, deviation, device);
        let (inward, outward) = ([hidden, spec.width], [spec.width, hidden]);
        Self {
            gate_proj: spec.gated.then(|| new(inward, init.deviation)),
            up_proj: new(inward, init.deviation),
            down_proj: new(outward, init.residual),
            spec,
        }
    }

    /// The input of the last projection: `[batch, seq, hidden]` to `[batch, seq, width]`.
    pub(crate) fn inner(&self, x: Tensor<3>) -> Tensor<3> {
        let activation = self.spec.activation;
        match &self.gate_proj {
            Some(gate) => {
                let gate = gate.forward(x.clone());
                activation.gated(gate, self.up_proj.forward(x))
            }
            None => activation.apply(self.up_proj.forward(x)),
        }
    }

    pub(crate) fn projections(&self) -> impl Iterator<Item = (&'static str, &Projection)> {
        [
            ("mlp.gate_proj", self.gate_proj.as_ref()),
            ("mlp.up_proj", Some(&self.up_proj)),
            ("mlp.down_proj", Some(&self.down_proj)),
        ]
        .into_iter()
        .filter_map(|(name, projection)| Some((name, projection?)))
    }

    pub(crate) fn projections_mut(
        &mut self,
    ) -> impl Iterator<Item = (&'static str, &mut Projection)> {
        [
            ("mlp.gate_proj", self.gate_proj.as_mut()),
            ("mlp.up_proj", Some(&mut self.up_proj)),
            ("mlp.down_proj", Some(&mut self.down_proj)),
        ]
        .into_iter()
        .filter_map(|(name, projection)| Some((name, projection?)))
    }
}
