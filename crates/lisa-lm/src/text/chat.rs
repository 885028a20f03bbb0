//! [`ChatTemplate`]: writes a chat down as one text, the way the checkpoint was trained on.
//!
//! A template is a Jinja program from the checkpoint's folder. It runs under `minijinja` with what
//! transformers gives its templates: blocks trimmed, loop controls, Python's methods on strings,
//! lists and dictionaries, `raise_exception`, `strftime_now`, a `tojson` that writes as Python's
//! `json.dumps` does, and the `generation` block, which is transparent. A template is somebody
//! else's code, so it runs on limited fuel and memory (`chat/limits.rs`, `chat/source.rs`) and sees
//! nothing but its arguments. Tests: `chat/tests.rs`, against strings that transformers rendered.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, ErrorKind};
use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, ErrorKind as JinjaErrorKind, context};
use serde::{Deserialize, Serialize};

use crate::files::shown;

mod limits;
mod source;

/// The template of a checkpoint that has none, for a base model that never saw a chat.
///
/// ```text
/// {bos}{the system message}
///
/// User: {what the user says}
/// Assistant: {what the assistant says}{eos}
/// User: ...
/// ```
///
/// It uses no special tokens but the beginning and the end of a sequence, so every vocabulary can
/// write it; the text to generate from ends in `Assistant:`.
pub const DEFAULT_TEMPLATE: &str = "{{ bos_token }}\
{%- for message in messages %}\
{%- if message.role == 'system' %}{{ message.content | trim }}{{ '\\n\\n' }}\
{%- elif message.role == 'user' %}User: {{ message.content | trim }}{{ '\\n' }}\
{%- elif message.role == 'assistant' %}Assistant: {{ message.content | trim }}{{ eos_token }}\
{{- '\\n' }}\
{%- else %}{{ raise_exception('unknown role ' + message.role) }}{% endif %}\
{%- endfor %}\
{%- if add_generation_prompt %}Assistant:{% endif %}";

/// One message of a chat.
///
/// # Example
///
/// ```
/// use lisa_lm::Message;
///
/// let chat = [
///     Message::new("system", "Be brief."),
///     Message::user("Two and two?"),
///     Message::assistant("four"),
/// ];
/// // As a line of training data holds it.
/// let json = serde_json::to_string(&chat[1])?;
/// assert_eq!(json, r#"{"role":"user","content":"Two and two?"}"#);
/// let line = r#"[{"role": "assistant", "content": "four"}]"#;
/// assert_eq!(serde_json::from_str::<Vec<Message>>(line)?, chat[2..]);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`; a template may know others.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of a role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
        }
    }

    /// A message of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// A message of the assistant.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }
}

/// A chat template, parsed once.
///
/// # Example
///
/// ```
/// use std::collections::BTreeMap;
/// use lisa_lm::{ChatTemplate, Message};
///
/// let special = BTreeMap::from([("eos_token".to_owned(), "</s>".to_owned())]);
/// let template = ChatTemplate::default_for(&special);
/// let chat = [Message::user("Two and two?"), Message::assistant("four")];
/// assert_eq!(template.render(&chat, false)?, "User: Two and two?\nAssistant: four</s>\n");
/// assert_eq!(template.render(&chat[..1], true)?, "User: Two and two?\nAssistant:");
///
/// let own = "{% for m in messages %}[{{ m.content }}]{% endfor %}{{ eos_token }}";
/// let template = ChatTemplate::new(own, &special)?;
/// assert_eq!(template.render(&chat, false)?, "[Two and two?][four]</s>");
/// assert_eq!(template.source(), own);
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    special: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Parses a template. `special` maps names such as `bos_token` to tokens.
    ///
    /// # Errors
    ///
    /// A template that does not parse; the message has the line. One of more than 1 MiB, or with more
    /// than 256 bytes of raw text, or of spaces in a row, between two tags.
    pub fn new(source: &str, special: &BTreeMap<String, String>) -> Result<Self, Error> {
        let mut environment = environment();
        let guarded = source::guarded(source).map_err(|what| {
            let message = format!("the chat template is not used: {what}");
            Error::new(ErrorKind::Template, message)
        })?;
        caught(|| environment.add_template_owned("chat_template", guarded))
            .map_err(|e| failed("does not parse", e))?;
        Ok(Self {
            environment,
            source: source.to_owned(),
            special: special.clone(),
        })
    }

    /// The [default template](DEFAULT_TEMPLATE).
    #[must_use]
    pub fn default_for(special: &BTreeMap<String, String>) -> Self {
        let mut environment = environment();
        // The tests render it; if it did not parse, rendering would say so.
        let guarded = source::guarded(DEFAULT_TEMPLATE).unwrap_or_default();
        let _ = environment.add_template_owned("chat_template", guarded);
        Self {
            environment,
            source: DEFAULT_TEMPLATE.to_owned(),
            special: special.clone(),
        }
    }

    /// The chat as one text, special tokens included. With `add_generation_prompt` it ends where
    /// the assistant's next message begins.
    ///
    /// Whatever the template, this ends after a million instructions, about a second, and takes at most
    /// 256 MiB of memory and 128 times the chat's: 64 MiB of text and lists, and 64 bytes for each
    /// of the chat's, may be made on the way, each copy counted anew. Real templates need a hundredth.
    ///
    /// # Errors
    ///
    /// What the template itself refuses (roles that do not alternate, a system message in a format
    /// that has none), an error in the template, and one that does not end or makes too much: products
    /// of lists, numbers above 4096 in a product, widths above 1000, lists where a filter takes text, and
    /// macros or namespaces in a namespace among it.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, Error> {
        let arguments = context! {
            messages,
            add_generation_prompt,
            tools => (),
            documents => (),
            ..Value::from_serialize(&self.special)
        };
        limits::begin(
            messages
                .iter()
                .map(|m| m.role.len() + m.content.len())
                .sum(),
        );
        let rendered = caught(|| {
            let template = self.environment.get_template("chat_template")?;
            template.render(arguments)
        });
        rendered.map_err(|e| {
            let roles: Vec<&str> = messages.iter().map(|m| m.role.as_str()).take(20).collect();
            failed(
                &format!("refuses a chat of {}", shown(&roles.join(", "))),
                e,
            )
        })
    }

    /// The template's text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("source", &self.source)
            .field("special", &self.special)
            .finish_non_exhaustive()
    }
}

/// Runs the engine, which panics on some templates (minijinja 2.24: on `''[::-1]`): an error like
/// others here.
fn caught<T>(run: impl FnOnce() -> Result<T, minijinja::Error>) -> Result<T, minijinja::Error> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        let message = "the engine broke down on it";
        Err(minijinja::Error::new(
            JinjaErrorKind::InvalidOperation,
            message,
        ))
    })
}

fn failed(what: &str, error: minijinja::Error) -> Error {
    let detail = error
        .detail()
        .map_or_else(String::new, |d| format!(": {}", shown_long(d)));
    let line = error
        .line()
        .map_or_else(String::new, |l| format!(" (line {l})"));
    Error::new(
        ErrorKind::Template,
        format!("the chat template {what}: {}{detail}{line}", error.kind()),
    )
    .with_source(error)
}

/// What the template says may be a sentence; what it made may be anything.
fn shown_long(detail: &str) -> String {
    let end = detail.char_indices().nth(500).map(|(end, _)| end);
    end.map_or_else(|| detail.to_owned(), |end| format!("{}...", &detail[..end]))
}

fn environment() -> Environment<'static> {
    let mut environment = limits::environment();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", to_json);
    environment
}

fn raise_exception(message: String) -> Result<String, minijinja::Error> {
    Err(minijinja::Error::new(
        JinjaErrorKind::InvalidOperation,
        message,
    ))
}

/// The local time in a format of C's `strftime`.
fn strftime_now(format: &str) -> Result<String, minijinja::Error> {
    if format.len() > 100 {
        let message = "strftime_now takes formats up to 100 bytes here";
        return Err(minijinja::Error::new(
            JinjaErrorKind::InvalidOperation,
            message,
        ));
    }
    jiff::fmt::strtime::format(format, &jiff::Zoned::now())
        .map_err(|e| minijinja::Error::new(JinjaErrorKind::InvalidOperation, e.to_string()))
}

/// `tojson(value, indent=None)`, spaced as Python's `json.dumps` spaces it and with no HTML
/// escapes. Text outside ASCII stays as it is; keys keep their order.
fn to_json(value: Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    limits::pay_for_json(&value)?;
    let wrong = |e: String| minijinja::Error::new(JinjaErrorKind::BadSerialization, e);
    let mut out = Vec::new();
    if let Some(width) = indent {
        let spaces = vec![b' '; width.min(16)];
        let pretty = serde_json::ser::PrettyFormatter::with_indent(&spaces);
        let mut writer = serde_json::Serializer::with_formatter(&mut out, pretty);
        value
            .serialize(&mut writer)
            .map_err(|e| wrong(e.to_string()))?;
    } else {
        let mut writer = serde_json::Serializer::with_formatter(&mut out, Spaced);
        value
            .serialize(&mut writer)
            .map_err(|e| wrong(e.to_string()))?;
    }
    String::from_utf8(out).map_err(|e| wrong(e.to_string()))
}

/// JSON on one line with a space after each comma and colon.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }
}

#[cfg(test)]
mod tests;
