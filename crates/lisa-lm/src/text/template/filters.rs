//! Filters of Jinja that the engine lacks, or that take more arguments in Jinja.

use minijinja::value::{Kwargs, Rest, Value, ValueKind, from_args};
use minijinja::{Environment, Error};

use super::python::text_of;
use super::refusal::refuse;
use super::strings;

/// Adds the filters.
pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.add_filter("int", int);
    environment.add_filter("replace", replace);
    environment.add_filter("round", round);
    environment.add_filter("truncate", truncate);
    environment.add_filter("wordcount", word_count);
    environment.add_filter("center", center);
    environment.add_filter("striptags", strip_tags);
    environment.add_filter("urlencode", url_encode);
}

/// An argument that may be given by its position or its name.
fn either<T>(place: Option<T>, named: &Kwargs, name: &str) -> Result<Option<T>, Error>
where
    T: for<'a> minijinja::value::ArgType<'a, Output = T>,
{
    match place {
        Some(value) => Ok(Some(value)),
        None => named.get::<Option<T>>(name),
    }
}

/// `value | int(default=0, base=10)`: the default if the value is not a number.
fn int(value: &Value, args: Rest<Value>) -> Result<Value, Error> {
    let (default, base, named): (Option<Value>, Option<u32>, Kwargs) = from_args(&args)?;
    let default = match args.first() {
        Some(given) if given.is_none() => Some(given.clone()),
        _ => either(default, &named, "default")?,
    };
    let base = either(base, &named, "base")?.unwrap_or(10);
    named.assert_all_used()?;
    let whole = match value.as_str() {
        Some(text) => parsed(text.trim(), base).map(Value::from).or_else(|| {
            let number = without_underscores(text.trim())?;
            truncated(number.parse().ok()?)
        }),
        None if value.is_integer() => Some(value.clone()),
        None if value.kind() == ValueKind::Bool => Some(Value::from(i64::from(value.is_true()))),
        None if value.kind() == ValueKind::Number => {
            f64::try_from(value.clone()).ok().and_then(truncated)
        }
        None => None,
    };
    Ok(whole.or(default).unwrap_or_else(|| Value::from(0)))
}

/// The whole number that a text is, with an optional sign and prefix, as in Python.
fn parsed(text: &str, base: u32) -> Option<i128> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let prefix = unsigned.get(..2).unwrap_or_default().to_lowercase();
    let named = match prefix.as_str() {
        "0x" => 16,
        "0o" => 8,
        "0b" => 2,
        _ => 0,
    };
    let (digits, base) = match base {
        0 if named == 0 => (unsigned, 10),
        _ if named > 0 && (base == named || base == 0) => {
            let digits = &unsigned[2..];
            (digits.strip_prefix('_').unwrap_or(digits), named)
        }
        2..=36 => (unsigned, base),
        _ => return None,
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let number = i128::from_str_radix(&without_underscores(digits)?, base).ok()?;
    Some(if text.starts_with('-') {
        -number
    } else {
        number
    })
}

/// The digits of a number; `None` if an underscore is not between two of them.
fn without_underscores(text: &str) -> Option<String> {
    let is_digit = |part: Option<char>| part.is_some_and(|c| c.is_ascii_alphanumeric());
    let parts: Vec<&str> = text.split('_').collect();
    let mut pairs = parts.windows(2);
    let between =
        pairs.all(|p| is_digit(p[0].chars().next_back()) && is_digit(p[1].chars().next()));
    between.then(|| parts.concat())
}

/// The whole part of a number that has one.
fn truncated(number: f64) -> Option<Value> {
    number
        .is_finite()
        .then(|| Value::from(number.trunc() as i128))
}

/// `value | round(precision=0, method='common')`: to the nearest number, of two the even one; or up
/// with `ceil`, or down with `floor`.
fn round(value: &Value, args: Rest<Value>) -> Result<Value, Error> {
    let (precision, method, named): (Option<i32>, Option<String>, Kwargs) = from_args(&args)?;
    let precision = either(precision, &named, "precision")?.unwrap_or(0);
    let method = either(method, &named, "method")?.unwrap_or_else(|| "common".to_owned());
    named.assert_all_used()?;
    let is_whole = value.is_integer() || value.kind() == ValueKind::Bool;
    if is_whole && method == "common" && precision >= 0 {
        return int(value, Rest(Vec::new()));
    }
    let number = match value.kind() {
        ValueKind::Bool => f64::from(u8::from(value.is_true())),
        _ => f64::try_from(value.clone())?,
    };
    let scale = 10f64.powi(precision);
    let rounded = match method.as_str() {
        // The formatter rounds the exact value, as Python does.
        "common" if (0..=300).contains(&precision) => {
            let digits = usize::try_from(precision).unwrap_or_default();
            format!("{number:.digits$}").parse().unwrap_or(number)
        }
        "common" if precision > 0 => number,
        "common" => (number * scale).round_ties_even() / scale,
        "ceil" => (number * scale).ceil() / scale,
        "floor" => (number * scale).floor() / scale,
        other => {
            return Err(refuse(format!(
                "round: the method is {other:?}, and not common, ceil or floor"
            )));
        }
    };
    Ok(if is_whole && method == "common" {
        Value::from(rounded as i128)
    } else {
        Value::from(rounded)
    })
}

/// `value | replace(old, new, count=none)`.
fn replace(value: &Value, old: &Value, new: &Value, args: Rest<Value>) -> Result<String, Error> {
    let (count, named): (Option<i64>, Kwargs) = from_args(&args)?;
    let count = either(count, &named, "count")?;
    named.assert_all_used()?;
    let (text, old, new) = (text_of(value)?, text_of(old)?, text_of(new)?);
    Ok(match count.and_then(|count| usize::try_from(count).ok()) {
        Some(count) => text.replacen(&old, &new, count),
        None => text.replace(&old, &new),
    })
}

/// `value | truncate(length=255, killwords=false, end='...', leeway=5)`. A text that is longer by
/// at most the leeway is unchanged.
fn truncate(value: &Value, args: Rest<Value>) -> Result<String, Error> {
    type Given = (
        Option<usize>,
        Option<bool>,
        Option<String>,
        Option<usize>,
        Kwargs,
    );
    let (length, inside_words, end, leeway, named): Given = from_args(&args)?;
    let length = either(length, &named, "length")?.unwrap_or(255);
    let inside_words = either(inside_words, &named, "killwords")?.unwrap_or(false);
    let end = either(end, &named, "end")?.unwrap_or_else(|| "...".to_owned());
    let leeway = either(leeway, &named, "leeway")?.unwrap_or(5);
    named.assert_all_used()?;
    let Some(kept) = length.checked_sub(end.chars().count()) else {
        return Err(refuse(format!(
            "truncate: {length} is less than the length of {end:?}"
        )));
    };
    let text = text_of(value)?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let cut = text
        .char_indices()
        .nth(kept)
        .map_or(text.len(), |(at, _)| at);
    let text = &text[..cut];
    let last = text.rfind(' ').filter(|_| !inside_words);
    Ok(format!("{}{end}", &text[..last.unwrap_or(text.len())]))
}

/// `value | wordcount`: words are letters, digits and underscores.
fn word_count(value: &Value) -> Result<usize, Error> {
    let text = text_of(value)?;
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    Ok(words.filter(|word| !word.is_empty()).count())
}

/// `value | center(width=80)`.
fn center(value: &Value, args: Rest<Value>) -> Result<String, Error> {
    let (width, named): (Option<i64>, Kwargs) = from_args(&args)?;
    let width = either(width, &named, "width")?.unwrap_or(80);
    named.assert_all_used()?;
    strings::center(&text_of(value)?, width)
}

/// `value | striptags`: without comments and tags, with single spaces, and with the characters
/// that common entities name.
fn strip_tags(value: &Value) -> Result<String, Error> {
    let text = without_tags(&text_of(value)?);
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(unescaped(&words.join(" ")))
}

fn without_tags(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(start) = rest.find('<') {
        let tag = &rest[start..];
        let end = match tag.strip_prefix("<!--") {
            Some(comment) => comment.find("-->").map(|at| at + "<!---->".len()),
            None => tag.find('>').map(|at| at + 1),
        };
        let Some(end) = end else { break };
        out.push_str(&rest[..start]);
        rest = &tag[end..];
    }
    out + rest
}

fn unescaped(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let entity = after.split_once(';');
        match entity.and_then(|(name, after)| Some((named(name)?, after))) {
            Some((character, after)) => {
                out.push(character);
                rest = after;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out + rest
}

/// The character that an entity names.
fn named(entity: &str) -> Option<char> {
    Some(match entity {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => '\u{a0}',
        _ => {
            let number = entity.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)?
        }
    })
}

/// `value | urlencode`: a text, or a map or a list of pairs as a query.
fn url_encode(value: &Value) -> Result<String, Error> {
    let pair = |key: &Value, value: &Value| -> Result<String, Error> {
        let part = |value: &Value| Ok::<_, Error>(quoted(&text_of(value)?, "").replace("%20", "+"));
        Ok(format!("{}={}", part(key)?, part(value)?))
    };
    let pairs: Result<Vec<String>, Error> = match value.kind() {
        ValueKind::Map => value
            .try_iter()?
            .map(|key| pair(&key, &value.get_item(&key)?))
            .collect(),
        ValueKind::Seq | ValueKind::Iterable => value
            .try_iter()?
            .map(|item| pair(&item.get_item_by_index(0)?, &item.get_item_by_index(1)?))
            .collect(),
        _ => return Ok(quoted(&text_of(value)?, "/")),
    };
    Ok(pairs?.join("&"))
}

/// The text with every other byte than letters, digits, `_.-~` and those of `safe` as `%XX`.
fn quoted(text: &str, safe: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let character = char::from(byte);
        if byte.is_ascii_alphanumeric() || "_.-~".contains(character) || safe.contains(character) {
            out.push(character);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
