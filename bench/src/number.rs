//! Losses in JSON, which has no infinity and no NaN: they are written as `null`, and read as NaN.

use serde::{Deserialize, Deserializer};

/// Reads a loss.
pub(crate) fn or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// Reads a list of losses.
pub(crate) fn each_or_nan<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<f64>, D::Error> {
    let losses = Vec::<Option<f64>>::deserialize(deserializer)?.into_iter();
    Ok(losses.map(|loss| loss.unwrap_or(f64::NAN)).collect())
}
