//! Files that pyarrow wrote (`tests/fixtures/make_parquet.py`).

use std::sync::Arc;

use ::parquet::data_type::Int32Type;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

use super::*;
use crate::test_support::fixture;

fn read(name: &str) -> Examples {
    let path = fixture("parquet").join(name);
    read_examples(&[path], &skip()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn every_codec_but_zstd_is_read() {
    for codec in ["none", "snappy", "gzip", "brotli", "lz4"] {
        let read = read(&format!("{codec}.parquet"));
        let contents: Vec<_> = read.examples.iter().map(|e| e.content.clone()).collect();
        let turn = |question, answer| chat(&[("user", question), ("assistant", answer)]);
        assert_eq!(contents, [turn("a", "1"), turn("b", "2")], "{codec}");
        let places = read.examples.iter().map(|e| e.place.clone().unwrap().row());
        assert_eq!(places.collect::<Vec<_>>(), [Some(1), Some(2)]);
        let bad = read.skipped.shown()[0].to_string();
        let reason = ".parquet, row 3: `question` has no value";
        assert!(bad.contains(reason), "{bad}");
        let unused = "\nkeys not used: share, day, when, price, raw";
        assert!(
            read.mapping.to_string().ends_with(unused),
            "{}",
            read.mapping
        );
    }
    let path = fixture("parquet").join("zstd.parquet");
    let error = read_examples(&[&path], &skip()).unwrap_err();
    let message = "its columns are compressed with zstd, which is not read";
    assert_eq!(
        (error.message(), error.place()),
        (message, Some((path.as_path(), None)))
    );
    assert!(
        error
            .help()
            .unwrap()
            .contains("to_parquet('snappy.parquet')")
    );
}

#[test]
fn chats_in_nested_columns_have_no_keys_of_other_rows() {
    let read = read("chats.parquet");
    let messages = |index: usize| match &read.examples[index].content {
        Content::Chat(chat) => serde_json::to_string(&chat.messages).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        messages(0),
        r#"[{"role":"user","content":"How many plums?"},{"role":"assistant","tool_calls":[{"name":"stock","arguments":{"fruit":"plum"}}]},{"role":"tool","content":"12"},{"role":"assistant","content":"Twelve."}]"#
    );
    assert_eq!(
        messages(1),
        r#"[{"role":"user","content":"Name a unit.","tool_calls":[]},{"role":"assistant","content":"é"}]"#
    );
    // In another group of rows.
    assert_eq!(
        messages(2),
        r#"[{"role":"user","content":"a"},{"role":"assistant","content":"b","tool_calls":[{"name":"weigh","arguments":{"unit":"g"}}]}]"#
    );
    let rows = read.examples.iter().map(|e| e.place.clone().unwrap().row());
    assert_eq!(rows.collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
}

#[test]
fn a_bad_row_has_its_number() {
    let path = fixture("parquet").join("snappy.parquet");
    let error = read_examples(&[&path], &ReadOptions::default()).unwrap_err();
    assert!(
        error
            .message()
            .starts_with("row 3: `question` has no value"),
        "{error}"
    );
    assert_eq!(error.place(), Some((path.as_path(), None)));
    assert_eq!(error.row(), Some(3));
}

#[test]
fn two_columns_of_one_name_are_refused() {
    let dir = folder(&[]);
    let path = dir.path().join("x.parquet");
    let schema = "message rows { optional binary text (UTF8); optional binary text (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = fs::File::create(&path).unwrap();
    let writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    writer.close().unwrap();
    let error = read_examples(&[&path], &skip()).unwrap_err();
    assert_eq!(error.message(), "the file has the column \"text\" twice");
    assert_eq!(error.place(), Some((path.as_path(), None)));
}

#[test]
fn a_decimal_has_a_point_only_before_digits() {
    for (scale, wanted) in [
        (0, ["5", "-12", "0", "700"]),
        (2, ["0.05", "-0.12", "0.00", "7.00"]),
    ] {
        let dir = folder(&[]);
        let path = dir.path().join("x.parquet");
        let schema = format!("message rows {{ required int32 text (DECIMAL(9, {scale})); }}");
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let file = fs::File::create(&path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values = [5, -12, 0, 700];
        let typed = column.typed::<Int32Type>();
        typed.write_batch(&values, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        let read = read_examples(&[&path], &ReadOptions::default()).unwrap();
        let texts: Vec<_> = read.examples.into_iter().map(|e| e.content).collect();
        assert_eq!(texts, wanted.map(|text| Content::Text(text.to_owned())));
    }
}

#[test]
fn bytes_that_are_no_text_are_named() {
    let path = fixture("parquet").join("snappy.parquet");
    let options = ReadOptions {
        columns: "raw=answer".parse().unwrap(),
        ..ReadOptions::default()
    };
    let error = read_examples(&[path], &options).unwrap_err();
    let message = "row 1: `answer` is bytes that are not UTF-8 and not a string";
    assert_eq!(error.message(), message);
}

#[test]
fn a_damaged_file_is_an_error_and_no_panic() {
    let whole = fs::read(fixture("parquet").join("chats.parquet")).unwrap();
    let dir = folder(&[]);
    let path = dir.path().join("x.parquet");
    let mut damaged = 0;
    let cut = (4..whole.len())
        .step_by(97)
        .map(|end| whole[..end].to_vec());
    let changed = (4..whole.len()).step_by(7).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        bytes
    });
    for bytes in cut.chain(changed) {
        fs::write(&path, bytes).unwrap();
        damaged += usize::from(read_examples(&[&path], &skip()).is_err());
    }
    assert!(damaged > whole.len() / 97, "{damaged}");
}
