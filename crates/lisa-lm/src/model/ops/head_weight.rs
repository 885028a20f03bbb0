//! [`HeadWeight`]: the weight of a head, stored by itself or tied to the embedding.

use burn::tensor::Tensor;

/// The weight of a head.
#[derive(Clone)]
pub(crate) enum HeadWeight {
    /// `[hidden, vocab]`.
    Own(Tensor<2>),
    /// The weight of the embedding, `[vocab, hidden]`.
    Tied(Tensor<2>),
}

impl HeadWeight {
    /// As it is stored.
    pub(crate) fn stored(&self) -> &Tensor<2> {
        let (Self::Own(weight) | Self::Tied(weight)) = self;
        weight
    }

    pub(crate) fn is_tied(&self) -> bool {
        matches!(self, Self::Tied(_))
    }

    pub(crate) fn vocab(&self) -> usize {
        let [first, second] = self.stored().dims();
        if self.is_tied() { first } else { second }
    }

    /// The same weight without autodiff.
    pub(crate) fn inner(&self) -> Self {
        match self {
            Self::Own(weight) => Self::Own(weight.clone().inner()),
            Self::Tied(weight) => Self::Tied(weight.clone().inner()),
        }
    }
}

/// The loss, of shape `[1]`, and the gradients of the hidden state and of the weight that were
/// asked for. The gradient of a weight has the shape of the stored weight.
pub(crate) type Found = (Tensor<1>, [Option<Tensor<2>>; 2]);
