//! What a run saves to be resumed, and what must not have changed then.
//!
//! | file | what it does |
//! |---|---|
//! | `adapter` | the adapter of LoRA, in a checkpoint and next to the finished model |
//! | `fingerprint` | checksums of the model and the data |
//! | `text` | what a checkpoint stores of the tokenizer and its chat template |
//! | `record_limits` | checks of what checkpoints will have |
//! | `moved` | a run folder that is in another place than before |
//! | `checkpoints` | writes and reads checkpoints |

pub(crate) mod adapter;
pub(crate) mod fingerprint;
pub(crate) mod moved;
pub(crate) mod record_limits;
pub(crate) mod text;

pub(crate) mod checkpoints;
