//! From text to batches: tokenizer, chat template, data files, encoding, batches.
//!
//! This module does not depend on a model. Its result is a [`Batch`], whose `to_tensors` makes the
//! input of a model.
//!
//! ```
//! use lisa_lm::Tokenizer;
//! use lisa_lm::text::*;
//!
//! # let folder = tempfile::tempdir()?;
//! # let data = folder.path().join("train.jsonl");
//! # std::fs::write(&data, r#"{"prompt": "hello", "completion": "world!"}"#)?;
//! let tokenizer = Tokenizer::from_dir("../../tests/fixtures/tokenizer")?;
//! let examples = read_examples(&[data], &ReadOptions::default())?.examples;
//! let options = EncodeOptions { max_length: 512, ..EncodeOptions::default() };
//! let encoded = encode_examples(&examples, &tokenizer, options)?.examples;
//! let options = BatchOptions {
//!     batch_size: 8, pack_to: None, shuffle: true, seed: 0, pad_id: tokenizer.pad_id(),
//!     vocab_size: tokenizer.id_count(),
//! };
//! let batch = Batches::new(encoded, options)?.next_batch();
//! assert!(batch.trained() > 0);
//! # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
//! ```

mod chat;
mod data;
mod encoded;
mod json;
mod order;
mod row;
mod row_bytes;
mod row_store;
mod stored_rows;
mod template;

mod batch;
mod pack;
mod tokenizer;

mod turn;
mod weight;

mod left_out;

mod answers;
mod batches;
mod encode_options;
mod labelled;
mod roles;

mod encode;
mod row_encoder;
mod turn_end;
mod untrained_prompt;
mod unwritten;
mod vocabulary;

pub use crate::place::Place;
pub use answers::Turns;
pub use batch::Batch;
pub use batches::{BatchOptions, Batches, Position};
pub use chat::{Chat, Message};
pub use data::{
    BadLine, BadLines, Columns, Content, DataFiles, Example, ExampleReader, Examples, LINE_BYTES,
    Mapping, OnBadLine, ReadOptions, data_files, data_files_to_evaluate, is_data_file,
    read_examples,
};
pub use encode::{encode_example, encode_examples, encode_prompt};
pub use encode_options::{EmptyAnswers, EncodeOptions, LossOn};
pub use encoded::{Encoded, EncodedSet, IGNORED};
pub use order::{shuffled, split};
pub use roles::role_tokens;
pub use row::Row;
pub use row_encoder::RowEncoder;
pub use row_store::{RowStore, StoredRow};
pub use stored_rows::StoredRows;
pub use template::{ChatTemplate, DEFAULT_TEMPLATE, Rendered};
pub use tokenizer::{Tokenizer, Tokens};
pub use turn_end::{TurnEnd, turn_end};
pub use untrained_prompt::untrained_prompt;
pub use unwritten::unwritten_context;
pub use vocabulary::check_vocabulary;
