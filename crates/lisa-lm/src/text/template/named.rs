//! Chat templates that are chosen by a name.

use super::DEFAULT_TEMPLATE;

/// ChatML: each message between `<|im_start|>` and `<|im_end|>`.
const CHATML: &str = "{%- for message in messages %}\
{%- if message.content is not string %}\
{{ raise_exception('the template chatml needs text in every message') }}{% endif %}\
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\
{%- endfor %}\
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// The format of the Llama 3 instruction models, without tools.
const LLAMA3: &str = "{{ bos_token }}\
{%- for message in messages %}\
{%- if message.content is not string %}\
{{ raise_exception('the template llama3 needs text in every message') }}{% endif %}\
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}\
{{- message.content | trim }}{{ '<|eot_id|>' }}\
{%- endfor %}\
{%- if add_generation_prompt %}\
{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}";

/// A template that is chosen by its name.
pub(crate) struct Named {
    pub(crate) name: &'static str,
    pub(crate) source: &'static str,
    /// The special tokens that the template writes, besides those of the tokenizer.
    pub(crate) tokens: &'static [&'static str],
}

/// Every such template.
pub(crate) static NAMED: [Named; 3] = [
    Named {
        name: "chatml",
        source: CHATML,
        tokens: &["<|im_start|>", "<|im_end|>"],
    },
    Named {
        name: "llama3",
        source: LLAMA3,
        tokens: &["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    },
    Named {
        name: "plain",
        source: DEFAULT_TEMPLATE,
        tokens: &[],
    },
];

/// The template with this name.
pub(crate) fn named(name: &str) -> Option<&'static Named> {
    NAMED.iter().find(|named| named.name == name)
}
