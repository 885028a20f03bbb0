//! A model with more rows in its embeddings, saved and loaded.

use burn::tensor::Device;
use serde_json::Value;

use crate::Checkpoint;
use crate::checkpoint::{SaveOptions, save};
use crate::test_support::fixture;

#[test]
fn a_resized_model_is_saved_with_its_size_and_the_files_that_are_given() {
    for name in ["llama", "llama_tied", "gpt2"] {
        let source = Checkpoint::open(fixture(name)).unwrap();
        let model = source.load(&Device::default(), None).unwrap();
        let size = source.config().vocab_size() + 3;
        let model = model.resize_embeddings(size).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("tokenizer.json".to_owned(), b"new".to_vec()),
            (
                "additional_chat_templates/rag.jinja".to_owned(),
                b"R".to_vec(),
            ),
        ];
        let options = SaveOptions {
            source: Some(&source),
            files: &files,
            ..SaveOptions::default()
        };
        save(&model, dir.path(), &options).unwrap();
        for (name, bytes) in files {
            assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), bytes);
        }

        // Only the size changes in the text of the configuration.
        let config = |dir: &std::path::Path| -> Value {
            let text = std::fs::read_to_string(dir.join("config.json")).unwrap();
            serde_json::from_str(&text).unwrap()
        };
        let mut expected = config(source.dir());
        expected["vocab_size"] = size.into();
        assert_eq!(config(dir.path()), expected, "{name}");

        let saved = Checkpoint::open(dir.path()).unwrap();
        let loaded = saved.load(&Device::default(), None).unwrap();
        let weight = loaded.model.embed_tokens.weight.val();
        assert_eq!(weight.dims()[0], size);
        assert_eq!(
            weight.into_data(),
            model.model.embed_tokens.weight.val().into_data()
        );
        let head = |model: &crate::CausalLm| {
            model
                .lm_head
                .as_ref()
                .map(|head| head.weight.val().into_data())
        };
        assert_eq!(head(&loaded), head(&model));
    }
}
