//! [`unwritten_context`]: what of a chat its template leaves out.

use std::collections::BTreeSet;

use crate::text::chat::Chat;
use crate::text::template::ChatTemplate;

/// The parts of this chat, besides answers, that the template does not write: `tools`, `documents`,
/// or `messages of ROLE`. A model is trained without them. Empty if the template refuses the chat.
///
/// Parts that are in `seen` are not checked; those that are checked are added to it. A check costs
/// a rendering.
///
/// # Example
///
/// ```
/// use std::collections::BTreeSet;
///
/// use lisa_lm::Tokenizer;
/// use lisa_lm::text::{Chat, Message, unwritten_context};
///
/// let tokenizer = Tokenizer::from_dir("../../tests/fixtures/tokenizer")?.with_named_template("chatml")?;
/// let chat = Chat::from([Message::user("Two and two?"), Message::assistant("four")]);
/// let chat = chat.with_tools([serde_json::json!({"name": "add"})]);
/// let mut seen = BTreeSet::new();
/// assert_eq!(unwritten_context(&chat, tokenizer.chat_template(), &mut seen), ["tools"]);
/// assert!(unwritten_context(&chat, tokenizer.chat_template(), &mut seen).is_empty());
/// # Ok::<(), lisa_lm::Error>(())
/// ```
pub fn unwritten_context(
    chat: &Chat,
    template: &ChatTemplate,
    seen: &mut BTreeSet<String>,
) -> Vec<String> {
    let mut names = chat.context_names();
    names.retain(|name| !seen.contains(name));
    if names.is_empty() {
        return Vec::new();
    }
    let Ok(whole) = template.try_render(chat, false) else {
        return Vec::new();
    };
    let mut unwritten = Vec::new();
    for name in names {
        let other = template.try_render(&chat.clone().with_other(&name), false);
        if other.is_ok_and(|other| other.text == whole.text) {
            unwritten.push(name.clone());
        }
        seen.insert(name);
    }
    unwritten
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::tokenizer;
    use crate::text::chat::Message;

    #[test]
    fn tools_documents_and_roles_that_are_left_out_are_named() {
        let roles = "{% for m in messages %}{% if m.role in ['user', 'assistant'] %}{{ m.content | upper }}\
                     {% endif %}{% endfor %}";
        let all =
            "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools | tojson }}{{ documents }}";
        let system =
            "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}";
        let chat = Chat::from([
            Message::new("developer", "Be brief."),
            Message::user("two"),
            Message::new("tool", " "),
            Message::assistant("three"),
        ]);
        let chat = chat.with_tools(["add"]).with_documents(["four"]);
        let found = |template: &str| {
            let tokenizer = tokenizer(template);
            unwritten_context(&chat, tokenizer.chat_template(), &mut BTreeSet::new())
        };
        assert_eq!(
            found(roles),
            ["documents", "messages of developer", "tools"]
        );
        assert!(found(all).is_empty());
        // Such a chat is an error when it is encoded.
        assert!(found(system).is_empty());
    }
}
