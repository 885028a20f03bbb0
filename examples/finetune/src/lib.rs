//! What the fine-tuning example shares between its programs.

pub mod corpus;
