//! JSON, compressed files, tables, and several files at once.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn texts(read: &Examples) -> Vec<String> {
    let text = |example: &Example| match &example.content {
        Content::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    read.examples.iter().map(text).collect()
}

fn lines(read: &Examples) -> Vec<Option<usize>> {
    let place = |example: &Example| example.place.as_ref().unwrap().line();
    read.examples.iter().map(place).collect()
}

#[test]
fn rows_are_read_from_each_json_container_with_their_lines() {
    let cases = [
        (
            "a.jsonl",
            "{\"text\": \"1\"}\n\n{\"text\": \"2\"}\n",
            [1, 3],
        ),
        // One value a line in a .json file.
        ("b.json", "{\"text\": \"1\"}\n{\"text\": \"2\"}", [1, 2]),
        // A list, also in a .jsonl file, also over several lines.
        ("c.json", "[{\"text\": \"1\"}, {\"text\": \"2\"}]", [1, 1]),
        (
            "d.jsonl",
            "\n[\n  {\"text\": \"1\"},\n  {\n\"text\":\n\"2\"}\n]\n",
            [3, 4],
        ),
        // An object of rows by id.
        (
            "e.json",
            "{\"x\": {\"text\": \"1\"}, \"y\": {\"text\": \"2\"}}",
            [1, 1],
        ),
        (
            "f.json",
            "{\n\"x\": {\"text\": \"1\"},\n\"y]\": {\n\"text\": \"2\"}\n}",
            [2, 3],
        ),
        ("g.csv", "text\n1\n2\n", [2, 3]),
        ("g.csv", "\r\ntext\r\n1\r\n\r\n\r\n2\r\n", [3, 6]),
        ("h.tsv", "id\ttext\n0\t1\n\n0\t2\n", [2, 4]),
    ];
    for (name, content, wanted) in cases {
        for (name, bytes) in [
            (name.to_owned(), content.as_bytes().to_vec()),
            (format!("{name}.gz"), gzip(content.as_bytes())),
            (name.to_owned(), ["\u{feff}", content].concat().into_bytes()),
        ] {
            let dir = folder(&[]);
            let path = dir.path().join(&name);
            fs::write(&path, bytes).unwrap();
            let read = read_examples(&[&path], &ReadOptions::default());
            let read = read.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(texts(&read), ["1", "2"], "{name}");
            assert_eq!(lines(&read), wanted.map(Some), "{name}");
        }
    }
}

#[test]
fn a_bad_row_of_a_list_has_its_line_and_the_next_one_is_read() {
    let list = "[{\"text\": \"1\"},\n {\"text\": tru},\n\n {\"text\": \"]},\\\"{\", \"x\":\n [1, {}]},\n 5,\n {\"text\":\n\n }]";
    let dir = folder(&[("x.json", list)]);
    let read = read_examples(&[dir.path()], &skip()).unwrap();
    assert_eq!(texts(&read), ["1", "]},\"{"]);
    let bad = read.skipped.shown().iter();
    let bad: Vec<_> = bad
        .map(|bad| (bad.place.line().unwrap(), bad.reason.clone()))
        .collect();
    assert_eq!(
        bad[0],
        (2, "not JSON: expected ident at column 13".to_owned())
    );
    assert_eq!(
        bad[1],
        (6, "the row is a number and not an object".to_owned())
    );
    assert_eq!(bad[2].0, 9);
    assert!(bad[2].1.starts_with("not JSON"), "{bad:?}");
    let error = read_examples(&[dir.path()], &ReadOptions::default()).unwrap_err();
    assert_eq!(error.place().unwrap().1, Some(2));
}

#[test]
fn a_list_or_an_object_that_is_broken_ends_the_reading() {
    let cases = [
        (
            "[{\"text\": \"1\"} {\"text\": \"2\"}]",
            "a comma or the closing bracket is expected",
            1,
        ),
        (
            "[{\"text\": \"1\"},\n{\"text\": \"2",
            "the file ends: it is cut short",
            2,
        ),
        ("[{\"text\": \"1\"},\n", "the file ends: it is cut short", 2),
        (
            "[{\"text\": \"1\"}]\n[]",
            "the end of the file is expected",
            2,
        ),
        (
            "{\"text\": \"1\",\n\"x\": 2}",
            "its \"text\" is a string and not a row",
            1,
        ),
        ("{\n\"x\" {\"text\": \"2\"}}", "a colon is expected", 2),
        ("{\n3: {\"text\": \"2\"}}", "a key is expected", 2),
    ];
    for (content, message, line) in cases {
        let dir = folder(&[("x.json", content)]);
        let file = dir.path().join("x.json");
        for options in [skip(), ReadOptions::default()] {
            let error = read_examples(&[&file], &options).unwrap_err();
            assert!(error.message().contains(message), "{content}: {error}");
            assert_eq!(
                error.place(),
                Some((file.as_path(), Some(line))),
                "{content}"
            );
        }
    }
}

#[test]
fn a_bad_first_line_of_json_lines_is_skipped_like_any_other() {
    let dir = folder(&[("x.json", "{\"text\": \"1\"\n{\"text\": \"2\"}\n")]);
    let read = read_examples(&[dir.path()], &skip()).unwrap();
    assert_eq!(
        (texts(&read), read.skipped.count()),
        (vec!["2".to_owned()], 1)
    );
}

#[test]
fn an_empty_list_has_no_example() {
    let dir = folder(&[("x.json", "[]")]);
    let error = read_examples(&[dir.path()], &ReadOptions::default()).unwrap_err();
    assert!(
        error.message().ends_with("x.json has no example"),
        "{error}"
    );
}

#[test]
fn cells_of_tables_are_texts_and_may_hold_json() {
    let table = "id,Question,answer,system\n\
        7,\"Two, \"\"and\"\" two?\n\",four,\n\
        8,Red?,5,\"Be brief.\"\n\
        9,Blue?\n";
    let dir = folder(&[("x.csv", table)]);
    let columns = "Question=question".parse().unwrap();
    let options = ReadOptions { columns, ..skip() };
    let read = read_examples(&[dir.path()], &options).unwrap();
    let contents: Vec<_> = read.examples.iter().map(|e| e.content.clone()).collect();
    assert_eq!(
        contents,
        [
            chat(&[("user", "Two, \"and\" two?\n"), ("assistant", "four")]),
            chat(&[
                ("system", "Be brief."),
                ("user", "Red?"),
                ("assistant", "5")
            ]),
        ]
    );
    assert_eq!(lines(&read), [Some(2), Some(4)]);
    let bad = &read.skipped.shown()[0];
    assert_eq!(bad.place.line(), Some(5));
    assert_eq!(bad.reason, "2 cells, and the header has 4");

    let table = "messages,tools\n\"[{\"\"role\"\": \"\"assistant\"\", \"\"content\"\": \"\"a\"\"}]\",\"[]\"\n";
    let dir = folder(&[("x.csv", table)]);
    let read = read_examples(&[dir.path()], &ReadOptions::default()).unwrap();
    assert_eq!(read.examples[0].answer.as_deref(), Some("a"));
}

#[test]
fn an_empty_cell_that_a_row_needs_is_named() {
    for (table, key) in [
        ("prompt,completion\n,a\n", "prompt"),
        ("prompt,completion\na,\n", "completion"),
        ("id,text\n7,\n", "text"),
        ("question,response\na,\n", "response"),
    ] {
        let dir = folder(&[("x.csv", table)]);
        let error = read_examples(&[dir.path()], &ReadOptions::default()).unwrap_err();
        let message = format!("`{key}` has no value: it is null, or its cell is empty");
        assert_eq!(error.message(), message, "{table}");
    }
    let dir = folder(&[("x.csv", ",text\n0,a\n")]);
    let read = read_examples(&[dir.path()], &ReadOptions::default()).unwrap();
    let mapping = "1 row as text\nkeys not used: the column without a name";
    assert_eq!(read.mapping.to_string(), mapping);
}

#[test]
fn a_table_that_is_broken_says_where() {
    let dir = folder(&[("x.csv", "text,text\n1,2\n")]);
    let error = read_examples(&[dir.path()], &skip()).unwrap_err();
    assert_eq!(error.message(), "the header has the column \"text\" twice");

    fs::write(dir.path().join("x.csv"), "question;answer\na;b\n").unwrap();
    let error = read_examples(&[dir.path()], &skip()).unwrap_err();
    assert!(error.message().ends_with("separated by ';'?"), "{error}");

    fs::write(dir.path().join("x.csv"), b"text\n\xff\n2\n").unwrap();
    let error = read_examples(&[dir.path()], &ReadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("x.csv:2: not UTF-8"), "{error}");
}

#[test]
fn a_quote_that_is_not_closed_is_an_error_at_its_row() {
    for (name, table, line) in [
        (
            "x.csv",
            "question,answer\nA?,x\n\nWhy?,\"because\nB?,y\nC?,z\n",
            4,
        ),
        ("x.csv", "question,answer\nA?,x\nWhy?,\"because", 3),
        ("x.csv", "question,answer\nA?,\"x\"\"\n", 2),
        ("x.csv", "question,\"answer\nA?,x\n", 1),
        ("x.tsv", "question\tanswer\nA?\t\"x\nB?\ty\n", 2),
    ] {
        let dir = folder(&[(name, table)]);
        let error = read_examples(&[dir.path()], &skip()).unwrap_err();
        let place = format!("{name}: a quote in the row of line {line} is not closed");
        assert!(error.to_string().contains(&place), "{table}: {error}");
    }
    // A quote at the end of the file, and none.
    for table in [
        "question,answer\nA?,\"x\"",
        "question,answer\nA?,x",
        "question,answer\nA?,5\" x\n",
    ] {
        let dir = folder(&[("x.csv", table)]);
        assert_eq!(
            read_examples(&[dir.path()], &ReadOptions::default())
                .unwrap()
                .examples
                .len(),
            1
        );
    }
}

#[test]
fn text_after_the_closing_quote_of_a_cell_is_an_error_at_its_row() {
    for (name, table, line) in [
        (
            "x.csv",
            "question,answer\n\"Who said \\\"no\\\"?\",\"Anna said \\\"no\\\" twice\"\n",
            2,
        ),
        (
            "x.csv",
            "question,answer\nA?,x\n\n\"He\" said,\"b\" c\nB?,y\n",
            4,
        ),
        ("x.csv", "question,answer\nA?,\"two\nlines\" c\nB?,y\n", 2),
        ("x.csv", "question,\"answer\" x\nA?,b\n", 1),
        ("x.csv", "text\n\"a\"b", 2),
        ("x.tsv", "question\tanswer\nA?\tx\n\"a\" b\tc\n", 3),
    ] {
        let dir = folder(&[(name, table)]);
        let error = read_examples(&[dir.path()], &skip()).unwrap_err();
        let place = format!("{name}: in the row of line {line}, text follows the closing quote");
        assert!(error.to_string().contains(&place), "{table}: {error}");
        let command = match name {
            "x.tsv" => "x.tsv', sep='\\t', quoting=3, ",
            _ => "x.csv > converted.csv",
        };
        assert!(error.help().unwrap().contains(command), "{error}");
    }
    let table = "question,answer\r\n\"a \"\"b\"\", c\",\"\"\"d\"\"\"\r\n5\" x,\"y\"\r\n\"a\" ,\"b\" \r\n\"\"\"\",\"z\"";
    let dir = folder(&[("x.csv", table)]);
    let read = read_examples(&[dir.path()], &ReadOptions::default()).unwrap();
    let turns: Vec<_> = read.examples.into_iter().map(|e| e.content).collect();
    let turn = |question, answer| chat(&[("user", question), ("assistant", answer)]);
    let wanted = [
        turn("a \"b\", c", "\"d\""),
        turn("5\" x", "y"),
        turn("a ", "b "),
        turn("\"", "z"),
    ];
    assert_eq!(turns, wanted);
}

#[test]
fn a_compressed_file_that_is_cut_short_is_an_error() {
    let text = "{\"text\": \"1\"}\n".repeat(50);
    let whole = gzip(text.as_bytes());
    let dir = folder(&[]);
    fs::write(dir.path().join("x.jsonl.gz"), &whole[..whole.len() - 9]).unwrap();
    let error = read_examples(&[dir.path()], &skip()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(
        error.message().contains("x.jsonl.gz cannot be read"),
        "{error}"
    );
    let help = "the compressed file is cut short or damaged: fetch it again";
    assert_eq!(error.help(), Some(help));
    // Its checksum is another.
    let mut damaged = whole.clone();
    damaged[whole.len() - 8] ^= 1;
    fs::write(dir.path().join("x.jsonl.gz"), damaged).unwrap();
    let error = read_examples(&[dir.path()], &skip()).unwrap_err();
    assert_eq!(error.help(), Some(help));
    // Two files that are joined are one.
    fs::write(
        dir.path().join("x.jsonl.gz"),
        [whole.clone(), whole].concat(),
    )
    .unwrap();
    let read = read_examples(&[dir.path()], &ReadOptions::default()).unwrap();
    assert_eq!(read.examples.len(), 100);
}

#[test]
fn files_that_are_not_read_are_known_by_their_first_bytes() {
    let cases: [(&[u8], &str, &str); 10] = [
        (
            b"\xff\xfet\0e\0",
            "it is text in UTF-16",
            "iconv -f UTF-16 -t UTF-8 ",
        ),
        (
            b"\xff\xfe\0\0t\0\0\0",
            "it is text in UTF-32",
            "iconv -f UTF-32 -t UTF-8 ",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "it is a pointer of Git LFS",
            "git lfs pull",
        ),
        (
            b"<!doctype html>\n<html>\n",
            "it is a web page",
            "fetch the file again",
        ),
        (
            b"\n\n<!DOCTYPE html>\n",
            "it is a web page",
            "fetch the file again",
        ),
        (
            b"\x28\xb5\x2f\xfd....",
            "it is compressed with zstd",
            "zstd -d",
        ),
        (b"PK\x03\x04....", "it is a zip archive", "unzip"),
        (b"BZh9....", "it is compressed with bzip2", "bzip2 -d"),
        (b"ARROW1..", "it is an Arrow file", "pandas.read_feather('"),
        (
            b"\xff\xff\xff\xff....",
            "it is an Arrow stream",
            "datasets.Dataset.from_file('",
        ),
    ];
    for (bytes, message, help) in cases {
        let dir = folder(&[]);
        let file = dir.path().join("x.jsonl");
        fs::write(&file, bytes).unwrap();
        let error = read_examples(&[&file], &skip()).unwrap_err();
        assert!(error.message().starts_with(message), "{error}");
        assert!(error.help().unwrap().contains(help), "{error}");
        assert_eq!(error.place(), Some((file.as_path(), None)));
    }
}

#[test]
fn several_files_are_read_in_the_order_given() {
    let dir = folder(&[("b.csv", "text\n1\n"), ("a.json", "[{\"text\": \"2\"}]")]);
    let paths = ["b.csv", "a.json"].map(|name| dir.path().join(name));
    let read = read_examples(&paths, &ReadOptions::default()).unwrap();
    assert_eq!(
        (texts(&read), &read.files[..]),
        (vec!["1".to_owned(), "2".to_owned()], &paths[..])
    );
}

#[test]
fn of_many_bad_lines_ten_are_kept() {
    let dir = folder(&[
        ("x.jsonl", &"{}\n".repeat(25)),
        ("y.jsonl", "{\"text\": \"1\"}"),
    ]);
    let read = read_examples(&[dir.path()], &skip()).unwrap();
    assert_eq!((read.skipped.shown().len(), read.skipped.count()), (10, 25));
    assert!(read.skipped.to_string().ends_with("\nand 15 more lines"));
}

#[test]
fn a_column_that_no_row_has_is_an_error_that_names_it() {
    let dir = folder(&[("x.jsonl", "{\"text\": \"1\"}")]);
    let columns = "txt=text".parse().unwrap();
    let options = ReadOptions {
        columns,
        ..ReadOptions::default()
    };
    let error = read_examples(&[dir.path()], &options).unwrap_err();
    assert!(error.message().ends_with("has the column `txt`"), "{error}");
    for text in ["a", "a=", "=b", "a=b,a=c", "a=b,c=b"] {
        let error = text.parse::<Columns>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{text}");
    }
    let columns: Columns = " a = b, c=d ".parse().unwrap();
    assert_eq!(columns.to_string(), "a=b,c=d");
}

#[test]
fn a_column_is_found_that_has_spaces_around_its_name() {
    let read = |row: &str, columns: &str| {
        let dir = folder(&[("x.jsonl", row)]);
        let columns = columns.parse().unwrap();
        let options = ReadOptions {
            columns,
            ..ReadOptions::default()
        };
        let mut read = read_examples(&[dir.path()], &options).unwrap();
        read.examples.remove(0).content
    };
    assert_eq!(
        read(
            "{\"Question \": \"a\", \" Answer\": \"b\"}",
            "Question=question,Answer=answer"
        ),
        chat(&[("user", "a"), ("assistant", "b")])
    );
    // The name itself comes first.
    assert_eq!(
        read("{\"t \": \"a\", \"t\": \"b\"}", "t=text"),
        Content::Text("b".to_owned())
    );
}
