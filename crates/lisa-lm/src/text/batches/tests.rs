use super::*;
use crate::error::ErrorKind;
use crate::text::pack::packed;
use crate::text::row_store::RowStore;

fn example(id: u32, length: usize) -> Encoded {
    Encoded::all_trained(vec![id; length])
}

/// The same rows in memory, in a file, and in both.
fn in_each_place(examples: &[Encoded]) -> [StoredRows; 3] {
    [u64::MAX, 0, 60].map(|limit| {
        let store = RowStore::new(limit, std::env::temp_dir());
        let rows = examples.iter().map(|row| store.push(row).unwrap());
        let rows = StoredRows::new(&store, rows.collect());
        assert!(limit > 0 || store.is_in_file());
        rows
    })
}

fn options(batch_size: usize) -> BatchOptions {
    BatchOptions {
        batch_size,
        pack_to: None,
        shuffle: true,
        seed: 3,
        pad_id: 0,
        vocab_size: 100,
    }
}

/// The first token of each row of each batch.
fn firsts(batches: impl Iterator<Item = Batch>) -> Vec<Vec<u32>> {
    batches
        .map(|batch| batch.rows().iter().map(|row| row.tokens[0]).collect())
        .collect()
}

#[test]
fn an_epoch_has_every_row_once_in_an_order_of_its_own() {
    let examples: Vec<_> = (0..10).map(|id| example(id, 3)).collect();
    let mut batches = Batches::new(examples, options(4)).unwrap();
    assert_eq!((batches.rows(), batches.per_epoch()), (10, 3));
    let first = firsts(batches.by_ref().take(3));
    assert_eq!(batches.position(), Position { epoch: 1, index: 0 });
    let second = firsts(batches.by_ref().take(3));
    assert_eq!(first.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
    assert_ne!(first, second);
    for epoch in [first, second] {
        let mut all = epoch.concat();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
    }
}

#[test]
fn without_shuffling_the_order_is_the_one_given() {
    let examples: Vec<_> = (0..5).map(|id| example(id, 2)).collect();
    let options = BatchOptions {
        shuffle: false,
        ..options(2)
    };
    let batches = Batches::new(examples, options).unwrap();
    assert_eq!(
        firsts(batches.take(4)),
        [vec![0, 1], vec![2, 3], vec![4], vec![0, 1]]
    );
}

#[test]
fn a_resumed_run_sees_the_same_batches_from_any_step() {
    let examples: Vec<_> = (0..10).map(|id| example(id, 2 + id as usize % 3)).collect();
    for pack_to in [None, Some(8)] {
        let options = BatchOptions {
            pack_to,
            ..options(3)
        };
        let all = Batches::new(examples.clone(), options).unwrap();
        let expected: Vec<Batch> = all.take(12).collect();
        for step in 0..12 {
            let mut before = Batches::new(examples.clone(), options).unwrap();
            before.by_ref().take(step).for_each(drop);
            let mut after = Batches::new(examples.clone(), options).unwrap();
            after.seek(before.position());
            let rest: Vec<Batch> = after.take(12 - step).collect();
            assert_eq!(rest, expected[step..]);
            let mut by_count = Batches::new(examples.clone(), options).unwrap();
            by_count.seek(Position {
                epoch: 0,
                index: step,
            });
            assert_eq!(by_count.next_batch(), expected[step]);
        }
    }
}

/// The ids of the examples in a batch; rows of packed examples have several.
fn ids(batch: &Batch) -> Vec<u32> {
    let rows = batch.rows().iter().zip(batch.lengths());
    rows.flat_map(|(row, length)| {
        let starts = (0..*length).filter(|&at| row.positions[at] == 0);
        starts.map(|at| row.tokens[at]).collect::<Vec<_>>()
    })
    .collect()
}

#[test]
fn every_row_is_in_one_step_of_each_epoch_and_a_resumed_run_has_the_same_steps() {
    const EPOCHS: usize = 3;
    let cases = (1..=9).flat_map(|rows| {
        (1..=4).flat_map(move |size| (1..=4).map(move |accumulation| (rows, size, accumulation)))
    });
    for (rows, size, accumulation) in cases {
        let examples: Vec<_> = (0..rows)
            .map(|id| example(id, 2 + id as usize % 3))
            .collect();
        for pack_to in [None, Some(4), Some(9)] {
            let what = format!("{rows} rows, batch {size} x {accumulation}, {pack_to:?}");
            let options = BatchOptions {
                pack_to,
                ..options(size)
            };
            let places = in_each_place(&examples);
            let new =
                |place: usize| Batches::from_rows(places[place % 3].clone(), options).unwrap();
            let mut batches = new(0);
            let steps = batches.steps_in(EPOCHS as f64, accumulation);
            let per_epoch = batches.steps_per_epoch(accumulation);
            assert_eq!(steps as usize, EPOCHS * per_epoch, "{what}");
            assert_eq!(
                batches.steps_in(0.5, accumulation),
                per_epoch.div_ceil(2) as u64
            );
            let mut all = Vec::new();
            let mut positions = Vec::new();
            for step in 0..steps {
                let position = batches.position();
                let before = batches.steps_before(position, accumulation);
                assert_eq!(before, Some(step), "{what}");
                positions.push(position);
                all.push(batches.next_step(accumulation));
            }
            let end = Position {
                epoch: EPOCHS as u64,
                index: 0,
            };
            assert_eq!(batches.position(), end, "{what}");
            for epoch in all.chunks(per_epoch) {
                let (last, full) = epoch.split_last().unwrap();
                assert!(full.iter().all(|step| step.len() == accumulation), "{what}");
                assert!((1..=accumulation).contains(&last.len()), "{what}");
                let mut seen: Vec<u32> = epoch.iter().flatten().flat_map(ids).collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..rows).collect::<Vec<_>>(), "{what}");
            }
            for (step, position) in positions.into_iter().enumerate() {
                // A run may be resumed with its rows in another place.
                let mut resumed = new(step);
                resumed.seek(position);
                for expected in &all[step..] {
                    assert_eq!(
                        &resumed.try_next_step(accumulation).unwrap(),
                        expected,
                        "{what} at {step}"
                    );
                }
            }
        }
    }
}

#[test]
fn steps_of_nine_rows_are_counted_as_people_count_them() {
    let examples: Vec<_> = (0..9).map(|id| example(id, 2)).collect();
    let batches = Batches::new(examples, options(2)).unwrap();
    assert_eq!(batches.steps_in(3.0, 2), 9);
    assert_eq!(batches.steps_in(1.0, 8), 1);
    for (epochs, steps) in [
        (0.01, 1),
        (0.4, 2),
        (1.0 / 3.0, 1),
        (2.0 / 3.0, 2),
        (0.7, 3),
        (1.1, 4),
    ] {
        assert_eq!(batches.steps_in(epochs, 2), steps, "{epochs}");
    }
    let of_ten = Batches::new((0..10).map(|id| example(id, 2)).collect(), options(1)).unwrap();
    assert_eq!(of_ten.steps_in(1.1, 1), 11);
    let before =
        |epoch, index, accumulation| batches.steps_before(Position { epoch, index }, accumulation);
    assert_eq!(
        (before(0, 4, 2), before(1, 0, 2), before(2, 2, 2)),
        (Some(2), Some(3), Some(7))
    );
    assert_eq!((before(1, 1, 2), before(0, 5, 1)), (None, None));
    assert_eq!((before(u64::MAX, 0, 1), before(1, 1, 1)), (None, Some(6)));
}

#[test]
fn packing_takes_the_first_row_with_room() {
    let lengths = [5, 4, 3, 4, 6, 2];
    let examples: Vec<_> = (0..)
        .zip(lengths)
        .map(|(id, length)| example(id, length))
        .collect();
    let options = BatchOptions {
        pack_to: Some(8),
        shuffle: false,
        ..options(3)
    };
    let batch = Batches::new(examples, options).unwrap().next_batch();
    let rows = batch.rows();
    let tokens: Vec<Vec<u32>> = rows.iter().map(|row| row.tokens.clone()).collect();
    assert_eq!(
        tokens,
        [
            vec![0, 0, 0, 0, 0, 2, 2, 2],
            vec![1, 1, 1, 1, 3, 3, 3, 3],
            vec![4, 4, 4, 4, 4, 4, 5, 5],
        ]
    );
    assert_eq!(rows[0].segments, [0, 0, 0, 0, 0, 1, 1, 1]);
    assert_eq!(rows[0].positions, [0, 1, 2, 3, 4, 0, 1, 2]);
    assert_eq!(rows[0].targets, [0, 0, 0, 0, -100, 2, 2, -100]);
}

#[test]
fn packing_loses_nothing_when_rows_are_closed() {
    let lengths: Vec<usize> = (0..2000).map(|id| 5 + id % 5).collect();
    let rows = packed(lengths.iter().copied(), 10).unwrap();
    for row in &rows {
        let length = row.iter().map(|index| lengths[*index as usize]);
        assert!(length.sum::<usize>() <= 10, "{row:?}");
    }
    let mut indices = rows.concat();
    indices.sort_unstable();
    assert_eq!(indices, (0..2000).collect::<Vec<_>>());
}

#[test]
fn the_oldest_of_512_open_rows_is_closed() {
    let lengths = [vec![1], vec![6; 600], vec![4; 600]].concat();
    let rows = packed(lengths.iter().copied(), 10).unwrap();
    // The one and the sixes open 600 rows, each with room for a four. The first four, example 601, does
    // not get into the first 88 of them: they are closed.
    assert_eq!(rows.len(), 644);
    assert_eq!(rows[0], [0, 1]);
    assert!((1..88).all(|row| rows[row] == [row as u32 + 1]));
    assert_eq!(rows[88], [89, 601]);
    for row in &rows {
        let length = row.iter().map(|index| lengths[*index as usize]);
        assert!(length.sum::<usize>() <= 10, "{row:?}");
    }
    let mut indices = rows.concat();
    indices.sort_unstable();
    assert_eq!(indices, (0..1201).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_batched_is_named() {
    let error = |examples, options| Batches::new(examples, options).unwrap_err();
    assert_eq!(error(vec![], options(1)).kind(), ErrorKind::Data);
    assert_eq!(
        error(vec![example(0, 2)], options(0)).kind(),
        ErrorKind::Config
    );
    let packed = BatchOptions {
        pack_to: Some(4),
        ..options(1)
    };
    let long = error(vec![example(0, 2), example(1, 5)], packed);
    assert!(
        long.message().starts_with("example 2 has 5 tokens"),
        "{long}"
    );
}

#[test]
fn an_id_outside_the_vocabulary_is_an_error_before_the_first_batch() {
    let new = |vocab_size, pad_id, examples: Vec<Encoded>| {
        let options = BatchOptions {
            pad_id,
            vocab_size,
            ..options(2)
        };
        Batches::new(examples, options)
    };
    let examples = || vec![example(3, 2), example(9, 2)];
    assert!(new(10, 9, examples()).is_ok());
    let error = new(9, 0, examples()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert_eq!(
        error.message(),
        "example 2: a token has the id 9, and the model's vocabulary has 9 tokens (ids below 9)"
    );
    assert!(error.help().unwrap().contains("at least 10 rows"));
}

#[test]
fn a_token_outside_the_vocabulary_does_not_pad() {
    for (pad_id, padded) in [(9, 9), (10, 0), (u32::MAX, 0)] {
        let options = BatchOptions {
            pad_id,
            vocab_size: 10,
            shuffle: false,
            ..options(2)
        };
        let examples = vec![example(3, 2), example(9, 1)];
        let batch = Batches::new(examples, options).unwrap().next_batch();
        assert_eq!(batch.rows()[1].tokens, [9, padded]);
        assert_eq!(batch.rows()[1].targets, [-100, -100]);
        assert_eq!(batch.lengths(), [2, 1]);
    }
}

#[test]
fn a_step_whose_rows_cannot_be_read_leaves_the_position() {
    let store = RowStore::new(0, std::env::temp_dir());
    let rows = (0..4).map(|id| store.push(&example(id, 2)).unwrap());
    let rows = StoredRows::new(&store, rows.collect());
    let options = BatchOptions {
        shuffle: false,
        ..options(1)
    };
    let mut batches = Batches::from_rows(rows, options).unwrap();
    // A row has 21 bytes: the first one is left.
    assert_eq!(store.bytes(), 84);
    store.cut_file(21);
    let error = batches.try_next_step(2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().contains("cannot be read"), "{error}");
    assert_eq!(batches.position(), Position::default());
    assert_eq!(firsts(batches.by_ref().take(1)), [vec![0]]);
}
