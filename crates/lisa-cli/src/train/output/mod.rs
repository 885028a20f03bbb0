//! What a run writes at its end.
//!
//! `models` writes the models, `card` their cards, and `finish` evaluates them, and writes the plots and the
//! summary.

mod card;
mod models;

pub(crate) mod finish;
