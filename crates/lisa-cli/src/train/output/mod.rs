//! What a run writes at its end: `card` the model card, and `finish` the models, the plots and the summary.

mod card;

pub(crate) mod finish;
