//! [`skippable`]: an error at a line of the data, with what to do.

/// An error at a line, with the flag that leaves such lines out.
pub(crate) fn skippable(error: lisa_lm::Error) -> lisa_lm::Error {
    if error.place().and_then(|(_, line)| line).is_none() {
        return error;
    }
    let skip = "leave such lines out with --on-bad-line skip";
    let rename = "name the keys, such as --columns Title=prompt,Body=completion; or ";
    let rename = if error.message().contains("columns can rename keys") {
        rename
    } else {
        ""
    };
    let help = match error.help() {
        None | Some("correct the line, or skip bad lines") => {
            format!("{rename}correct the line, or {skip}")
        }
        Some(help) if help.contains("chat template") => {
            format!("{help} (--chat-template); or {skip}")
        }
        Some(help) => format!("{help}; or {skip}"),
    };
    error.with_help(help)
}
