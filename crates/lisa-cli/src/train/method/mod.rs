//! A step of LISA, of full training or of LoRA.
//!
//! `layerwise_model` is a model in full precision, `finite` finds weights that are not finite, `trainer` has the
//! optimizer of the method, and `step` makes the passes of a step before its update.

pub(crate) mod layerwise_model;

pub(crate) mod finite;
pub(crate) mod trainer;

pub(crate) mod step;
