//! [`Prompts`]: the prompts that answers are generated from, as far as their tokens are checked.

use std::collections::BTreeSet;

use lisa_lm::Tokenizer;
use lisa_lm::text::{Content, Example, Message, encode_prompt};

/// The prompts of examples: in a chat they end as no row does. Of those that the template ends in the
/// same way, the first is looked at.
#[derive(Debug, Default)]
pub(crate) struct Prompts {
    /// Checksums of the ends.
    ends: BTreeSet<u32>,
    /// The prompt with the largest id, and its example.
    largest: Option<(usize, Vec<u32>)>,
}

impl Prompts {
    /// Looks at the example with this index.
    pub(crate) fn see(&mut self, index: usize, example: &Example, tokenizer: &Tokenizer) {
        // An example that is refused is left out, or ends the run when it is encoded.
        let Some(end) = prompt_end(example, tokenizer) else {
            return;
        };
        if !self.ends.insert(crc32c::crc32c(end.as_bytes())) {
            return;
        }
        let Ok(Some(ids)) = encode_prompt(example, tokenizer) else {
            return;
        };
        let known = self.largest.as_ref();
        if known.is_none_or(|(_, known)| known.iter().max() < ids.iter().max()) {
            self.largest = Some((index, ids));
        }
    }

    /// The index of an example and the ids of its prompt, of which one is the largest of all prompts.
    pub(crate) fn largest(&self) -> Option<&(usize, Vec<u32>)> {
        self.largest.as_ref()
    }
}

/// What the template writes after the last message of the prompt. `None` if the example is no chat,
/// or is refused.
fn prompt_end(example: &Example, tokenizer: &Tokenizer) -> Option<String> {
    let Content::Chat(chat) = &example.content else {
        return None;
    };
    let before = chat.before(chat.messages.len().checked_sub(1)?);
    let prompt = tokenizer.chat_template().render(&before, true).ok()?.text;
    let last = before.messages.last().and_then(Message::content);
    let last = last.unwrap_or_default().trim();
    let end = prompt.rfind(last).filter(|_| !last.is_empty());
    Some(prompt[end.map_or(0, |at| at + last.len())..].to_owned())
}

#[cfg(test)]
mod tests {
    use lisa_lm::ChatTemplate;

    use super::*;
    use crate::bundled;

    #[test]
    fn every_end_of_a_prompt_is_checked_once() {
        let tokenizer = Tokenizer::from_dir(bundled::model().unwrap()).unwrap();
        // A chat may ask for another end of the prompt.
        let template = "{% for m in messages %}{{ m.content }};{% endfor %}\
                        {% if add_generation_prompt %}{{ end or '>' }}{% endif %}";
        let template = ChatTemplate::new(template, tokenizer.special_tokens()).unwrap();
        let tokenizer = tokenizer.with_chat_template(template);
        let row = |end: &str, question: &str| {
            let row = format!(
                r#"{{"messages": [{{"role": "user", "content": "{question}"}},
                {{"role": "assistant", "content": "b"}}], "chat_template_kwargs": {{"end": "{end}"}}}}"#
            );
            Example::from_json(&row).unwrap()
        };
        let examples = [
            row("", "one"),
            row("", "two"),
            row("<|user|>", "three"),
            row("<|user|>", "four"),
            Example::from_json(r#"{"text": "five"}"#).unwrap(),
        ];
        let mut prompts = Prompts::default();
        for (index, example) in examples.iter().enumerate() {
            prompts.see(index, example, &tokenizer);
        }
        assert_eq!(prompts.ends.len(), 2);
        // Of the first and the third example, the one with the larger id.
        let ids = [0, 2].map(|at| encode_prompt(&examples[at], &tokenizer).unwrap().unwrap());
        let most = ids.each_ref().map(|ids| ids.iter().copied().max());
        let wanted = usize::from(most[1] > most[0]);
        assert_eq!(prompts.largest(), Some(&(2 * wanted, ids[wanted].clone())));
    }
}
