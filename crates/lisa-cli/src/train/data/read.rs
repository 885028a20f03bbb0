//! [`read`]: reads, splits and encodes the data of a run. Tests: at the end, and `tests/run/`.

use std::path::Path;

use anyhow::Result;
use lisa_lm::text::RowStore;
use lisa_lm::{Checkpoint, Tokenizer};

use super::examples::{Examples, For};
use super::note::Note;
use super::part::{Cut, Part};
use super::rows::Data;
use super::{text, vocabulary};
use crate::machine::available_bytes;
use crate::settings::{Contents, Settings};
use crate::terminal::progress::Slow;
use crate::terminal::text::size;
use crate::train::score::Scorer;

/// Training and held-out data as tokens, with rows of at most the model's limit.
pub(crate) struct WholeData {
    examples: Examples,
    /// `None` if all rows are evaluated.
    train: Option<Part>,
    held_out: Option<Part>,
    scorer: Scorer,
    /// The tokenizer as the data needs it.
    tokenizer: Tokenizer,
    notes: Vec<Note>,
}

/// The memory of encoded rows, if it is not given and the machine does not say what it has.
const MEMORY: u64 = 1 << 30;

/// Reads the data of the settings, and encodes rows of at most `longest` tokens. For training, it is split
/// into training and held-out data; for evaluation, all of it is held out. Rows that are larger than
/// `--data-memory` are in a file in `folder`.
pub(crate) fn read(
    settings: &Settings,
    tokenizer: Tokenizer,
    longest: usize,
    folder: &Path,
    purpose: For,
) -> Result<WholeData> {
    let input = &settings.input;
    let mut prepare = text::Prepare::new(input, tokenizer);
    let see = |example: &_| prepare.see(example);
    let mut examples = match purpose {
        For::Training => Examples::read(input, settings.training.seed, see)?,
        For::Evaluation => Examples::to_evaluate(input, see)?,
    };
    let (tokenizer, prepared) = prepare.finish();
    let mut notes = std::mem::take(&mut examples.notes);
    notes.extend(prepared);

    let memory = match input.data_memory {
        0.0 => available_bytes().map_or(MEMORY, |bytes| bytes / 8),
        gib => (gib * f64::from(1 << 30)) as u64,
    };
    let store = RowStore::new(memory, folder);
    let options = input.encoding(longest);
    let part = |is_there: bool| is_there.then(|| Part::new(options, &store)).transpose();
    let mut train = part(examples.has_training())?;
    let mut held_out = part(examples.has_held_out())?;
    let mut scorer = Scorer::new(settings.output.metric, []);
    let (bar, all) = (Slow::items("tokenizing"), examples.len() as u64);
    let mut done = 0;
    examples.each(|kind, example| {
        example.answer.iter().for_each(|answer| scorer.see(answer));
        let part = match kind {
            For::Training => &mut train,
            For::Evaluation => &mut held_out,
        };
        if let Some(part) = part {
            part.push(example, &tokenizer)?;
        }
        done += 1;
        bar.set(done, all);
        Ok(())
    })?;
    for part in [&mut train, &mut held_out].into_iter().flatten() {
        part.end(&tokenizer)?;
    }
    if store.is_in_file() {
        notes.push(Note::Info(format!(
            "encoded rows: {} in a temporary file in `{}`, since they are more than {} \
             (--data-memory)",
            size(store.bytes()),
            folder.display(),
            size(memory)
        )));
    }
    Ok(WholeData {
        examples,
        train,
        held_out,
        scorer,
        tokenizer,
        notes,
    })
}

impl WholeData {
    /// What the data has, before pairs are rendered as chats.
    pub(crate) fn contents(&self) -> Contents {
        self.examples.contents
    }

    /// The number of tokens of each training row.
    pub(crate) fn lengths(&self) -> &[usize] {
        self.train.as_ref().map_or(&[], Part::lengths)
    }

    /// The number of tokens of each held-out row.
    pub(crate) fn held_out_lengths(&self) -> &[usize] {
        self.held_out.as_ref().map_or(&[], Part::lengths)
    }

    /// Of the training and the held-out rows, [those that are kept](Part::kept) within `limit` tokens, and all.
    pub(crate) fn kept(&self, limit: usize) -> [(usize, usize); 2] {
        let kept = |part: &Option<Part>| part.as_ref().map_or((0, 0), |part| part.kept(limit));
        [kept(&self.train), kept(&self.held_out)]
    }

    /// The data with rows of at most the tokens of `--max-seq-length`.
    pub(crate) fn cut(
        self,
        settings: &Settings,
        checkpoint: &Checkpoint,
    ) -> Result<(Data, Tokenizer)> {
        let (tokenizer, mut notes) = (self.tokenizer, self.notes);
        let limit = settings.input.max_seq_length;
        let cut = |part: Option<Part>| part.map(|part| part.cut(limit)).transpose();
        // Held-out rows that are not evaluated may all be too long.
        let is_needed = |part: &Part| !settings.output.no_eval || part.kept(limit).0 > 0;
        let (train, held_out) = (cut(self.train)?, cut(self.held_out.filter(is_needed))?);
        let parts: Vec<_> = [&train, &held_out].into_iter().flatten().collect();
        let vocab_size = vocabulary::rows(settings, &tokenizer, checkpoint, &parts, &mut notes)?;
        let [bad_training, bad_held_out] = self.examples.bad_lines();
        let summary = |part: &Option<Cut>, bad| {
            let summary = part.as_ref().map(|part| part.summary.clone());
            summary.map(|summary| summary.with_bad_lines(bad))
        };
        let train_summary = summary(&train, bad_training);
        let held_out_summary = summary(&held_out, bad_held_out);
        let (train, held_out) = (train.unwrap_or_default(), held_out.unwrap_or_default());
        let data = Data {
            train: train.set.examples,
            train_sources: train.set.sources,
            train_lengths: train.set.lengths,
            places: train.places,
            held_out: held_out.set.examples,
            held_out_sources: held_out.set.sources,
            examples: self.examples,
            scorer: self.scorer,
            fingerprints: [train.visited.rows, held_out.visited.rows],
            vocab_size,
            notes,
            train_summary,
            held_out_summary,
        };
        Ok((data, tokenizer))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use lisa_lm::text::shuffled;
    use serde_json::json;

    use super::super::rows::batches;
    use super::*;
    use crate::bundled;
    use crate::settings::{Flags, Metric};

    /// The settings of a run on rows with these answers, some of which are held out. The files are in a
    /// folder.
    fn settings(folder: &Path, answers: &[&str], held_out: &[&str]) -> Settings {
        let file = |name: &str, answers: &[&str]| {
            let rows = answers.iter().map(|answer| {
                json!({"instruction": "Is it?", "output": answer}).to_string() + "\n"
            });
            let path = folder.join(name);
            fs::write(&path, rows.collect::<String>()).unwrap();
            path
        };
        let mut settings = Flags::default().resolve(None).unwrap();
        settings.input.data = vec![file("train.jsonl", answers)];
        settings.input.eval = file("held.jsonl", held_out);
        settings
    }

    #[test]
    fn an_answer_of_training_rows_alone_is_a_choice() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = settings(dir.path(), &["maybe", "no"], &["no"]);
        settings.output.metric = Metric::Choice;
        let tokenizer = Tokenizer::from_dir(bundled::model().unwrap()).unwrap();
        let whole = read(&settings, tokenizer, 64, dir.path(), For::Training);
        let scorer = whole.unwrap().scorer;
        assert!(scorer.is_right("no", "perhaps, or no"));
        assert!(!scorer.is_right("no", "maybe, or no"));

        // If the held-out file alone is evaluated, its answers are the choices.
        settings.input.data = vec![std::mem::take(&mut settings.input.eval)];
        let tokenizer = Tokenizer::from_dir(bundled::model().unwrap()).unwrap();
        let whole = read(&settings, tokenizer, 64, dir.path(), For::Evaluation);
        assert!(whole.unwrap().scorer.is_right("no", "maybe, or no"));
    }

    #[test]
    fn batches_have_the_rows_in_the_order_of_the_seed() {
        let dir = tempfile::tempdir().unwrap();
        let answers = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let mut settings = settings(dir.path(), &answers, &["i"]);
        let folder = bundled::model().unwrap();
        let tokenizer = Tokenizer::from_dir(&folder).unwrap();
        let whole = read(&settings, tokenizer, 64, dir.path(), For::Training).unwrap();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let (data, tokenizer) = whole.cut(&settings, &checkpoint).unwrap();
        settings.training.batch_size = 1;
        for seed in [1, 2] {
            settings.training.seed = seed;
            let mut all = batches(&settings, &tokenizer, &data).unwrap();
            assert_eq!(all.per_epoch(), 8);
            let found: Vec<Vec<u32>> = (0..8)
                .map(|_| all.next_batch().rows()[0].tokens.clone())
                .collect();
            let rows = shuffled(8, seed, 0).into_iter();
            let expected: Vec<Vec<u32>> =
                rows.map(|row| data.train.get(row).unwrap().ids).collect();
            assert_eq!(found, expected, "{seed}");
        }
        settings.training.batch_size = 3;
        let all = batches(&settings, &tokenizer, &data).unwrap();
        assert_eq!(all.per_epoch(), 3);
    }
}
