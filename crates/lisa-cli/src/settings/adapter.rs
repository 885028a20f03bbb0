//! What follows from the adapter that is trained further or evaluated: its method, its shape, and its base model.

use std::path::{Path, PathBuf};

use anyhow::Result;
use lisa_lm::checkpoint::Adapter;

use super::{Flags, Origin};
use crate::bundled;
use crate::model_folder::is_path;
use crate::user_error::UserError;

impl Flags {
    /// These flags, and the flags that follow from the adapter, with its base model unless a model is given.
    pub(crate) fn with_adapter(mut self) -> Result<Self> {
        let taken = self
            .method
            .take_adapter()
            .map_err(|error| self.at_its_place(error))?;
        for name in taken {
            self.set_derived(name);
        }
        self.with_base_of_adapter()
    }

    /// These flags, and the base model that the adapter names unless a model is given.
    pub(crate) fn with_base_of_adapter(mut self) -> Result<Self> {
        let folder = self.method.adapter.clone().unwrap_or_default();
        if folder.as_os_str().is_empty() || self.input.has_model() {
            return Ok(self);
        }
        let base = base_of(&folder).map_err(|error| self.at_its_place(error))?;
        if let Some((model, revision)) = base {
            self.input.model = Some(model);
            self.set_derived("model");
            if revision.is_some() && self.input.revision.is_none() {
                self.input.revision = revision;
                self.set_derived("revision");
            }
        }
        Ok(self)
    }

    fn set_derived(&mut self, name: &str) {
        let origin = Origin::Derived("of the adapter".to_owned());
        self.origins.set(name, origin);
    }
}

/// The base model that an adapter names, and its revision on the hub; `None` for the bundled model.
fn base_of(folder: &Path) -> Result<Option<(PathBuf, Option<String>)>> {
    let adapter = Adapter::open(folder)?;
    let refuse = |what: String| {
        UserError::new(format!("--adapter is `{}`, {what}", folder.display()))
            .with_help("give the model that the adapter was trained on with --model")
    };
    let Some(base) = adapter.base() else {
        return Err(refuse("which names no base model".to_owned()).into());
    };
    let model = Path::new(base);
    if !is_path(model) {
        let revision = adapter.revision().map(str::to_owned);
        return Ok(Some((model.to_owned(), revision)));
    }
    if bundled::is_elsewhere(model) {
        return Ok(None);
    }
    if !model.is_dir() {
        let what = format!("whose base model is `{base}`, and there is no such folder");
        return Err(refuse(what).into());
    }
    if bundled::is_model(model) {
        return Ok(None);
    }
    Ok(Some((std::path::absolute(model)?, None)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_base_model_has_the_revision_of_the_adapter_unless_a_model_or_a_revision_is_given() {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/llama/lora");
        let dir = tempfile::tempdir().unwrap();
        let weights = "adapter_model.safetensors";
        fs::copy(from.join(weights), dir.path().join(weights)).unwrap();
        let name = "adapter_config.json";
        let config = fs::read_to_string(from.join(name)).unwrap();
        let config = config.replace("\"llama\"", "\"owner/name\"");
        let config = config.replace("\"revision\": null", "\"revision\": \"abc\"");
        fs::write(dir.path().join(name), config).unwrap();
        let of = |model: Option<&str>, revision: Option<&str>| {
            let mut flags = Flags::default();
            flags.method.adapter = Some(dir.path().to_owned());
            flags.input.model = model.map(PathBuf::from);
            flags.input.revision = revision.map(str::to_owned);
            let input = flags.with_base_of_adapter().unwrap().input;
            let model = input.model.unwrap().display().to_string();
            (model, input.revision.unwrap_or_default())
        };
        let wanted = |model: &str, revision: &str| (model.to_owned(), revision.to_owned());
        assert_eq!(of(None, None), wanted("owner/name", "abc"));
        assert_eq!(of(None, Some("own")), wanted("owner/name", "own"));
        assert_eq!(of(Some("mine"), None), wanted("mine", ""));
    }
}
