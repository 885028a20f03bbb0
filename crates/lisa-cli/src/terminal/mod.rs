//! Terminal output: errors, progress, and text from files or from a model.

pub mod interrupt;
pub mod log;
pub mod output;
pub(crate) mod progress;
pub mod report;
pub(crate) mod text;
