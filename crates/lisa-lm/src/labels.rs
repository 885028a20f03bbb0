//! [`IGNORED`], which both halves of the crate use.

/// The label, and the target, of a token that is left out of the loss, as in PyTorch and transformers.
pub const IGNORED: i64 = -100;
