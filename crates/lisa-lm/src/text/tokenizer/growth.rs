//! How much longer a tokenizer may make a text: its parts multiply, so that thirty replacements of
//! `a` by `aa`, one behind the other, would fill any memory. Tests: at the foot.

use serde_json::Value;

/// The most that a text may grow; real tokenizers stay below 100.
const MOST: f64 = 1024.0;

/// Refuses a tokenizer that makes texts much longer, with how much.
pub(super) fn check(tokenizer: &tokenizers::Tokenizer) -> Result<(), String> {
    let value = |part: serde_json::Result<Value>| part.unwrap_or_default();
    let parts = [
        (
            "normalizer",
            value(serde_json::to_value(tokenizer.get_normalizer())),
        ),
        (
            "pre_tokenizer",
            value(serde_json::to_value(tokenizer.get_pre_tokenizer())),
        ),
        (
            "post_processor",
            value(serde_json::to_value(tokenizer.get_post_processor())),
        ),
        (
            "decoder",
            value(serde_json::to_value(tokenizer.get_decoder())),
        ),
    ];
    for (name, part) in parts {
        let found = growth(&part);
        if found > MOST {
            return Err(format!(
                "its {name} makes a text up to {found:.0} times as long; at most {MOST} is supported"
            ));
        }
    }
    Ok(())
}

/// How many times as long a part makes a text, at most. Unicode's normal forms do it once and not again.
fn growth(part: &Value) -> f64 {
    let length = |value: &Value| value.as_str().map_or(0, str::len) as f64;
    match part["type"].as_str() {
        Some("Sequence") => ["normalizers", "pretokenizers", "processors", "decoders"]
            .iter()
            .filter_map(|key| part[*key].as_array())
            .flatten()
            .map(growth)
            .product(),
        Some("Replace") => {
            let content = length(&part["content"]);
            match length(&part["pattern"]["String"]) {
                // A regular expression may match nothing, everywhere.
                0.0 => content + 1.0,
                pattern => (content / pattern).max(1.0),
            }
        }
        Some("Prepend") => length(&part["prepend"]) + 1.0,
        // A byte becomes a letter of two.
        Some("ByteLevel") => 2.0,
        Some("TemplateProcessing") => {
            let tokens = part["special_tokens"].as_object();
            let tokens = tokens.into_iter().flat_map(|map| map.values());
            let longest = tokens.map(|token| token["ids"].as_array().map_or(0, Vec::len));
            let longest = longest.max().unwrap_or(0).max(1) as f64;
            part["single"].as_array().map_or(0, Vec::len).max(1) as f64 * longest
        }
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::TOKENIZER;
    use crate::text::tokenizer::Tokenizer;
    use serde_json::json;

    fn with(part: &str, value: &Value) -> Result<Tokenizer, String> {
        let dir = tempfile::tempdir().unwrap();
        let mut json: Value = serde_json::from_str(TOKENIZER).unwrap();
        json[part] = value.clone();
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        Tokenizer::from_dir(dir.path()).map_err(|e| e.to_string())
    }

    #[test]
    fn replacements_one_behind_the_other_are_multiplied() {
        let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        let times = |n: usize| json!({"type": "Sequence", "normalizers": vec![&replace; n]});
        assert!(with("normalizer", &times(10)).is_ok());
        let message = with("normalizer", &times(40)).unwrap_err();
        assert!(message.contains("1099511627776 times as long"), "{message}");
        let any = json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "a".repeat(2000)});
        assert!(with("normalizer", &any).unwrap_err().contains("2001 times"));
        let decoders = json!({"type": "Sequence", "decoders": vec![&replace; 40]});
        assert!(
            with("decoder", &decoders)
                .unwrap_err()
                .contains("its decoder")
        );
    }

    #[test]
    fn what_llama_2_has_is_fine() {
        let normalizer = json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        ]});
        assert!(with("normalizer", &normalizer).is_ok());
        assert_eq!(growth(&normalizer), 12.0);
    }

    #[test]
    fn a_text_may_not_be_repeated_by_its_post_processor() {
        let single = vec![json!({"Sequence": {"id": "A", "type_id": 0}}); 3000];
        let template = json!({
            "type": "TemplateProcessing",
            "single": single,
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {},
        });
        let message = with("post_processor", &template).unwrap_err();
        assert!(message.contains("3000 times"), "{message}");
    }
}
