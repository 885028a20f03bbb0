//! Which files of a folder are read.

use super::*;

fn found(names: &[&str]) -> Result<[Vec<String>; 3], Error> {
    let dir = folder(&[]);
    for name in names {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{}").unwrap();
    }
    let files = data_files(&[dir.path()])?;
    Ok([files.train, files.valid, files.left_out].map(|files| {
        let name = |file: &PathBuf| file.strip_prefix(dir.path()).unwrap().display().to_string();
        files.iter().map(name).collect()
    }))
}

#[test]
fn the_words_of_a_path_decide_what_a_file_is_for() {
    let cases: [(&[&str], [&[&str]; 3]); 7] = [
        (
            &[
                "train.jsonl",
                "valid.jsonl",
                "test.jsonl",
                "other.jsonl",
                "README.md",
            ],
            [
                &["train.jsonl"],
                &["valid.jsonl"],
                &["other.jsonl", "test.jsonl"],
            ],
        ),
        (
            &[
                "data/train-00001-of-00002.parquet",
                "data/train-00000-of-00002.parquet",
                "data/validation-00000-of-00001.parquet",
                "data/test-00000-of-00001.parquet",
                "dataset_infos.json",
            ],
            [
                &[
                    "data/train-00000-of-00002.parquet",
                    "data/train-00001-of-00002.parquet",
                ],
                &["data/validation-00000-of-00001.parquet"],
                &["data/test-00000-of-00001.parquet"],
            ],
        ),
        // Without a word, each file is training data.
        (
            &["b.json", "a.csv.gz", "latest.tsv"],
            [&["a.csv.gz", "b.json", "latest.tsv"], &[], &[]],
        ),
        (
            &["a.jsonl", "my_dev.jsonl"],
            [&["a.jsonl"], &["my_dev.jsonl"], &[]],
        ),
        // A test is never trained on, also if its folder is for training.
        (
            &["train/test.jsonl", "train/1.jsonl"],
            [&["train/1.jsonl"], &[], &["train/test.jsonl"]],
        ),
        (
            &[".hidden/a.jsonl", "a/b/c.jsonl", "a/b/c/d/e/f/g.jsonl"],
            [&["a/b/c/d/e/f/g.jsonl", "a/b/c.jsonl"], &[], &[]],
        ),
        // Several folders below one with the word are one set.
        (
            &["train/en/0.jsonl", "train/fr/0.jsonl"],
            [&["train/en/0.jsonl", "train/fr/0.jsonl"], &[], &[]],
        ),
    ];
    for (names, wanted) in cases {
        assert_eq!(found(names).unwrap(), wanted, "{names:?}");
    }
}

#[test]
fn a_folder_without_training_data_or_with_it_twice_is_refused() {
    for (names, message) in [
        (&["test.jsonl", "valid.jsonl"][..], "has no training data"),
        (&["notes.txt"], "has no data"),
        (
            &["train.csv", "train.jsonl"],
            "perhaps the same data in two forms",
        ),
        (
            &[
                "main/train-0.parquet",
                "main/train-1.parquet",
                "socratic/train-0.parquet",
            ],
            "several sets of training data, in `main` and in `socratic`",
        ),
        (
            &["main/train/0.parquet", "socratic/train/0.parquet"],
            "several sets of training data, in `main` and in `socratic`",
        ),
        (&["1/2/3/4/5/6/7/8/9.jsonl"], "/1/2/3/4/5/6/7/8 is too deep"),
    ] {
        let error = found(names).unwrap_err();
        assert!(error.message().contains(message), "{error}");
    }
}

#[test]
fn a_file_that_is_named_is_read_whatever_its_name() {
    let dir = folder(&[("test.jsonl", "{\"text\": \"1\"}")]);
    let file = dir.path().join("test.jsonl");
    let files = data_files(&[&file]).unwrap();
    assert_eq!(files.to_string(), format!("training: {}", file.display()));
    assert_eq!(
        read_examples(&[file], &ReadOptions::default())
            .unwrap()
            .examples
            .len(),
        1
    );
}
