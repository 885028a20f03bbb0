//! Methods of Python's strings that the engine lacks: padding and the case of letters.

use minijinja::Error;
use minijinja::value::{Kwargs, Value, from_args};

use super::refusal::refuse;

/// The maximum width that a text is padded to, in characters.
const WIDTH: usize = 1 << 20;

/// What the method returns; `None` if it is not one of these.
pub(super) fn method(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let result = match name {
        "ljust" | "rjust" | "center" => {
            let (width, fill): (i64, Option<char>) = from_args(args)?;
            let missing = missing(text, width)?;
            let left = match name {
                "ljust" => 0,
                "rjust" => missing,
                _ => left_of_center(missing, width),
            };
            padded(text, left, missing - left, fill.unwrap_or(' '))
        }
        "zfill" => {
            let (width,): (i64,) = from_args(args)?;
            let zeros = "0".repeat(missing(text, width)?);
            let sign = usize::from(text.starts_with(['+', '-']));
            format!("{}{zeros}{}", &text[..sign], &text[sign..])
        }
        "expandtabs" => {
            let (size, named): (Option<i64>, Kwargs) = from_args(args)?;
            let size = match size {
                Some(size) => Some(size),
                None => named.get("tabsize")?,
            };
            named.assert_all_used()?;
            expand_tabs(text, size.unwrap_or(8))?
        }
        "swapcase" => {
            let () = from_args(args)?;
            text.chars().map(swapped).collect()
        }
        "casefold" => {
            let () = from_args(args)?;
            let upper = text.chars().flat_map(|c| match c {
                // Its upper case is the one of `i`, which is another letter.
                'ı' => vec![c],
                _ => c.to_uppercase().collect(),
            });
            upper.flat_map(char::to_lowercase).collect()
        }
        _ => return Ok(None),
    };
    Ok(Some(Value::from(result)))
}

/// Text between spaces, at least `width` characters wide.
pub(super) fn center(text: &str, width: i64) -> Result<String, Error> {
    let missing = missing(text, width)?;
    let left = left_of_center(missing, width);
    Ok(padded(text, left, missing - left, ' '))
}

/// How many characters a text has less than `width`.
fn missing(text: &str, width: i64) -> Result<usize, Error> {
    let width = usize::try_from(width).unwrap_or(0);
    if width > WIDTH {
        let message = format!("a text cannot be padded to more than {WIDTH} characters");
        return Err(refuse(message));
    }
    Ok(width.saturating_sub(text.chars().count()))
}

/// The odd character is on the left if the width is odd too.
fn left_of_center(missing: usize, width: i64) -> usize {
    missing / 2 + usize::from(missing % 2 == 1 && width % 2 == 1)
}

fn padded(text: &str, left: usize, right: usize, fill: char) -> String {
    let fill = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
    format!("{}{text}{}", fill(left), fill(right))
}

fn expand_tabs(text: &str, size: i64) -> Result<String, Error> {
    let size = usize::try_from(size).unwrap_or(0);
    missing("", i64::try_from(size).unwrap_or(i64::MAX))?;
    let (mut out, mut column) = (String::new(), 0);
    for character in text.chars() {
        match character {
            '\t' if size == 0 => {}
            '\t' => {
                let spaces = size - column % size;
                out.push_str(&" ".repeat(spaces));
                column += spaces;
            }
            '\n' | '\r' => {
                out.push(character);
                column = 0;
            }
            _ => {
                out.push(character);
                column += 1;
            }
        }
    }
    Ok(out)
}

fn swapped(character: char) -> String {
    if character.is_uppercase() {
        character.to_lowercase().collect()
    } else {
        character.to_uppercase().collect()
    }
}
