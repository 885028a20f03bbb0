//! The training loop.
//!
//! `held_out` evaluates the model between steps, `watch` prints the progress, `training` is the state
//! between two steps, `bad_step` is a step that cannot be taken, and `steps` is the loop.

pub(crate) mod held_out;
pub(crate) mod watch;

pub(crate) mod training;

mod bad_step;

pub(crate) mod steps;
