//! The model card of a run, `README.md`, as far as `lisa export` changes it.

use std::path::Path;

use crate::run_folder;
use crate::settings::Dtype;

/// The file of a card.
pub(crate) const CARD: &str = "README.md";
/// The end of the title.
pub(crate) const OURS: &str = " fine-tuned with `lisa`";
/// The name of the row with the dtype of the run.
pub(crate) const DTYPE: &str = "dtype";

/// The card that a run wrote for the model, or the adapter, of a step in one of these folders.
pub(crate) fn card_of(run: &Path, names: &[&str], step: u64) -> Option<String> {
    let mut folders = names.iter().map(|name| run.join(name));
    let folder = folders.find(|folder| run_folder::step_of_model(folder) == Some(step))?;
    lisa_lm::files::read_small_text(&folder.join(CARD)).ok()
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

/// Whether the folder has a card of this program.
pub(crate) fn has_card(folder: &Path) -> bool {
    let text = lisa_lm::files::read_small_text(&folder.join(CARD));
    text.is_ok_and(|text| {
        text.lines()
            .any(|line| line.starts_with("# ") && line.ends_with(OURS))
    })
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
    fn a_card_of_others_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_card(dir.path()));
        std::fs::write(
            dir.path().join(CARD),
            "# Mine\n\nIt was fine-tuned with `lisa`\n",
        )
        .unwrap();
        assert!(!has_card(dir.path()));
        std::fs::write(
            dir.path().join(CARD),
            "---\n---\n\n# A fine-tuned with `lisa`\n",
        )
        .unwrap();
        assert!(has_card(dir.path()));
    }
}
