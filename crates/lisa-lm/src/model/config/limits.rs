//! Range checks for the values of a model's configuration, and the error that they return.

use crate::error::{Error, ErrorKind};

/// The largest accepted value of each size, at least ten times that of any known model. Below these
/// limits, products of sizes fit into 64 bits, and a configuration cannot cause a large allocation.
const LARGEST: [(&str, usize); 14] = [
    ("num_hidden_layers", 1 << 12),
    ("n_layer", 1 << 12),
    ("num_attention_heads", 1 << 12),
    ("num_key_value_heads", 1 << 12),
    ("n_head", 1 << 12),
    ("head_dim", 1 << 14),
    ("hidden_size", 1 << 18),
    ("n_embd", 1 << 18),
    ("intermediate_size", 1 << 20),
    ("n_inner", 1 << 20),
    ("vocab_size", 1 << 24),
    ("n_positions", 1 << 24),
    ("max_position_embeddings", 1 << 40),
    ("sliding_window", 1 << 40),
];

/// Returns an error if a size is 0 or above its limit.
pub(super) fn in_range(sizes: &[(&str, usize)]) -> Result<(), Error> {
    for &(name, size) in sizes {
        if size == 0 {
            return Err(refuse(format!("{name} is 0")).with_help("give at least 1"));
        }
        at_most(name, size)?;
    }
    Ok(())
}

/// Returns an error if the size is above its limit in [`LARGEST`].
pub(super) fn at_most(name: &str, size: usize) -> Result<(), Error> {
    match LARGEST.iter().find(|(other, _)| *other == name) {
        Some(&(_, largest)) if size > largest => Err(refuse(format!(
            "{name} is {size}, but at most {largest} is supported"
        ))),
        _ => Ok(()),
    }
}

pub(super) fn require_epsilon(name: &str, value: f64) -> Result<(), Error> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(refuse(format!("{name} is {value}")).with_help("give a positive number"))
}

pub(super) fn require_deviation(value: f64) -> Result<(), Error> {
    if (0.0..=1e3).contains(&value) {
        return Ok(());
    }
    Err(refuse(format!("initializer_range is {value}")).with_help("give a number from 0 to 1000"))
}

/// An error about an option of the model's configuration that no model here computes.
pub(super) fn unsupported(message: String) -> Error {
    refuse(message).with_help("this program does not compute it: use a model without it")
}

/// An error about the model's configuration.
pub(super) fn refuse(message: String) -> Error {
    Error::new(
        ErrorKind::Model,
        format!("the model's configuration: {message}"),
    )
    .with_help("correct it, or fetch the model's config.json again")
}
