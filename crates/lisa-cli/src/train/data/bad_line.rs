//! [`skippable`]: an error at a line or row of the data, with what to do.

/// An error at a line or row, with the flag that leaves such lines out.
pub(crate) fn skippable(error: lisa_lm::Error) -> lisa_lm::Error {
    let what = match (error.place(), error.row()) {
        (Some((_, Some(_))), _) => "line",
        (_, Some(_)) => "row",
        (_, None) => return error,
    };
    let skip = format!("leave such {what}s out with --on-bad-line skip");
    let rename = "name the keys, such as --columns Title=prompt,Body=completion; or ";
    let rename = if error.message().contains("columns can rename keys") {
        rename
    } else {
        ""
    };
    let help = match error.help() {
        None | Some("correct the line, or skip bad lines") => {
            format!("{rename}correct the {what}, or {skip}")
        }
        Some(help) if help.contains("chat template") => {
            format!("{help} (--chat-template); or {skip}")
        }
        Some(help) => format!("{help}; or {skip}"),
    };
    error.with_help(help)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lisa_lm::text::Place;
    use lisa_lm::{Error, ErrorKind};

    use super::*;

    #[test]
    fn an_error_at_a_line_or_a_row_has_the_flag_that_leaves_it_out() {
        let file = Path::new("a");
        let error = || Error::new(ErrorKind::Data, "no text");
        let help = |error: Error| skippable(error).help().map(str::to_owned);
        for (place, what) in [
            (Place::at_line(file, 2), "line"),
            (Place::at_row(file, 2), "row"),
        ] {
            let found = help(error().at(&place)).unwrap();
            let expected =
                format!("correct the {what}, or leave such {what}s out with --on-bad-line skip");
            assert_eq!(found, expected);
        }
        assert_eq!(help(error().with_place(file, None)), None);
    }
}
