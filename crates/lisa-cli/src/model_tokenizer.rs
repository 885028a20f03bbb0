//! [`model_tokenizer`]: the tokenizer of a model, with the chat template of `--chat-template`.

use std::path::Path;

use anyhow::Result;
use lisa_lm::{ChatTemplate, Tokenizer};

use crate::user_error::UserError;

/// The tokenizer of a model with what the adapter's own has changed: tokens, chat template, ends. An
/// adapter without a tokenizer was trained with the model's.
fn adapted(tokenizer: Tokenizer, folder: &Path, adapter: &Path) -> Result<Tokenizer> {
    if adapter.as_os_str().is_empty() || !adapter.join("tokenizer.json").is_file() {
        return Ok(tokenizer);
    }
    let own = Tokenizer::from_dir(adapter)?;
    Ok(tokenizer.with_changes_of(&own).map_err(|error| {
        UserError::new(format!(
            "the tokenizers of the adapter in `{}` and of the model in `{}` differ",
            adapter.display(),
            folder.display()
        ))
        .with_help("give the model that the adapter was trained on with --model")
        .with_source(error)
    })?)
}

/// The tokenizer of a model's folder, with what the tokenizer of an adapter has changed. `adapter` is empty
/// without one. `template` is empty for the model's own chat template, the name of a template, or a file
/// with one. A template that writes the time writes the current one always: chats are rendered several
/// times and have to begin with the same text.
pub(crate) fn model_tokenizer(folder: &Path, adapter: &Path, template: &str) -> Result<Tokenizer> {
    let tokenizer = adapted(Tokenizer::from_dir(folder)?, folder, adapter)?;
    let tokenizer = with_template(tokenizer, template)?;
    Ok(tokenizer.with_template_time(&ChatTemplate::now())?)
}

fn with_template(tokenizer: Tokenizer, template: &str) -> Result<Tokenizer> {
    if template.is_empty() {
        return Ok(tokenizer);
    }
    let path = Path::new(template);
    if !path.is_file() {
        return tokenizer.with_named_template(template).map_err(|error| {
            let names = error.help().unwrap_or("give one of the model's own");
            let help = format!("{names}; or a file with a Jinja template");
            UserError::new(format!("cannot use `--chat-template {template}`"))
                .with_source(error.with_help(help))
                .into()
        });
    }
    let refuse = || {
        UserError::new(format!("cannot use `--chat-template {template}`"))
            .with_place(path, None)
            .with_help("correct the template, or give one of chatml, llama3, plain")
    };
    let text = lisa_lm::files::read_small_text(path).map_err(|e| refuse().with_source(e))?;
    let special = tokenizer.special_tokens();
    let parsed = ChatTemplate::new(&text, special).map_err(|e| refuse().with_source(e))?;
    Ok(tokenizer.with_chat_template(parsed.with_name(template)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bundled;

    /// The bundled tokenizer without its chat template, or with another one.
    pub(crate) fn base(template: &str) -> Tokenizer {
        let dir = tempfile::tempdir().unwrap();
        let from = bundled::model().unwrap();
        let copy = |name: &str| std::fs::copy(from.join(name), dir.path().join(name)).unwrap();
        copy("tokenizer.json");
        copy("config.json");
        model_tokenizer(dir.path(), Path::new(""), template).unwrap()
    }

    #[test]
    fn an_unknown_template_is_refused_with_the_names() {
        let error =
            model_tokenizer(&bundled::model().unwrap(), Path::new(""), "alpaca").unwrap_err();
        let text = crate::terminal::report::report(&error);
        let text = anstream::adapter::strip_str(&text).to_string();
        assert!(
            text.contains("cannot use `--chat-template alpaca`"),
            "{text}"
        );
        assert!(text.contains("give one of chatml, llama3, plain"), "{text}");
    }
}
