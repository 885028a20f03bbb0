//! [`Need`]: which files of a repository on the Hugging Face hub a command needs.

/// What a command reads of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The whole model.
    Model,
    /// The shape of the model: only `config.json`.
    Config,
}

#[cfg(any(feature = "hub", test))]
impl Need {
    /// The names, of these files of a repository, of those that are downloaded.
    pub(crate) fn of<'a>(self, names: &[&'a str]) -> Vec<&'a str> {
        match self {
            Self::Model => wanted(names),
            Self::Config => {
                let names = names.iter().copied();
                names.filter(|name| *name == "config.json").collect()
            }
        }
    }
}

/// The names, of these files of a repository, of those that are downloaded: configuration,
/// tokenizer, chat templates, licence, model card, and the weights once. Weights in other formats
/// and precisions are left out.
#[cfg(any(feature = "hub", test))]
fn wanted<'a>(names: &[&'a str]) -> Vec<&'a str> {
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
        let starts = [
            "LICENSE",
            "LICENCE",
            "NOTICE",
            "README",
            "USE_POLICY",
            // Such as tokenizer.model.v3, which is copied next to a trained model.
            "tokenizer.model.",
        ];
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
            "tokenizer.model",
            "tokenizer.model.v3",
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

    #[test]
    fn a_plan_needs_the_configuration_alone() {
        let names = [
            "README.md",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "onnx/config.json",
            "tokenizer.json",
        ];
        assert_eq!(Need::Config.of(&names), ["config.json"]);
        assert_eq!(Need::Model.of(&names).len(), 5);
        assert!(Need::Config.of(&["model.safetensors"]).is_empty());
    }
}
