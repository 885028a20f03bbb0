//! Removes what names code or a head that a saved folder does not have.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::model::config::ModelConfig;

/// The key of classes in Python files, which a save does not copy.
const CODE: &str = "auto_map";
/// The key of the model's class in transformers.
const CLASS: &str = "architectures";

/// The text of a `config.json` for a causal language model of transformers: without classes of other
/// code, and with the class of its family if it names another one, such as a classifier. The text is
/// unchanged if it is so already.
pub(super) fn of_model(text: String, config: &ModelConfig) -> String {
    let family = object(config.to_json().as_bytes()).unwrap_or_default();
    let Some(mut map) = object(text.as_bytes()) else {
        return text;
    };
    let mut is_changed = map.remove(CODE).is_some();
    if map.get("model_type") == family.get("model_type")
        && let (Some(found), Some(class)) = (map.get_mut(CLASS), family.get(CLASS))
        && *found != *class
    {
        found.clone_from(class);
        is_changed = true;
    }
    if is_changed { written(map) } else { text }
}

/// The content of a file of the tokenizer: that of `tokenizer_config.json` without classes of other
/// code. Every other content is unchanged.
pub(super) fn of_tokenizer<'a>(name: &str, bytes: &'a [u8]) -> Cow<'a, [u8]> {
    if name != "tokenizer_config.json" {
        return bytes.into();
    }
    match object(bytes) {
        Some(mut map) if map.contains_key(CODE) => {
            map.remove(CODE);
            written(map).into_bytes().into()
        }
        _ => bytes.into(),
    }
}

fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(bytes).ok()
}

fn written(map: Map<String, Value>) -> String {
    format!("{:#}\n", Value::Object(map))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::config::Gpt2Config;

    fn of_gpt2(text: &str) -> String {
        of_model(
            text.to_owned(),
            &ModelConfig::Gpt2(Gpt2Config::new(32, 8, 2, 2)),
        )
    }

    #[test]
    fn a_model_of_its_family_and_without_other_code_keeps_its_text() {
        for text in [
            r#"{"model_type":"gpt2", "architectures":["GPT2LMHeadModel"]}"#,
            r#"{"model_type":"gpt2"}"#,
            // The class of another type, which is read as this family.
            r#"{"model_type":"other", "architectures":["Other"]}"#,
            "[]",
        ] {
            assert_eq!(of_gpt2(text), text);
        }
    }

    #[test]
    fn another_class_is_that_of_the_family_and_other_code_is_left_out() {
        let text = r#"{"model_type": "gpt2", "architectures": ["GPT2DoubleHeadsModel"], "n": 1,
            "auto_map": {"AutoModel": "modeling.Model"}}"#;
        let found: Value = serde_json::from_str(&of_gpt2(text)).unwrap();
        let expected = json!({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n": 1});
        assert_eq!(found, expected);
    }

    #[test]
    fn only_the_configuration_of_the_tokenizer_changes() {
        let text = br#"{"auto_map": {"AutoTokenizer": ["a.B", null]}, "n": 1}"#;
        let found = of_tokenizer("tokenizer_config.json", text);
        assert_eq!(&*found, b"{\n  \"n\": 1\n}\n");
        for (name, same) in [
            ("tokenizer.json", &text[..]),
            ("tokenizer_config.json", b"{\"n\":1}"),
            ("tokenizer_config.json", b"no JSON"),
        ] {
            assert_eq!(&*of_tokenizer(name, same), same);
        }
    }
}
