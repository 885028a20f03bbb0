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
    let cases: [(&[&str], [&[&str]; 3]); 9] = [
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
        // Files that are not named as splits may be parts of one set.
        (
            &["train_a.jsonl", "train_b.jsonl"],
            [&["train_a.jsonl", "train_b.jsonl"], &[], &[]],
        ),
        (
            &[
                "train_sft-00000-of-00002.json",
                "train_sft-00001-of-00002.json",
            ],
            [
                &[
                    "train_sft-00000-of-00002.json",
                    "train_sft-00001-of-00002.json",
                ],
                &[],
                &[],
            ],
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
        // Splits of a data set, as the hub names their files, or its folders of Parquet files.
        (
            &[
                "data/train_gen-00000-of-00001-0a1b2c3d4e5f6a7b.parquet",
                "data/train_sft-00000-of-00001-7b6a5f4e3d2c1b0a.parquet",
            ],
            "several sets of training data, in `data/train_gen` and in `data/train_sft`",
        ),
        (
            &["train/0000.parquet", "train_sft/0000.parquet"],
            "several sets of training data, in `.` and in `train_sft`",
        ),
        (&["1/2/3/4/5/6/7/8/9.jsonl"], "/1/2/3/4/5/6/7/8 is too deep"),
    ] {
        let error = found(names).unwrap_err();
        assert!(error.message().contains(message), "{error}");
    }
}

/// A folder with these files.
type Files<'a> = &'a [(&'a str, &'a [u8])];

fn folder_of(files: Files<'_>) -> tempfile::TempDir {
    let dir = folder(&[]);
    for (name, bytes) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    dir
}

const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const ROW: &[u8] = b"{\"text\": \"a\"}";

#[test]
fn files_in_forms_that_are_not_read_are_listed() {
    let dir = folder_of(&[
        ("a.jsonl", ROW),
        ("b.jsonl.zst", ZSTD),
        ("c.TXT", b"notes"),
        ("d.jsonl.bak", ROW),
        ("e/f.arrow", b"ARROW1"),
        ("README.md", b""),
        ("dataset_info.json", b"{}"),
        ("run.py", b""),
    ]);
    let files = data_files(&[dir.path()]).unwrap();
    let path = |name| dir.path().join(name);
    assert_eq!(files.train, [path("a.jsonl")]);
    let unread = ["b.jsonl.zst", "c.TXT", "d.jsonl.bak", "e/f.arrow"].map(path);
    assert_eq!(files.unread, unread);
    let unread = unread.map(|file| file.display().to_string()).join(", ");
    let listed = format!(
        "training: {}\nformat not read: {unread}",
        path("a.jsonl").display()
    );
    assert_eq!(files.to_string(), listed);
}

#[test]
fn data_that_is_only_there_in_a_form_that_is_not_read_is_an_error_with_its_command() {
    let stream: &[u8] = b"\xff\xff\xff\xff";
    let cases: [(Files<'_>, &str, &str); 4] = [
        (
            &[("valid.jsonl", ROW), ("part.zst", ZSTD)],
            "training data",
            "zstd -d",
        ),
        // Otherwise the notes were trained on.
        (
            &[("notes.json", ROW), ("train.jsonl.zst", ZSTD)],
            "training data",
            "zstd -d",
        ),
        // As `save_to_disk` of the library `datasets` writes it.
        (
            &[("train/data-0.arrow", stream), ("train/state.json", b"{}")],
            "data",
            "Dataset.from_file",
        ),
        (&[("data.jsonl.zst", ZSTD)], "data", "zstd -d"),
    ];
    for (files, what, command) in cases {
        let dir = folder_of(files);
        let error = data_files(&[dir.path()]).unwrap_err();
        let folder = dir.path().display();
        let start = format!("the {what} of the folder {folder} cannot be read: it is ");
        assert!(error.message().starts_with(&start), "{files:?}: {error}");
        assert!(error.place().is_some(), "{error}");
        assert!(error.help().unwrap().contains(command), "{error}");
    }
    // Held-out data is missed only where it is asked for.
    let dir = folder_of(&[("train.jsonl", ROW), ("validation.jsonl.zst", ZSTD)]);
    let found = data_files(&[dir.path()]).unwrap();
    assert_eq!(found.unread, [dir.path().join("validation.jsonl.zst")]);
    let error = data_files_to_evaluate(&[dir.path()]).unwrap_err();
    assert!(
        error.message().starts_with("the held-out data of "),
        "{error}"
    );
}

#[test]
fn a_file_in_another_form_does_not_stand_for_data_that_is_there() {
    let cases: [Files<'_>; 4] = [
        &[
            ("train.jsonl", ROW),
            ("train.jsonl.zst", ZSTD),
            ("valid.jsonl", ROW),
            ("valid.jsonl.zst", ZSTD),
        ],
        &[("a.jsonl", ROW), ("b.zst", ZSTD)],
        &[("train.jsonl", ROW), ("test.jsonl.zst", ZSTD)],
        // A text may be about anything.
        &[("train.jsonl", ROW), ("eval-notes.txt", b"notes")],
    ];
    for files in cases {
        let dir = folder_of(files);
        let found = data_files(&[dir.path()]).unwrap();
        assert_eq!(found.train.len(), 1, "{files:?}");
        assert!(!found.unread.is_empty(), "{files:?}");
    }
    // What is evaluated is there.
    let dir = folder_of(&[("train.jsonl.zst", ZSTD), ("valid.jsonl", ROW)]);
    let found = data_files_to_evaluate(&[dir.path()]).unwrap();
    assert_eq!((found.valid.len(), found.unread.len()), (1, 1));
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
