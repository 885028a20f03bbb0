//! The template engine, set up as transformers sets up Jinja, and the limits of a rendering.
//!
//! A template is a program that came with a model. It can read only its arguments, but it may loop
//! without end or cause a panic of the engine. So its instructions and its output are limited, and
//! a panic becomes an error.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::Zoned;
use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, Output, State};

use super::refusal::refuse;
use super::{filters, functions, generation, json, python};

/// The name of the only template in an environment.
const NAME: &str = "chat_template";
/// The maximum number of instructions of a rendering; real templates run a few for each message.
const FUEL: u64 = 1_000_000;
/// The maximum number of bytes that a rendering writes: 64 MiB.
const OUTPUT_BYTES: usize = 64 << 20;

/// Parses the template, and returns an environment that contains it.
pub(super) fn environment(source: String) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(write);
    environment.set_unknown_method_callback(python::method);
    environment.remove_global("debug");
    environment.add_function("raise_exception", functions::raise_exception);
    environment.add_function(functions::STRFTIME_NOW, functions::strftime_now);
    environment.add_filter(generation::FILTER, generation::mark);
    environment.add_filter("tojson", json::to_json);
    environment.add_filter("string", python::to_string);
    filters::add_to(&mut environment);
    environment.add_test("number", python::is_number);
    environment.add_test("sequence", python::is_sequence);
    environment.add_test("iterable", python::is_iterable);
    caught(|| environment.add_template_owned(NAME, source))?;
    Ok(environment)
}

/// Sets the time that the template writes as the current one.
pub(super) fn set_time(environment: &mut Environment<'static>, time: Zoned) {
    let written = move |format: String| functions::strftime(&format, &time);
    environment.add_function(functions::STRFTIME_NOW, written);
}

/// The text that the template writes with these arguments.
pub(super) fn render(environment: &Environment<'_>, arguments: Value) -> Result<String, Error> {
    let mut out = Bounded(Vec::new());
    caught(|| {
        let template = environment.get_template(NAME)?;
        template.render_captured_to(arguments, &mut out).map(|_| ())
    })?;
    let wrong = |e: std::string::FromUtf8Error| refuse(e.to_string());
    String::from_utf8(out.0).map_err(wrong)
}

/// Runs the engine and turns a panic into an error: minijinja 2.24 panics on `''[::-1]`.
fn caught(run: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(refuse("the engine panicked")))
}

/// Writes a value as Python prints it.
fn write(out: &mut Output<'_>, _state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(()),
        ValueKind::String => out.write_str(value.as_str().unwrap_or_default()),
        _ => out.write_str(&python::text_of(value)?),
    }
    .map_err(Error::from)
}

/// Bytes, up to a limit.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES {
            let message = format!("the text is longer than {OUTPUT_BYTES} bytes");
            return Err(io::Error::other(message));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
