//! The model card of a run, `README.md`, as far as `lisa export` changes it.

use std::path::Path;

use crate::run_folder::{self, CARD};
use crate::settings::Dtype;

/// The end of the title.
pub(crate) const OURS: &str = " fine-tuned with `lisa`";
/// The name of the row with the dtype of the run.
pub(crate) const DTYPE: &str = "dtype";

/// The card that a run wrote for the model, or the adapter, of a step in one of these folders.
pub(crate) fn card_of(run: &Path, names: &[&str], step: u64) -> Option<String> {
    let mut folders = names.iter().map(|name| run.join(name));
    let folder = folders.find(|folder| run_folder::step_of_model(folder) == Some(step))?;
    let text = lisa_lm::files::read_small_text(&folder.join(CARD)).ok()?;
    Some(without_best(&text))
}

/// The card without the paragraph that names the folder of a better checkpoint, which is in the run only.
fn without_best(card: &str) -> String {
    let is_of_best = |paragraph: &str| {
        let ends = ["`model-best`.", "`adapter-best`."];
        paragraph.starts_with("The checkpoint of step ")
            && ends.iter().any(|end| paragraph.ends_with(end))
    };
    let mut paragraphs: Vec<&str> = card.split("\n\n").collect();
    paragraphs.retain(|paragraph| !is_of_best(paragraph));
    paragraphs.join("\n\n")
}

/// The card of a model that was converted to another dtype.
pub(crate) fn converted(card: &str, dtype: Dtype) -> String {
    let start = format!("| {DTYPE} | ");
    let lines = card.lines().map(|line| {
        let trained = line
            .strip_prefix(&start)
            .and_then(|rest| rest.strip_suffix(" |"));
        match trained {
            Some(trained) => format!("{start}{dtype}, trained in {trained} |\n"),
            None => format!("{line}\n"),
        }
    });
    lines.collect()
}

/// The card in a folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is none.
    None,
    /// One of this program, with this text. The user may have changed it.
    Ours(String),
    /// A file that this program has not written.
    Foreign,
}

impl Found {
    /// Looks for a card in the folder.
    pub(crate) fn of(folder: &Path) -> Self {
        let path = folder.join(CARD);
        if path.symlink_metadata().is_err() {
            return Self::None;
        }
        let is_ours = |text: &String| {
            text.lines()
                .any(|line| line.starts_with("# ") && line.ends_with(OURS))
        };
        let text = lisa_lm::files::read_small_text(&path);
        match text.ok().filter(is_ours) {
            Some(text) => Self::Ours(text),
            None => Self::Foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_converted_model_has_both_dtypes() {
        let card = "---\n---\n\n| data | dtype | 3 |\n| dtype | f32 |\n";
        assert_eq!(
            converted(card, Dtype::Bf16),
            "---\n---\n\n| data | dtype | 3 |\n| dtype | bf16, trained in f32 |\n"
        );
    }

    #[test]
    fn the_paragraph_about_a_folder_of_the_run_is_left_out() {
        let best = "The checkpoint of step 3 has a lower held-out loss, 1.5; its model is in `model-best`.";
        let (before, after) = ("---\n---\n\n# A", "| | |\n|---|---|\n| a | b |\n");
        let without = format!("{before}\n\n{after}");
        assert_eq!(
            without_best(&format!("{before}\n\n{best}\n\n{after}")),
            without
        );
        assert_eq!(without_best(&without), without);
    }

    #[test]
    fn a_card_of_others_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let found = |text: &[u8]| {
            std::fs::write(dir.path().join(CARD), text).unwrap();
            Found::of(dir.path())
        };
        assert_eq!(Found::of(dir.path()), Found::None);
        let mine = b"# Mine\n\nIt was fine-tuned with `lisa`\n";
        assert_eq!(found(mine), Found::Foreign);
        assert_eq!(found(b"\xff"), Found::Foreign);
        let ours = "---\n---\n\n# A fine-tuned with `lisa`\n";
        assert_eq!(found(ours.as_bytes()), Found::Ours(ours.to_owned()));
    }
}
