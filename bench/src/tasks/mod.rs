//! `bench tasks`: makes the folders that the study trains on from published data sets.

mod gsm8k;
mod instruct;
mod pubmedqa;
mod row;
mod split;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::row::{Pool, Row};
use self::split::Task;
use crate::files;

/// Options of the tasks. The data sets are read as published; `docs/study.md` says where they are.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = true)]
pub(crate) struct Sources {
    /// Folder of GSM8K: `train.jsonl` and `test.jsonl`
    #[arg(long, value_name = "DIR")]
    gsm8k: Option<PathBuf>,
    /// Folder of `PubMedQA`: `ori_pqal.json` and `test_ground_truth.json`
    #[arg(long, value_name = "DIR")]
    pubmedqa: Option<PathBuf>,
    /// JSON array of rows with `instruction`, `input` and `output`
    #[arg(long, value_name = "FILE")]
    instruct: Option<PathBuf>,
}

/// Options of the command.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    sources: Sources,
    /// The folders `gsm8k`, `pubmedqa` and `instruct` are made in this folder; none may exist
    #[arg(long, value_name = "DIR", default_value = "runs/tasks")]
    out: PathBuf,
    /// Seed of the order of the rows, which decides the rows of the splits
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Reads the data sets, writes the tasks, and prints the rows of each.
pub(crate) fn run(options: &Options) -> Result<()> {
    type Read = fn(&Path) -> Result<Pool>;
    let sources: [(&str, &Option<PathBuf>, Read); 3] = [
        ("gsm8k", &options.sources.gsm8k, gsm8k::read),
        ("pubmedqa", &options.sources.pubmedqa, pubmedqa::read),
        ("instruct", &options.sources.instruct, instruct::read),
    ];
    let mut tasks = Vec::new();
    for (name, path, read) in sources {
        let Some(path) = path else { continue };
        let folder = options.out.join(name);
        ensure!(
            !folder.exists(),
            "`{}` exists and is not overwritten: remove it, or give another --out",
            folder.display()
        );
        let task = Task::new(read(path)?, options.seed)
            .with_context(|| format!("no task is made of `{}`", path.display()))?;
        tasks.push((name, folder, task));
    }
    // Nothing is written before every data set has been read.
    for (name, folder, task) in tasks {
        files::make_folder(&folder)?;
        for (file, rows) in task.files() {
            let lines: Vec<String> = rows.iter().map(Row::line).collect();
            files::write(&folder.join(file), &lines.concat())?;
        }
        println!("{name}: {task}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lisa_lm::text::{ReadOptions, read_examples};

    use super::*;

    /// Ten questions, of which the test file has four.
    fn options(dir: &Path) -> Options {
        let line = |n: usize| {
            format!("{{\"question\": \"{n} + 1?\", \"answer\": \"<<{n}+1>>Add.\\n#### {n}1\"}}\n")
        };
        let write = |file: &str, lines: std::ops::Range<usize>| {
            let text: String = lines.map(line).collect();
            std::fs::write(dir.join(file), text).unwrap();
        };
        write("train.jsonl", 0..6);
        write("test.jsonl", 6..10);
        Options {
            sources: Sources {
                gsm8k: Some(dir.to_path_buf()),
                pubmedqa: None,
                instruct: None,
            },
            out: dir.join("tasks"),
            seed: 1,
        }
    }

    #[test]
    fn the_files_are_chats_that_the_library_reads() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        run(&options).unwrap();
        let folder = options.out.join("gsm8k");
        for (file, rows) in [
            ("train.jsonl", 5),
            ("validation.jsonl", 1),
            ("heldout.jsonl", 4),
        ] {
            let read = read_examples(&[folder.join(file)], &ReadOptions::default()).unwrap();
            assert_eq!(read.examples.len(), rows, "{file}");
            for example in read.examples {
                let answer = example.answer.unwrap();
                assert!(answer.starts_with("Add.\n#### "), "{answer}");
            }
        }
        let text = std::fs::read_to_string(folder.join("heldout.jsonl")).unwrap();
        let row = r#"{"messages":[{"role":"user","content":"7 + 1?"},{"role":"assistant","content":"Add.\n#### 71"}]}"#;
        assert!(text.lines().any(|line| line == row), "{text}");
    }

    #[test]
    fn the_same_seed_writes_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path());
        let mut made = |out: &str, seed: u64| {
            options.out = dir.path().join(out);
            options.seed = seed;
            run(&options).unwrap();
            let path = options.out.join("gsm8k/train.jsonl");
            std::fs::read_to_string(path).unwrap()
        };
        let first = made("a", 1);
        assert_eq!(first, made("b", 1));
        assert_ne!(first, made("c", 2));
    }

    #[test]
    fn a_folder_that_exists_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        let folder = options.out.join("gsm8k");
        std::fs::create_dir_all(&folder).unwrap();
        let error = run(&options).unwrap_err().to_string();
        let wanted = format!(
            "`{}` exists and is not overwritten: remove it, or give another --out",
            folder.display()
        );
        assert_eq!(error, wanted);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }
}
