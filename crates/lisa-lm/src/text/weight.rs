//! The weight of a message in the loss.

use minijinja::value::ValueKind;

use crate::text::chat::Message;

/// The fields that give a weight, as a number or a boolean.
const FIELDS: [&str; 3] = ["weight", "loss_weight", "train"];

/// The weight of a message in the loss: the product of its fields `weight`, `loss_weight` and
/// `train`, where false is 0 and true is 1. `None` if it has none of them. The error is the second
/// part of a sentence about the message.
pub(super) fn weight_of(message: &Message) -> Result<Option<f32>, String> {
    let mut product = None;
    for field in FIELDS {
        let Some(value) = message.get(field).filter(|value| !value.is_none()) else {
            continue;
        };
        let weight = match value.kind() {
            ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
            ValueKind::Number => f64::try_from(value.clone()).ok(),
            _ => None,
        };
        let Some(weight) = weight.filter(|weight| (0.0..=f64::from(f32::MAX)).contains(weight))
        else {
            return Err(format!(
                "has a `{field}` of {value:?}, but a weight is true, false or a number of at least 0"
            ));
        };
        product = Some(product.unwrap_or(1.0) * weight);
    }
    Ok(product.map(|weight| weight as f32))
}
