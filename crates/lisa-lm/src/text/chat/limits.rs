//! What a chat template may cost: fuel for its instructions, and a budget of bytes for what they make.
//!
//! Fuel alone does not bound memory: `{% set ns.x = ns.x ~ ns.x %}` doubles a text with each handful of
//! instructions. So every operand of an operator, every argument of a filter, method or function, and all
//! that is written is weighed first and paid for from one budget for each rendering. `source.rs` puts
//! the guards `_joined`, `_whole`, `_times`, `_chain` and `_keep` behind the operands; this file says what they do.
//! Nothing here looks at a clock: what is refused is refused everywhere. Tests: `chat/tests.rs`.

use std::cell::Cell;
use std::fmt::{self, Write};

use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, filters, functions};

/// How many instructions a template may run: thousands of messages, but no endless loop.
const FUEL: u64 = 1_000_000;
/// How many bytes a rendering may make in all, copies on the way included, beside [`PER_BYTE`]: 64 MiB.
pub(super) const BUDGET: usize = 64 << 20;
/// How many more for each byte of the chat.
const PER_BYTE: usize = 64;
/// What an element of a list or a map weighs beside its contents.
const ELEMENT: usize = 32;
/// How deep lists and maps may lie in one another: dropping and printing them is recursive.
const DEPTH: usize = 32;
/// The most bytes of a number as text: that of 1e308 has 309 digits.
const NUMBER: usize = 512;
/// Filters that print what they are given where it is no text.
const PRINTING: [&str; 8] = [
    "capitalize",
    "format",
    "indent",
    "lines",
    "replace",
    "split",
    "splitlines",
    "title",
];
/// The largest number that `*` takes; a text may have a sixteenth of so many bytes.
const REPEAT: i64 = 4096;

thread_local! {
    /// What is left of the budget of the rendering on this thread.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Gives the rendering of so many bytes that begins its budget.
pub(super) fn begin(chat: usize) {
    LEFT.set(BUDGET.saturating_add(chat.saturating_mul(PER_BYTE)));
}

fn spend(bytes: usize) -> Result<(), Error> {
    match LEFT.get().checked_sub(bytes) {
        Some(left) => {
            LEFT.set(left);
            Ok(())
        }
        None => Err(refuse(format!(
            "it makes more than {BUDGET} bytes of text and lists, and {PER_BYTE} for each of the chat"
        ))),
    }
}

fn refuse(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

fn too_deep() -> Error {
    refuse(format!(
        "lists and maps lie more than {DEPTH} deep in one another"
    ))
}

/// Bytes of a value with all that is in it. Refuses what is nested too deeply, or in itself.
fn weigh(value: &Value, depth: usize) -> Result<usize, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.len());
    }
    if !matches!(
        value.kind(),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable
    ) {
        return Ok(ELEMENT);
    }
    if depth > DEPTH {
        return Err(too_deep());
    }
    let is_map = value.kind() == ValueKind::Map;
    let mut total = ELEMENT;
    for item in value.try_iter()? {
        total += ELEMENT + weigh(&item, depth + 1)?;
        if is_map {
            total += weigh(&value.get_item(&item)?, depth + 1)?;
        }
        if total > LEFT.get() {
            break;
        }
    }
    Ok(total)
}

/// As [`weigh`], of what an operator copies: a text, or the elements of a list.
fn weigh_shallow(value: &Value) -> usize {
    match value.as_str() {
        Some(text) => text.len(),
        None => ELEMENT * value.len().unwrap_or(1).saturating_add(1),
    }
}

/// An environment in which everything that makes values pays for them.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(write_as_python);
    environment.set_unknown_method_callback(method);
    environment.add_filter("_whole", |value: Value| {
        // A list that is joined to a text is printed, with marks round each element.
        let repeated = if value.as_str().is_some() { 1 } else { 4 };
        spend(weigh(&value, 0)?.saturating_mul(repeated))?;
        Ok::<_, Error>(value)
    });
    environment.add_filter("_joined", |value: Value| {
        spend(weigh_shallow(&value))?;
        Ok::<_, Error>(value)
    });
    environment.add_filter("_times", times);
    environment.add_filter("_chain", |value: Value| match value.kind() {
        ValueKind::Number | ValueKind::Bool | ValueKind::Undefined | ValueKind::None => Ok(value),
        _ => Err(refuse(
            "`*` takes a text only where it is the one product in a tag",
        )),
    });
    environment.add_filter("_keep", |value: Value| kept(&value, 0));
    environment.add_function("_spent", |bytes: usize| {
        spend(bytes)?;
        Ok::<_, Error>(Value::from(""))
    });
    environment.remove_global("debug");
    for (name, function) in [
        ("dict", Value::from_function(functions::dict)),
        ("namespace", Value::from_function(functions::namespace)),
    ] {
        environment.add_function(name, move |state: &State, args: Rest<Value>| {
            pay(name, &args)?;
            function.call(state, &args)
        });
    }
    add_filters(&mut environment);
    environment
}

/// What is assigned to an attribute of a namespace, as data that holds no namespace: nothing else in a
/// template can change, so nothing else could come to hold itself, and what holds itself is never freed.
/// Lists and maps are copied, since one that is made as it is read holds what it is made of.
fn kept(value: &Value, depth: usize) -> Result<Value, Error> {
    let Some(object) = value.as_object() else {
        return Ok(value.clone());
    };
    let kind = value.kind();
    let data = matches!(kind, ValueKind::Seq | ValueKind::Map | ValueKind::Iterable);
    // These list what they have, as maps do.
    let engine = ["::Namespace", "::Macro"];
    if !data || engine.iter().any(|name| object.type_name().ends_with(name)) {
        return Err(refuse(
            "texts, numbers, lists and maps can be assigned to an attribute here, and no macros, functions or \
             namespaces",
        ));
    }
    if depth > DEPTH {
        return Err(too_deep());
    }
    let mut elements = Vec::new();
    let mut pairs = Vec::new();
    for item in value.try_iter()? {
        spend(ELEMENT)?;
        let element = kept(&item, depth + 1)?;
        if kind == ValueKind::Map {
            spend(ELEMENT)?;
            pairs.push((element, kept(&value.get_item(&item)?, depth + 1)?));
        } else {
            elements.push(element);
        }
    }
    Ok(match kind {
        ValueKind::Map => pairs.into_iter().collect(),
        _ => Value::from(elements),
    })
}

/// An operand of `*`: a text is repeated to at most 1 MiB.
fn times(value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String if value.as_str().map_or(0, str::len) as i64 <= REPEAT / 16 => {
            spend((REPEAT * REPEAT / 16) as usize)?;
        }
        ValueKind::Number if value.as_i64().is_none_or(|n| n.abs() <= REPEAT) => {}
        ValueKind::String | ValueKind::Number => {
            return Err(refuse(format!(
                "`*` takes numbers up to {REPEAT} and texts up to {} bytes here",
                REPEAT / 16
            )));
        }
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            return Err(refuse("`*` takes no lists here"));
        }
        _ => {}
    }
    Ok(value)
}

/// Pays for what a filter, method or function will make of its arguments.
fn pay(name: &str, args: &[Value]) -> Result<(), Error> {
    let mut deep: usize = 0;
    for value in args {
        deep = deep.saturating_add(weigh(value, 0)?);
    }
    let shallow: usize = args.iter().map(weigh_shallow).sum();
    let elements = args.iter().map(|arg| arg.len().unwrap_or(0)).max();
    let elements = elements.unwrap_or(0);
    let text = |at: usize| args.get(at).and_then(Value::as_str).unwrap_or("");
    // As text, of a number too.
    let length = |at: usize| {
        let as_text = |value: &Value| value.as_str().map_or(NUMBER, str::len);
        args.get(at).map_or(0, as_text)
    };
    // What would be printed first; `format` prints its arguments and pays for that.
    let printed = match name {
        "join" => args.get(1..).unwrap_or_default(),
        "format" => args.get(..1).unwrap_or_default(),
        _ if PRINTING.contains(&name) => args,
        _ => &[],
    };
    let listed = |value: &Value| value.as_object().is_some() && !value.is_kwargs();
    if printed.iter().any(listed) {
        return Err(refuse(format!(
            "`{name}` takes texts and numbers here, and no lists or maps"
        )));
    }
    let most = |limit: i64| {
        let mut numbers = args.iter().filter_map(Value::as_i64);
        match numbers.find(|n| !(-limit..=limit).contains(n)) {
            Some(n) => Err(refuse(format!(
                "`{name}` takes numbers up to {limit} here, not {n}"
            ))),
            None => Ok(()),
        }
    };
    let cost = match name {
        "join" | "str.join" => {
            let between = length(usize::from(name == "join"));
            // Elements that are lists or maps are printed, with marks round what is in them.
            let printed = deep.saturating_mul(4);
            printed.saturating_add(elements.saturating_mul(between + 1))
        }
        "replace" => {
            let places = length(0) / text(1).len().max(1) + 1;
            places.saturating_mul(length(2) + 1).saturating_add(deep)
        }
        "indent" => {
            if args.iter().any(Value::is_kwargs) {
                return Err(refuse("`indent` takes its width first, and no names, here"));
            }
            most(256)?;
            (text(0).lines().count() + 1) * 256 + deep
        }
        "format" => {
            let mut runs = text(0).split(|c: char| !c.is_ascii_digit());
            if runs.any(|digits| digits.len() > 3) || text(0).contains('*') {
                return Err(refuse("`format` takes widths below 1000 here"));
            }
            // A width for each place, and any argument in each of them.
            let places = text(0).matches(['%', '{']).count();
            places.saturating_mul(1000 + deep.saturating_mul(4))
        }
        "batch" | "slice" => {
            most(1000)?;
            shallow + ELEMENT * 1000
        }
        "tojson" | "pprint" | "escape" => {
            most(16)?;
            deep.saturating_mul(16)
        }
        "split" if !text(1).is_empty() => {
            text(0).len() + ELEMENT * (text(0).matches(text(1)).count() + 1)
        }
        "split" | "splitlines" | "lines" => {
            text(0).len() + ELEMENT * (text(0).split_whitespace().count() + 1 + lines(text(0)))
        }
        // These compare, or add one after the other.
        "sort" | "unique" | "groupby" | "dictsort" | "max" | "min" | "string" => {
            deep.saturating_mul(4)
        }
        "sum" => deep.saturating_mul(elements + 1),
        // A text's characters become elements.
        _ if args.first().is_some_and(|first| first.as_str().is_some()) => {
            text(0).len().saturating_mul(ELEMENT)
        }
        _ => shallow,
    };
    // And for looking at all of it.
    spend(cost.saturating_add(deep / 16))
}

fn lines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// Python's methods on texts, maps and lists.
fn method(state: &State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let mut all = vec![value.clone()];
    all.extend_from_slice(args);
    match name {
        // These make nothing, or a list of what is there already.
        "get" | "keys" | "values" | "items" => spend(weigh_shallow(value))?,
        "startswith" | "endswith" | "find" | "rfind" | "count" | "strip" | "lstrip" | "rstrip"
        | "upper" | "lower" => {
            for value in &all {
                spend(weigh(value, 0)?.saturating_mul(3))?;
            }
        }
        // Of a text, which is put between the elements of a list: the filter has it the other way round.
        "join" => pay("str.join", &all)?,
        _ => pay(name, &all)?,
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// Registers minijinja's filters a second time, behind a payment.
fn add_filters(environment: &mut Environment<'static>) {
    macro_rules! paid {
        ($($name:ident),* $(,)?) => {$(
            environment.add_filter(concat!("unpaid_", stringify!($name)), filters::$name);
            environment.add_filter(stringify!($name), |state: &State, args: Rest<Value>| {
                pay(stringify!($name), &args)?;
                state.apply_filter(concat!("unpaid_", stringify!($name)), &args)
            });
        )*};
    }
    paid!(
        batch, capitalize, chain, dictsort, escape, format, groupby, indent, items, join, lines,
        list, map, pprint, reject, rejectattr, replace, reverse, select, selectattr, slice, sort,
        split, string, sum, title, unique, zip, max, min, last,
    );
    // These make a text that is hardly longer.
    macro_rules! linear {
        ($($name:ident),* $(,)?) => {$(
            environment.add_filter(concat!("unpaid_", stringify!($name)), filters::$name);
            environment.add_filter(stringify!($name), |state: &State, args: Rest<Value>| {
                for value in args.iter() {
                    spend(weigh(value, 0)?.saturating_mul(3))?;
                }
                state.apply_filter(concat!("unpaid_", stringify!($name)), &args)
            });
        )*};
    }
    linear!(lower, trim, upper, int, float);
    environment.remove_filter("e");
    environment.add_filter("e", |state: &State, args: Rest<Value>| {
        state.apply_filter("escape", &args)
    });
}

/// Pays for what `tojson` writes; `value` is what it is given.
pub(super) fn pay_for_json(value: &Value) -> Result<(), Error> {
    pay("tojson", std::slice::from_ref(value))
}

/// Prints truth values and nothing in Python's words, everything else as it is.
fn write_as_python(
    out: &mut Output<'_>,
    _state: &State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    let word = match value.kind() {
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        ValueKind::None => "None",
        ValueKind::Undefined => "",
        ValueKind::String => value.as_str().unwrap_or_default(),
        _ => {
            weigh(value, 0)?;
            let mut paid = Paid { out, error: None };
            let written = write!(paid, "{value}");
            return match paid.error {
                Some(error) => Err(error),
                None => written.map_err(Error::from),
            };
        }
    };
    spend(word.len())?;
    out.write_str(word).map_err(Error::from)
}

/// Pays for each piece before it is written.
struct Paid<'a, 'b> {
    out: &'a mut Output<'b>,
    error: Option<Error>,
}

impl Write for Paid<'_, '_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        if let Err(error) = spend(piece.len()) {
            self.error = Some(error);
            return Err(fmt::Error);
        }
        self.out.write_str(piece)
    }
}
