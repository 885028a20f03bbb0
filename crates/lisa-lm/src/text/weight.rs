//! The weight of a message in the loss.

use minijinja::value::{Value, ValueKind};

use crate::text::chat::Message;

/// The fields that give a weight, as a number or a boolean: of OpenAI, of Axolotl, and of ms-swift.
const FIELDS: [&str; 5] = ["weight", "loss_weight", "train", "loss_scale", SWITCH];
/// The field that is only a switch. Another number may be a loss that was measured.
const SWITCH: &str = "loss";
/// The field with the weights of parts of a text, as ranges of characters.
const DETAIL: &str = "train_detail";

/// The weight of a message in the loss: the product of its fields `weight`, `loss_weight`, `train`,
/// `loss_scale` and `loss`, where false is 0 and true is 1. `None` if it has none of them. The error
/// is the second part of a sentence about the message.
pub(super) fn weight_of(message: &Message) -> Result<Option<f32>, String> {
    if message.get(DETAIL).is_some_and(Value::is_true) {
        return Err(format!(
            "has a `{DETAIL}` with weights of parts of its text, but a weight is that of a whole \
             message"
        ));
    }
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
        let is_weight = |weight: &f64| match field {
            SWITCH => [0.0, 1.0].contains(weight),
            _ => (0.0..=f64::from(f32::MAX)).contains(weight),
        };
        let Some(weight) = weight.filter(is_weight) else {
            let what = match field {
                SWITCH => "it is true or false",
                _ => "a weight is true, false or a number of at least 0",
            };
            return Err(format!("has a `{field}` of {value:?}, but {what}"));
        };
        product = Some(product.unwrap_or(1.0) * weight);
    }
    Ok(product.map(|weight| weight as f32))
}

/// Whether a field of a message has a name like that of a weight, but is none, so that it changes
/// nothing.
pub(super) fn is_like_weight(field: &str) -> bool {
    let starts = ["loss", "train", "mask"];
    starts.iter().any(|start| field.starts_with(start))
        && !FIELDS.contains(&field)
        && field != DETAIL
}
