//! [`wanted`]: which files of a repository on the Hugging Face hub a model needs.

/// The names, of these files of a repository, of those that are downloaded: configuration,
/// tokenizer, chat templates, licence, model card, and the weights once. Weights in other formats
/// and precisions are left out.
pub(crate) fn wanted<'a>(names: &[&'a str]) -> Vec<&'a str> {
    const SINGLE: &str = "model.safetensors";
    let has = |name: &str| names.contains(&name);
    let is_wanted = |name: &&&str| {
        if let Some(template) = name.strip_prefix("additional_chat_templates/") {
            return template.strip_suffix(".jinja").is_some();
        }
        if let Some(weights) = name.strip_suffix(".safetensors") {
            let is_shard = weights.starts_with("model-") && weights.contains("-of-");
            let (single, index) = (has(SINGLE), has("model.safetensors.index.json"));
            return match (single, index) {
                (true, _) => **name == SINGLE,
                (false, true) => is_shard,
                (false, false) => !name.contains('/'),
            };
        }
        let starts = ["LICENSE", "LICENCE", "NOTICE", "README", "USE_POLICY"];
        let ends = [".json", ".jinja", ".model", ".txt"];
        !name.contains('/')
            && (starts.iter().any(|start| name.starts_with(start))
                || ends.iter().any(|end| name.ends_with(end)))
    };
    names.iter().filter(is_wanted).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_wanted_once_with_the_licence_and_the_templates() {
        let others = [
            "config.json",
            "tokenizer.json",
            "merges.txt",
            "LICENSE",
            "NOTICE.md",
            "README.md",
            "additional_chat_templates/tool_use.jinja",
        ];
        let left = [
            "pytorch_model.bin",
            "model.fp16.safetensors",
            "consolidated.safetensors",
            "onnx/model.onnx",
            "onnx/config.json",
            "original/model.safetensors",
            "model.gguf",
            ".gitattributes",
        ];
        let shards = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ];
        let index = ["model.safetensors.index.json"];
        let check = |weights: &[&'static str], also_left: &[&'static str]| {
            let all = [&others[..], &left, weights, also_left].concat();
            let mut expected = [&others[..], weights].concat();
            let mut found = wanted(&all);
            expected.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, expected);
        };
        check(&["model.safetensors"], &shards);
        check(&[&shards[..], &index].concat(), &[]);
        assert_eq!(wanted(&["weights.safetensors"]), ["weights.safetensors"]);
    }
}
