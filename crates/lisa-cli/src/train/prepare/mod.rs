//! What comes before the first step.
//!
//! | file | what it does |
//! |---|---|
//! | `start` | the output folder and the checkpoint that a run begins with |
//! | `resume` | what a resumed run must have in common with its checkpoint |
//! | `settle` | reads the data and settles what follows from it |
//! | `frozen` | which paths of `--freeze` freeze nothing |
//! | `job` | opens the model and the data, and checks them |
//! | `announce` | prints what a run will do |

pub(crate) mod settle;
pub(crate) mod start;

mod frozen;
mod resume;

pub(crate) mod job;

pub(crate) mod announce;
