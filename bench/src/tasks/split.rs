//! [`Task`]: the three splits of a task.

use std::collections::HashMap;
use std::fmt;

use anyhow::{Result, ensure};

use super::row::{Pool, Row};
use crate::corpus::Choices;

/// The most rows of the splits that are scored.
const VALIDATION: usize = 128;
const HELDOUT: usize = 256;

/// The rows of a task. No prompt is in it twice.
#[derive(Debug)]
pub(super) struct Task {
    train: Vec<Row>,
    validation: Vec<Row>,
    heldout: Vec<Row>,
    /// Held-out and validation rows above the most that are scored.
    above: [usize; 2],
    unused: Vec<String>,
    remark: Option<String>,
}

impl Task {
    /// Drops rows whose prompt was read before, shuffles each split by the seed, and takes the first rows of
    /// the validation and held-out splits. If the data set has no validation rows, they are the last of
    /// the shuffled training rows: at most a fifth.
    pub(super) fn new(pool: Pool, seed: u64) -> Result<Self> {
        let mut unused = pool.unused;
        let mut prompts = HashMap::new();
        // A repeated prompt stays where it is scored.
        let [mut heldout, mut validation, mut train] = [pool.heldout, pool.validation, pool.train]
            .map(|rows| distinct(rows, &mut prompts, &mut unused));
        for (stream, rows) in [&mut heldout, &mut validation, &mut train]
            .into_iter()
            .enumerate()
        {
            shuffle(rows, seed, stream as u64);
        }
        if validation.is_empty() {
            validation = train.split_off(train.len() - (train.len() / 5).min(VALIDATION));
        }
        let above = [(&mut heldout, HELDOUT), (&mut validation, VALIDATION)].map(|(rows, most)| {
            let above = rows.len().saturating_sub(most);
            rows.truncate(most);
            above
        });
        for (name, rows) in [
            ("training", &train),
            ("validation", &validation),
            ("held-out", &heldout),
        ] {
            ensure!(
                !rows.is_empty(),
                "there are no {name} rows: {}",
                unused_text(&unused)
            );
        }
        Ok(Self {
            train,
            validation,
            heldout,
            above,
            unused,
            remark: pool.remark,
        })
    }

    /// The names of the files, with their rows.
    pub(super) fn files(&self) -> [(&'static str, &[Row]); 3] {
        [
            ("train.jsonl", &self.train),
            ("validation.jsonl", &self.validation),
            ("heldout.jsonl", &self.heldout),
        ]
    }
}

/// The rows whose prompts were not read before; the others are named in `unused`.
fn distinct(
    rows: Vec<Row>,
    prompts: &mut HashMap<String, String>,
    unused: &mut Vec<String>,
) -> Vec<Row> {
    let mut distinct = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(first) = prompts.get(&row.prompt) {
            unused.push(format!("{}: the prompt is that of {first}", row.place));
        } else {
            prompts.insert(row.prompt.clone(), row.place.clone());
            distinct.push(row);
        }
    }
    distinct
}

fn shuffle(rows: &mut Vec<Row>, seed: u64, stream: u64) {
    let places: Vec<usize> = (0..rows.len()).collect();
    let order = Choices::new(seed, stream).some(&places, places.len());
    *rows = order.iter().map(|&place| rows[place].clone()).collect();
}

/// How many rows cannot be used, and the first ten of them.
fn unused_text(unused: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = format!("{} rows cannot be used", unused.len());
    for row in unused.iter().take(SHOWN) {
        text += &format!("\n  {row}");
    }
    if unused.len() > SHOWN {
        text += &format!("\n  and {} more", unused.len() - SHOWN);
    }
    text
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} training, {} validation and {} held-out rows",
            self.train.len(),
            self.validation.len(),
            self.heldout.len()
        )?;
        for (count, name) in self.above.into_iter().zip(["held-out", "validation"]) {
            if count > 0 {
                write!(f, "; {count} more {name} rows are not needed")?;
            }
        }
        if let Some(remark) = &self.remark {
            write!(f, "\n{remark}")?;
        }
        if self.unused.is_empty() {
            return Ok(());
        }
        write!(f, "\n{}", unused_text(&self.unused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(prompts: std::ops::Range<usize>) -> Vec<Row> {
        let row = |n: usize| Row {
            place: format!("file:{n}"),
            prompt: format!("question {n}"),
            answer: "yes".into(),
        };
        prompts.map(row).collect()
    }

    #[test]
    fn scored_splits_have_a_maximum_and_the_rest_is_counted() {
        let pool = Pool {
            train: rows(0..700),
            heldout: rows(1000..1300),
            ..Pool::default()
        };
        let task = Task::new(pool.clone(), 1).unwrap();
        let text = "572 training, 128 validation and 256 held-out rows; 44 more held-out rows are not needed";
        assert_eq!(task.to_string(), text);
        // Every training row is in one of the two splits, in another order.
        let mut found = [task.train.clone(), task.validation.clone()].concat();
        assert_ne!(found, pool.train);
        found.sort_by_key(|row| row.place[5..].parse::<usize>().unwrap());
        assert_eq!(found, pool.train);
        assert!(task.heldout.iter().all(|row| pool.heldout.contains(row)));
        // The first held-out rows are not the first of the file.
        assert_ne!(task.heldout, pool.heldout[..256]);
    }

    #[test]
    fn a_fifth_of_a_small_set_is_for_validation() {
        let pool = Pool {
            train: rows(0..14),
            heldout: rows(20..21),
            ..Pool::default()
        };
        let task = Task::new(pool, 1).unwrap();
        assert_eq!((task.train.len(), task.validation.len()), (12, 2));
    }

    #[test]
    fn a_repeated_prompt_is_only_held_out() {
        let pool = Pool {
            train: [rows(0..6), rows(3..4), rows(6..7)].concat(),
            validation: rows(6..8),
            heldout: rows(0..2),
            ..Pool::default()
        };
        let task = Task::new(pool, 1).unwrap();
        let text = "4 training, 2 validation and 2 held-out rows\n4 rows cannot be used\n  \
            file:0: the prompt is that of file:0\n  file:1: the prompt is that of file:1\n  \
            file:3: the prompt is that of file:3\n  file:6: the prompt is that of file:6";
        assert_eq!(task.to_string(), text);
    }

    #[test]
    fn an_empty_split_is_an_error_with_the_reasons() {
        let pool = Pool {
            train: rows(0..10),
            unused: (1..13).map(|n| format!("file:{n}: odd")).collect(),
            ..Pool::default()
        };
        let error = Task::new(pool, 1).unwrap_err().to_string();
        let start =
            "there are no held-out rows: 12 rows cannot be used\n  file:1: odd\n  file:2: odd\n";
        assert!(error.starts_with(start), "{error}");
        assert!(error.ends_with("\n  file:10: odd\n  and 2 more"), "{error}");
    }
}
