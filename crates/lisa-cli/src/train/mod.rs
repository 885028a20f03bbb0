//! A training run, from the data to the output files.
//!
//! | file | what it does |
//! |---|---|
//! | `run` | the run from start to end |
//! | `start` | the output folder and the checkpoint that a run begins with |
//! | `prepare` | opens the model and the data, and makes the optimizer |
//! | `settle` | reads the data and settles what follows from it |
//! | `training`, `steps` | the state of the training loop, and the loop |
//! | `finish`, `adapter` | writes the model, the adapter of LoRA, the plots and the summary |
//! | `data`, `step`, `method` | the work of the loop |
//! | `held_out`, `evaluate`, `evaluation`, `prompts`, `score` | how a model is evaluated |
//! | `examples`, `part`, `places`, `prompt_ends`, `visited` | how examples are read and encoded |
//! | `text` | how examples become text: prompts as chats, the chat template, the end of a turn |
//! | `vocabulary` | checks tokens against the model's vocabulary |
//! | `checkpoints`, `metrics`, `line`, `table`, `events`, `plot`, `card` | what is written |
//! | `exact`, `finite` | the weights in full precision, and which of them are not finite |
//! | `record_limits` | checks of what checkpoints will have |
//! | `summary`, `shown_row` | what is printed of the data |
//! | `announce`, `hardware`, `planned`, `fitting`, `limits`, `out_of_memory`, `watch`, `clock` | what is printed |
//! | `fingerprint`, `moved`, `resume` | what a resumed run must have in common with its checkpoint |

pub(crate) mod adapter;
mod announce;
mod card;
pub mod checkpoints;
pub mod clock;
pub(crate) mod data;
pub mod evaluate;
pub mod evaluation;
mod events;
pub(crate) mod exact;
mod examples;
pub mod fingerprint;
mod finish;
mod finite;
pub(crate) mod fitting;
pub(crate) mod hardware;
mod held_out;
pub(crate) mod like_lora;
pub(crate) mod limits;
mod line;
pub mod method;
pub mod metrics;
pub(crate) mod moved;
pub(crate) mod out_of_memory;
mod part;
mod places;
pub mod planned;
pub mod plot;
mod prepare;
mod prompt_ends;
mod record_limits;
mod resume;
pub mod prompts;
pub mod run;
pub mod score;
pub(crate) mod settle;
pub mod step;
pub(crate) mod shown_row;
mod start;
mod steps;
mod summary;
mod table;
pub mod text;
mod visited;
mod vocabulary;
mod training;
pub mod watch;
