//! Cells and rows of the tables, as Markdown.

use crate::stats::{Interval, Mean};

/// A mean; empty without one.
pub(super) fn cell(mean: Option<Mean>, digits: usize) -> String {
    mean.map_or(String::new(), |mean| mean.text(digits))
}

/// A mean difference; empty without one.
pub(super) fn change(mean: Option<Mean>, digits: usize) -> String {
    mean.map_or(String::new(), |mean| {
        let sign = if mean.mean < 0.0 { "" } else { "+" };
        format!("{sign}{}", mean.text(digits))
    })
}

/// A difference with its interval, and a star where the interval is clear. Of two seeds both differences:
/// they do not estimate an interval.
pub(super) fn difference(interval: Option<Interval>, digits: usize) -> String {
    interval.map_or(String::new(), |found| {
        if let [first, second] = found.of_seeds[..] {
            return format!("{first:+.digits$}, {second:+.digits$}");
        }
        let star = if found.is_clear() { " *" } else { "" };
        let Interval {
            mean, low, high, ..
        } = found;
        format!("{mean:+.digits$} [{low:+.digits$}, {high:+.digits$}]{star}")
    })
}

/// The first lines of a table.
pub(super) fn header(names: &[&str]) -> String {
    let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
    format!("{}|---|{}\n", row(&names), "--:|".repeat(names.len() - 1))
}

pub(super) fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}
