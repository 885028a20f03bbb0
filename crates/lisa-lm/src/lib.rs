
pub mod batch;
pub mod batches;
pub mod chat;
pub mod data;
pub mod encode;
pub mod order;
#[cfg(test)]
mod test_support;
pub mod tokenizer;

pub use batch::{Batch, BatchTensors, Row};
pub use batches::{BatchOptions, Batches, Position, pack};
pub use chat::{ChatTemplate, Message};
pub use data::{BadLine, Content, Example, Examples, OnBadLine, read_examples};
pub use encode::{
    EncodeOptions, Encoded, EncodedSet, IGNORED, LossOn, encode_example, encode_examples,
    encode_prompt,
};
pub use order::{shuffled, split};
pub use tokenizer::{Tokenizer, Tokens};
