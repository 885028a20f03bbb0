//! The tokens of a row as text: each with its id, and the trained ones marked.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use lisa_lm::Tokenizer;
use lisa_lm::text::{Encoded, IGNORED};

use crate::terminal::text::printable;

/// Columns of a line of tokens.
const WIDTH: usize = 78;

/// Which tokens of a row are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// All.
    All,
    /// The first and the last few before and after each border between trained and other tokens.
    Borders,
}

/// How many tokens at each end of a run are shown with [`Show::Borders`], and how many runs.
const ENDS: usize = 6;
const RUNS: usize = 6;

/// The tokens with their ids, and their weights if they are not 1. Tokens in the loss are
/// in brackets, and green and bold.
pub(crate) fn tokens(row: &Encoded, tokenizer: &Tokenizer, show: Show) -> Result<String> {
    let mut lines = Lines::default();
    let mut start = 0;
    for (number, run) in (0..row.ids.len())
        .collect::<Vec<_>>()
        .chunk_by(|a, b| is_trained(row, *a) == is_trained(row, *b))
        .enumerate()
    {
        if show == Show::Borders && number == RUNS {
            break;
        }
        let elided = match show {
            Show::Borders if run.len() > 2 * ENDS + 2 => ENDS..run.len() - ENDS,
            _ => 0..0,
        };
        for (at, &index) in run.iter().enumerate() {
            if at == elided.start && !elided.is_empty() {
                lines.push(&format!("... {} more ...", elided.len()), None);
            }
            if elided.contains(&at) {
                continue;
            }
            let id = row.ids[index];
            let weight = row.weights.as_ref().map_or(1.0, |weights| weights[index]);
            let trained = is_trained(row, index);
            let mut after = format!(":{id}");
            if trained && weight != 1.0 {
                let _ = write!(after, "*{weight}");
            }
            let word = printable(&format!("{:?}", piece(row, index, tokenizer)?));
            lines.push(&word, Some((&after, trained)));
        }
        start += run.len();
    }
    if start < row.ids.len() {
        lines.push(&format!("... {} more", row.ids.len() - start), None);
    }
    Ok(lines.text)
}

/// The text of the row. What is trained is in double brackets, and green and bold; a weight that is not 1
/// follows it.
pub(crate) fn marked_text(row: &Encoded, tokenizer: &Tokenizer) -> Result<String> {
    let weight = |index: usize| match &row.weights {
        Some(weights) if is_trained(row, index) => weights[index],
        _ => 1.0,
    };
    let kind = |index: usize| (is_trained(row, index), weight(index).to_bits());
    let mut text = String::new();
    for run in (0..row.ids.len())
        .collect::<Vec<_>>()
        .chunk_by(|a, b| kind(*a) == kind(*b))
    {
        let part = printable(&added(row, run[0], run.len(), tokenizer)?);
        if !is_trained(row, run[0]) {
            text.push_str(&part);
            continue;
        }
        let style = AnsiColor::Green.on_default().bold();
        let _ = write!(text, "{style}[[{part}]]{style:#}");
        if weight(run[0]) != 1.0 {
            let _ = write!(text, "*{}", weight(run[0]));
        }
    }
    Ok(text)
}

/// The text that `count` tokens from `start` on add to the tokens before them.
fn added(row: &Encoded, start: usize, count: usize, tokenizer: &Tokenizer) -> Result<String> {
    let ids = &row.ids[start.saturating_sub(3)..start + count];
    let before = tokenizer.decode(&ids[..ids.len() - count], false)?;
    let with = tokenizer.decode(ids, false)?;
    match with.strip_prefix(&before) {
        Some(text) => Ok(text.to_owned()),
        // A character begins before these tokens.
        None => Ok(tokenizer.decode(&ids[ids.len() - count..], false)?),
    }
}

/// Whether the token is in the loss. The first token is not predicted, so it is never trained.
fn is_trained(row: &Encoded, index: usize) -> bool {
    index > 0 && row.labels[index] != IGNORED
}

/// The text that a token adds to the tokens before it; its entry in the vocabulary if that is no
/// text, such as a part of a character.
fn piece(row: &Encoded, index: usize, tokenizer: &Tokenizer) -> Result<String> {
    match added(row, index, 1, tokenizer)? {
        text if !text.is_empty() && !text.contains('\u{fffd}') => Ok(text),
        _ => {
            let entry = tokenizer.get_ref().id_to_token(row.ids[index]);
            Ok(entry.unwrap_or_else(|| "no token".to_owned()))
        }
    }
}

/// Words in lines of at most [`WIDTH`] columns.
#[derive(Default)]
struct Lines {
    text: String,
    column: usize,
}

impl Lines {
    /// Adds a word; `token`: what follows it, and whether it is trained.
    fn push(&mut self, word: &str, token: Option<(&str, bool)>) {
        let (after, trained) = token.unwrap_or_default();
        let (open, close) = if trained { ("[", "]") } else { ("", "") };
        let width = word.chars().count() + after.len() + open.len() * 2;
        if self.column > 0 && self.column + 1 + width > WIDTH {
            self.text.push('\n');
            self.column = 0;
        }
        if self.column > 0 {
            self.text.push(' ');
            self.column += 1;
        }
        self.column += width;
        let dimmed = Style::new().dimmed();
        let style = if trained {
            AnsiColor::Green.on_default().bold()
        } else {
            Style::new()
        };
        let _ = write!(
            self.text,
            "{style}{open}{word}{style:#}{dimmed}{after}{dimmed:#}{style}{close}{style:#}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundled;

    fn shown(row: &Encoded, show: Show) -> String {
        let tokenizer = Tokenizer::from_dir(bundled::model().unwrap()).unwrap();
        tokens(row, &tokenizer, show).unwrap()
    }

    fn plain(row: &Encoded, show: Show) -> String {
        anstream::adapter::strip_str(&shown(row, show)).to_string()
    }

    fn row(text: &str) -> Encoded {
        let tokenizer = Tokenizer::from_dir(bundled::model().unwrap()).unwrap();
        Encoded::all_trained(tokenizer.encode(text).unwrap())
    }

    #[test]
    fn trained_tokens_are_in_brackets_and_green() {
        let mut row = row("a red ring");
        row.labels[1] = IGNORED;
        let text = plain(&row, Show::All);
        // The first token is not predicted, and the second is not trained.
        assert_eq!(text.matches('[').count(), row.ids.len() - 2, "{text}");
        let coloured = shown(&row, Show::All);
        let green = AnsiColor::Green.on_default().bold().render().to_string();
        assert!(coloured.matches(&green).count() >= row.ids.len() - 2);
    }

    #[test]
    fn the_texts_of_the_tokens_are_those_of_the_row_and_weights_are_shown() {
        let mut row = row("a red ring");
        let mut weights = vec![1.0; row.ids.len()];
        weights[2] = 0.5;
        row.weights = Some(weights);
        let text = plain(&row, Show::All);
        let words = text.split('"').skip(1).step_by(2).collect::<String>();
        assert!(words.starts_with("a red ring"), "{text}");
        assert_eq!(text.matches("*0.5]").count(), 1, "{text}");
        assert_eq!(text.matches('*').count(), 1, "{text}");
    }

    #[test]
    fn a_row_as_text_has_its_trained_parts_in_brackets() {
        let tokenizer = Tokenizer::from_dir(bundled::model().unwrap()).unwrap();
        let text = |row: &Encoded| {
            let text = marked_text(row, &tokenizer).unwrap();
            anstream::adapter::strip_str(&text).to_string()
        };
        let mut encoded = row("a red ring\nin the park");
        let (ids, count) = (encoded.ids.clone(), encoded.ids.len());
        let of = |from: usize, to: usize| tokenizer.decode(&ids[from..to], false).unwrap();
        let all = of(1, count);
        assert!(all.contains("ring\nin the park"), "{all}");
        // The first token is never trained.
        assert_eq!(text(&encoded), format!("{}[[{all}]]", of(0, 1)));
        encoded.labels[1..3].fill(IGNORED);
        assert_eq!(text(&encoded), format!("{}[[{}]]", of(0, 3), of(3, count)));
        let mut weights = vec![1.0; count];
        weights[count - 1] = 0.5;
        encoded.weights = Some(weights);
        let (one, half) = (of(3, count - 1), of(count - 1, count));
        assert_eq!(
            text(&encoded),
            format!("{}[[{one}]][[{half}]]*0.5", of(0, 3))
        );
        assert_eq!(text(&row("a\u{1b}[2J")).matches('\u{1b}').count(), 0);
    }

    #[test]
    fn control_characters_of_a_row_are_escaped() {
        let text = shown(&row("a\u{1b}[2Jb\u{7}\n"), Show::All);
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert!(
            !plain.contains(|c: char| c.is_control() && c != '\n'),
            "{plain:?}"
        );
        assert!(plain.contains("1b"), "{plain}");
        assert_eq!(text.matches('\u{7}').count(), 0);
    }

    #[test]
    fn a_short_form_shows_the_borders_of_what_is_trained() {
        let mut row = Encoded::all_trained(vec![30; 60]);
        row.labels[..40].fill(IGNORED);
        row.ids[39] = 40;
        row.ids[40] = 41;
        let text = plain(&row, Show::Borders);
        assert!(text.contains("... 28 more ..."), "{text}");
        assert!(text.contains("... 8 more ..."), "{text}");
        assert!(text.contains(":40 [") && text.contains(":41]"), "{text}");
        assert_eq!(text.matches(":30").count(), 4 * ENDS - 2, "{text}");
    }
}
