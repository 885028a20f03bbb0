//! From the files of `--data` to rows of tokens.
//!
//! | file | what it does |
//! |---|---|
//! | `note`, `bad_line` | what is printed of how the data is read; an error at a line, with what to do |
//! | `places`, `visited` | where examples are in their files; checksums and counts of rows |
//! | `shown_row` | a row as text |
//! | `files` | which files have the training and the held-out examples |
//! | `text` | how examples become text: prompts as chats, the chat template, the end of a turn |
//! | `examples` | reads examples, and holds some of them out |
//! | `measures`, `summary` | what is measured of rows before they are cut; what is counted of rows |
//! | `prompt_ends` | the prompts whose tokens are checked |
//! | `part` | encodes the training or the held-out examples |
//! | `vocabulary` | checks tokens against the model's vocabulary |
//! | `rows`, `read` | the rows of a run; how they are read |

pub(crate) mod bad_line;
mod files;
mod measures;
mod note;
mod places;
pub(crate) mod shown_row;
pub(crate) mod visited;

pub(crate) mod text;

pub(crate) mod examples;
mod prompt_ends;
mod summary;

mod part;
mod vocabulary;

pub(crate) mod rows;

pub(crate) mod read;
