//! Range checks for the values of a model's configuration, and the error that they return.

use crate::error::{Error, ErrorKind};

// The largest accepted value of each size, at least ten times that of any known model. Below these limits,
// products of sizes fit into 64 bits, and a configuration cannot cause a large allocation.
pub(crate) const LAYERS: usize = 1 << 12;
pub(crate) const HEADS: usize = 1 << 12;
pub(crate) const HEAD_DIM: usize = 1 << 14;
pub(crate) const WIDTH: usize = 1 << 18;
pub(crate) const INNER_WIDTH: usize = 1 << 20;
pub(crate) const VOCABULARY: usize = 1 << 24;
/// Of positions with an embedding.
pub(crate) const POSITIONS: usize = 1 << 24;
/// In tokens.
pub(crate) const LENGTH: usize = 1 << 40;

/// Returns an error if a size is 0 or above its limit: the name, the size and the limit of each.
pub(crate) fn in_range(sizes: &[(&str, usize, usize)]) -> Result<(), Error> {
    for &(name, size, largest) in sizes {
        if size == 0 {
            return Err(refuse(format!("{name} is 0")).with_help("give at least 1"));
        }
        at_most(name, size, largest)?;
    }
    Ok(())
}

/// Returns an error if the size is above its limit.
pub(crate) fn at_most(name: &str, size: usize, largest: usize) -> Result<(), Error> {
    if size <= largest {
        return Ok(());
    }
    Err(refuse(format!(
        "{name} is {size}, but at most {largest} is supported"
    )))
}

pub(crate) fn require_epsilon(name: &str, value: f64) -> Result<(), Error> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(refuse(format!("{name} is {value}")).with_help("give a positive number"))
}

pub(crate) fn require_deviation(value: f64) -> Result<(), Error> {
    if (0.0..=1e3).contains(&value) {
        return Ok(());
    }
    Err(refuse(format!("initializer_range is {value}")).with_help("give a number from 0 to 1000"))
}

/// An error about an option of the model's configuration that no model here computes.
pub(crate) fn unsupported(message: String) -> Error {
    refuse(message).with_help("this program does not compute it: use a model without it")
}

/// An error about the model's configuration.
pub(crate) fn refuse(message: String) -> Error {
    Error::new(
        ErrorKind::Model,
        format!("the model's configuration: {message}"),
    )
    .with_help("correct it, or fetch the model's config.json again")
}
