use lisa_lm::text::{Encoded, IGNORED};

use super::*;

/// Examples of these lengths, whose last two tokens are trained, cut at `limit`.
fn summary(lengths: &[usize], limit: usize) -> Summary {
    let mut places = Places::default();
    let mut set: EncodedSet = EncodedSet::default();
    for (source, &length) in lengths.iter().enumerate() {
        let place = Place::at_line(std::path::Path::new("a.jsonl"), source + 1);
        places.push(Some(&place));
        let mut row = Encoded::all_trained(vec![7; length]);
        row.labels[..length - 2].fill(IGNORED);
        row.truncate(limit);
        set.truncated += usize::from(length > limit);
        if row.trained() == 0 {
            set.dropped += 1;
            continue;
        }
        set.examples.push(row);
        set.sources.push(source);
        set.lengths.push(length);
    }
    let lengths = Lengths::new(lengths.to_vec(), 0);
    let visited = Visited::of(&set.examples.clone().into()).unwrap();
    Summary::of(&places, Roles::default(), &lengths, &set, &visited, limit)
}

#[test]
fn rows_that_are_cut_and_dropped_are_counted() {
    let text = summary(&[4, 6, 7, 9, 5], 6).to_string();
    assert_eq!(
        text,
        "4 rows, 21 tokens, 7 trained (33.3 %)\n  lengths: median 6, 95 % up to 9, 99 % up to \
         9, longest 9\n  cut: 2 rows at 6 tokens (--max-seq-length), 1 token left out\n  left \
         out: 1 row: no answer before the limit (--max-seq-length)\n  first without a row: \
         a.jsonl:4"
    );
    let text = summary(&[4, 6], 6).to_string();
    assert!(
        text.ends_with("longest 6; none above 6 (--max-seq-length)"),
        "{text}"
    );
}

#[test]
fn rows_that_are_left_out_have_one_total_with_each_reason() {
    let alone = Summary {
        rows: 4,
        untrained: 1,
        weightless: 1,
        ..Summary::default()
    };
    assert_eq!(
        alone.warnings(),
        ["1 of 5 rows is left out: all messages have a weight of 0"]
    );
    let mut bad = BadLines::default();
    for line in [3, 7] {
        bad.push(lisa_lm::text::BadLine {
            place: Place::at_line(std::path::Path::new("a.jsonl"), line),
            reason: "not JSON".to_owned(),
        });
    }
    let all = Summary {
        rows: 4,
        refused: 1,
        untrained: 3,
        weightless: 1,
        first_bad: Some("refused".to_owned()),
        ..Summary::default()
    };
    let all = all.with_bad_lines(Some(&bad));
    let reasons = "cannot be read (--on-bad-line): 2; refused by the chat template or the tokenizer \
                   (--on-bad-line): 1; all messages have a weight of 0: 1; no trained token: 2";
    assert_eq!(
        all.warnings(),
        [format!(
            "6 of 10 rows are left out: {reasons}; the first: a.jsonl:3: not JSON"
        )]
    );
    let text = all.to_string();
    assert!(
        text.contains(&format!("\n  left out: 6 rows: {reasons}")),
        "{text}"
    );
}

#[test]
fn more_than_one_per_cent_of_cut_rows_is_a_warning() {
    let mut lengths = vec![4; 99];
    lengths.push(9);
    assert_eq!(summary(&lengths, 8).warnings(), [] as [&str; 0]);
    lengths.pop();
    lengths.pop();
    lengths.push(9);
    assert_eq!(
        summary(&lengths, 8).warnings(),
        ["1 of 99 rows (1.0 %) is cut at 8 tokens; the longest row has 9 (--max-seq-length)"]
    );
    let warnings = summary(&[4, 9], 6).warnings();
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(
        warning.contains("; 1 row left out, since the answers are after that; "),
        "{warning}"
    );
}
