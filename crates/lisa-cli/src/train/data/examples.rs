//! The examples of a run, as `--data`, `--eval` and their neighbours name them. They are read from
//! their files when they are needed, one after the other, and never all held in memory.

use std::collections::BTreeMap;

use anyhow::Result;
use lisa_lm::text::{BadLines, Content, Example, ExampleReader, ReadOptions, split};

use super::bad_line::skippable;
use super::files::{Files, evaluated};
use super::note::Note;
use super::text::rendered;
use crate::settings::{Contents, InputSettings, Pairs};
use crate::terminal::progress::Slow;
use crate::user_error::require;

/// Training and held-out examples.
#[derive(Debug)]
pub(crate) struct Examples {
    /// `None` if all examples are evaluated.
    train: Option<ExampleReader>,
    held_out: HeldOut,
    /// The number of training examples, and of held-out ones.
    counts: [usize; 2],
    pairs: Pairs,
    /// What was read as what: files and forms.
    pub(super) notes: Vec<Note>,
    /// What the data has, before pairs are rendered as chats.
    pub(crate) contents: Contents,
}

/// Where the held-out examples are.
#[derive(Debug)]
enum HeldOut {
    /// In files of their own.
    Files(Box<ExampleReader>),
    /// In the training files; for each example there, whether it is held out.
    Share(Vec<bool>),
}

/// What an example is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    Training,
    Evaluation,
}

impl Examples {
    /// Reads all examples once, and passes them to `see`. The held-out ones are those of `--eval`, or
    /// of the held-out files in folders of `--data`, or a share of the data.
    pub(crate) fn read(
        input: &InputSettings,
        seed: u64,
        see: impl FnMut(&Example) -> Result<()>,
    ) -> Result<Self> {
        let options = options(input);
        let files = Files::of(input)?;
        let mut reading = Reading::new(see);
        let mut notes = Vec::new();
        let mut train = ExampleReader::open(&files.data.train, &options)?;
        let answers = reading.all(&mut train)?;
        let count = answers.len();
        if !files.is_bundled {
            notes.push(noted("training", &train));
            if !(files.data.left_out.is_empty() && files.data.unread.is_empty()) {
                notes.push(Note::Info(files.data.to_string()));
            }
        }
        let (held_out, counts, has_answers) = if files.data.valid.is_empty() {
            let is_held_out = share(input, count, seed)?;
            if let Some(file) = files.repeated().filter(|_| is_held_out.contains(&true)) {
                notes.push(Note::Warning(format!(
                    "`{}` is there twice, so held-out rows are also trained on; name it once, or give \
                     --eval FILE",
                    file.display()
                )));
            }
            let held_out: Vec<bool> = (is_held_out.iter().zip(answers))
                .filter_map(|(is_held_out, has_answer)| is_held_out.then_some(has_answer))
                .collect();
            let counts = [count - held_out.len(), held_out.len()];
            (
                HeldOut::Share(is_held_out),
                counts,
                held_out.contains(&true),
            )
        } else {
            let mut reader = ExampleReader::open(&files.data.valid, &options)?;
            let answers = reading.all(&mut reader)?;
            if !files.is_bundled {
                notes.push(noted("held-out", &reader));
            }
            let counts = [count, answers.len()];
            (
                HeldOut::Files(Box::new(reader)),
                counts,
                answers.contains(&true),
            )
        };
        Ok(Self {
            train: Some(train),
            held_out,
            counts,
            pairs: input.pairs,
            notes,
            contents: Contents {
                held_out: counts[1] > 0,
                held_out_files: !files.data.valid.is_empty() && input.eval.as_os_str().is_empty(),
                answers: has_answers,
                pairs: reading.pairs,
                chats: reading.chats,
            },
        })
    }

    /// Reads all examples of `--data` once, and passes them to `see`. All of them are evaluated.
    pub(crate) fn to_evaluate(
        input: &InputSettings,
        see: impl FnMut(&Example) -> Result<()>,
    ) -> Result<Self> {
        let files = evaluated(&input.data, "data")?;
        let mut reading = Reading::new(see);
        let mut reader = ExampleReader::open(&files.valid, &options(input))?;
        let answers = reading.all(&mut reader)?;
        let mut notes = vec![noted("held-out", &reader)];
        if !(files.left_out.is_empty() && files.unread.is_empty()) {
            notes.push(Note::Info(files.to_string()));
        }
        Ok(Self {
            train: None,
            counts: [0, answers.len()],
            pairs: input.pairs,
            notes,
            held_out: HeldOut::Files(Box::new(reader)),
            contents: Contents {
                held_out: true,
                held_out_files: false,
                answers: answers.contains(&true),
                pairs: reading.pairs,
                chats: reading.chats,
            },
        })
    }

    /// The number of all examples.
    pub(crate) fn len(&self) -> usize {
        self.counts.iter().sum()
    }

    /// Whether there are examples to train on.
    pub(crate) fn has_training(&self) -> bool {
        self.train.is_some()
    }

    /// Whether there are held-out examples.
    pub(crate) fn has_held_out(&self) -> bool {
        self.counts[1] > 0
    }

    /// The lines of the training files and of the held-out files that cannot be used. Those of the held-out
    /// share are among those of the training files.
    pub(crate) fn bad_lines(&self) -> [Option<&BadLines>; 2] {
        let held_out = match &self.held_out {
            HeldOut::Files(reader) => Some(reader.skipped()),
            HeldOut::Share(_) => None,
        };
        [self.train.as_ref().map(ExampleReader::skipped), held_out]
    }

    /// Reads the files again, and passes each example to `take`.
    pub(crate) fn each(&self, mut take: impl FnMut(For, Example) -> Result<()>) -> Result<()> {
        let mut found = [0; 2];
        let own = match &self.held_out {
            HeldOut::Files(reader) => Some(reader.again()),
            HeldOut::Share(_) => None,
        };
        let own = own.into_iter().flatten();
        let own = own.map(|example| (For::Evaluation, example));
        for (kind, example) in self.of_training_files().chain(own) {
            found[kind as usize] += 1;
            take(kind, rendered(example.map_err(skippable)?, self.pairs))?;
        }
        self.require_unchanged(found == self.counts)
    }

    /// Reads the held-out examples with these indices, which are returned in this order.
    pub(crate) fn held_out(&self, wanted: &[usize]) -> Result<Vec<Example>> {
        let mut places: BTreeMap<usize, usize> = (wanted.iter().copied()).zip(0..).collect();
        let mut found = vec![None; wanted.len()];
        let mut take = |index: usize, example: Result<Example, lisa_lm::Error>| {
            if let Some(place) = places.remove(&index) {
                found[place] = Some(rendered(example.map_err(skippable)?, self.pairs));
            }
            Ok::<_, anyhow::Error>(places.is_empty())
        };
        if !wanted.is_empty() {
            match &self.held_out {
                HeldOut::Files(reader) => first_true(reader.again(), &mut take)?,
                HeldOut::Share(_) => {
                    let all = self.of_training_files();
                    let all = all.filter(|(kind, _)| *kind == For::Evaluation);
                    first_true(all.map(|(_, example)| example), &mut take)?;
                }
            }
        }
        let found: Option<Vec<Example>> = found.into_iter().collect();
        self.require_unchanged(found.is_some())?;
        Ok(found.unwrap_or_default())
    }

    /// The examples of the training files, and what they are for.
    fn of_training_files(
        &self,
    ) -> impl Iterator<Item = (For, Result<Example, lisa_lm::Error>)> + '_ {
        let kind = |index: usize| match &self.held_out {
            HeldOut::Share(is_held_out) if is_held_out.get(index) == Some(&true) => For::Evaluation,
            _ => For::Training,
        };
        let all = self.train.iter().flat_map(ExampleReader::again).enumerate();
        all.map(move |(index, example)| (kind(index), example))
    }

    fn require_unchanged(&self, is_unchanged: bool) -> Result<()> {
        let reader = match (&self.train, &self.held_out) {
            (Some(reader), _) => Some(reader),
            (None, HeldOut::Files(reader)) => Some(&**reader),
            (None, HeldOut::Share(_)) => None,
        };
        let file = reader.and_then(|reader| reader.files().first());
        let file = file.map(|file| file.display().to_string());
        require!(
            is_unchanged,
            "start again when nothing writes to the data",
            "`{}` or another file of the data has changed while it was read",
            file.unwrap_or_default()
        );
        Ok(())
    }
}

/// How files are read.
fn options(input: &InputSettings) -> ReadOptions {
    ReadOptions {
        on_bad: input.on_bad_line.into(),
        columns: input.columns.clone(),
    }
}

/// Passes each example with its index to `take`, until that returns true.
fn first_true(
    examples: impl Iterator<Item = Result<Example, lisa_lm::Error>>,
    mut take: impl FnMut(usize, Result<Example, lisa_lm::Error>) -> Result<bool>,
) -> Result<()> {
    for (index, example) in examples.enumerate() {
        if take(index, example)? {
            break;
        }
    }
    Ok(())
}

/// Reads files for the first time.
struct Reading<See> {
    see: See,
    bar: Slow,
    /// Examples so far.
    done: u64,
    /// Whether there were pairs, and chats.
    pairs: bool,
    chats: bool,
}

impl<See: FnMut(&Example) -> Result<()>> Reading<See> {
    fn new(see: See) -> Self {
        Self {
            see,
            bar: Slow::count("reading the data"),
            done: 0,
            pairs: false,
            chats: false,
        }
    }

    /// For each example of a reader, whether it has an answer.
    fn all(&mut self, reader: &mut ExampleReader) -> Result<Vec<bool>> {
        let mut answers = Vec::new();
        for example in reader {
            let example = example.map_err(skippable)?;
            (self.see)(&example)?;
            self.pairs |= matches!(example.content, Content::Pair { .. });
            self.chats |= matches!(example.content, Content::Chat(_));
            answers.push(example.answer.is_some());
            self.done += 1;
            self.bar.set(self.done, self.done);
        }
        Ok(answers)
    }
}

/// For each of `count` examples, whether it is in the share that is held out.
fn share(input: &InputSettings, count: usize, seed: u64) -> Result<Vec<bool>> {
    require!(
        count > 1 || input.eval_fraction == 0.0,
        "train without held-out examples with --eval-fraction 0, or give --eval FILE",
        "`{}` has one example, so none can be held out",
        input.data[0].display()
    );
    let (_, held_out) = split((0..count).collect::<Vec<_>>(), input.eval_fraction, seed)?;
    let mut is_held_out = vec![false; count];
    for index in held_out {
        is_held_out[index] = true;
    }
    Ok(is_held_out)
}

fn noted(what: &str, read: &ExampleReader) -> Note {
    Note::Info(format!("{what} files: {}", read.mapping()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::settings::Flags;

    /// A file of texts, and what `Examples` reads of it with these held out of it.
    fn read(texts: usize, fraction: f64) -> (tempfile::TempDir, Examples) {
        let dir = tempfile::tempdir().unwrap();
        let rows = (0..texts).map(|n| format!("{{\"text\": \"{n}\"}}\n"));
        fs::write(dir.path().join("a.jsonl"), rows.collect::<String>()).unwrap();
        let mut input = Flags::default().resolve(None).unwrap().input;
        input.data = vec![dir.path().join("a.jsonl")];
        input.eval_fraction = fraction;
        let mut seen = 0;
        let examples = Examples::read(&input, 7, |_| {
            seen += 1;
            Ok(())
        });
        assert_eq!(seen, texts);
        (dir, examples.unwrap())
    }

    fn line(example: &Example) -> usize {
        example.place.as_ref().unwrap().line().unwrap()
    }

    #[test]
    fn the_held_out_examples_are_those_of_a_split_and_are_read_again_by_index() {
        let (_dir, examples) = read(30, 0.2);
        let (train, held_out) = split((1..=30).collect(), 0.2, 7).unwrap();
        let mut found = [Vec::new(), Vec::new()];
        let each = examples.each(|kind, example| {
            found[kind as usize].push(line(&example));
            Ok(())
        });
        each.unwrap();
        assert_eq!(found, [train, held_out.clone()]);
        assert!(examples.has_held_out() && examples.len() == 30);
        let again = examples.held_out(&[5, 0, 3]).unwrap();
        let again: Vec<usize> = again.iter().map(line).collect();
        assert_eq!(again, [held_out[5], held_out[0], held_out[3]]);
    }

    #[test]
    fn data_that_changes_while_it_is_read_is_an_error() {
        let (dir, examples) = read(30, 0.2);
        for rows in [29, 31] {
            let text = "{\"text\": \"a\"}\n".repeat(rows);
            fs::write(dir.path().join("a.jsonl"), text).unwrap();
            let error = examples.each(|_, _| Ok(())).unwrap_err();
            let message = error.to_string();
            assert!(
                message.contains("has changed while it was read"),
                "{message}"
            );
        }
        fs::write(dir.path().join("a.jsonl"), "{\"text\": \"a\"}\n").unwrap();
        assert!(examples.held_out(&[5]).is_err());
    }
}
