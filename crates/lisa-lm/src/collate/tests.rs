use super::*;
use crate::text::{Encoded, IGNORED};

const X: i64 = IGNORED;

fn encoded(ids: &[u32], labels: &[i64]) -> Encoded {
    Encoded::new(ids.to_vec(), labels.to_vec())
}

fn ints(tensor: Tensor<2, Int>) -> Vec<i64> {
    tensor.into_data().iter::<i64>().collect()
}

#[test]
fn targets_are_the_labels_of_the_next_tokens() {
    let row = Row::new([&encoded(&[5, 6, 7], &[X, X, 7])]);
    assert_eq!(row.tokens, [5, 6, 7]);
    assert_eq!(row.targets, [X, 7, X]);
}

#[test]
fn short_rows_are_padded_on_the_right_and_masked() {
    let rows = vec![
        Row::new([&encoded(&[5, 6, 7], &[5, 6, 7])]),
        Row::new([&encoded(&[8, 9], &[X, 9])]),
    ];
    let batch = Batch::collate(rows, 1);
    assert_eq!(batch.shape(), [2, 3]);
    assert_eq!((batch.tokens(), batch.trained()), (5, 3));
    let tensors = batch.to_tensors(&Device::default());
    assert_eq!(tensors.input.tokens.dims(), [2, 3]);
    assert_eq!(ints(tensors.input.tokens), [5, 6, 7, 8, 9, 1]);
    assert_eq!(ints(tensors.targets), [6, 7, X, 9, X, X]);
    let padding: Vec<bool> = tensors
        .input
        .padding
        .unwrap()
        .into_data()
        .iter::<bool>()
        .collect();
    assert_eq!(padding, [false, false, false, false, false, true]);
    assert!(tensors.input.segments.is_none() && tensors.input.positions.is_none());
}

#[test]
fn rows_of_one_length_have_no_padding() {
    let row = || Row::new([&encoded(&[5, 6], &[5, 6])]);
    let tensors = Batch::collate(vec![row(), row()], 0).to_tensors(&Device::default());
    assert!(tensors.input.padding.is_none());
}

#[test]
fn packed_examples_are_kept_apart() {
    let (a, b) = (encoded(&[5, 6, 7], &[5, 6, 7]), encoded(&[8, 9], &[8, 9]));
    let batch = Batch::collate(vec![Row::new([&a, &b]), Row::new([&a, &a])], 0);
    let tensors = batch.to_tensors(&Device::default());
    assert_eq!(
        ints(tensors.input.tokens),
        [5, 6, 7, 8, 9, 0, 5, 6, 7, 5, 6, 7]
    );
    assert_eq!(ints(tensors.targets), [6, 7, X, 9, X, X, 6, 7, X, 6, 7, X]);
    assert_eq!(
        ints(tensors.input.segments.unwrap()),
        [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]
    );
    assert_eq!(
        ints(tensors.input.positions.unwrap()),
        [0, 1, 2, 0, 1, 0, 0, 1, 2, 0, 1, 2]
    );
    let padding: Vec<bool> = tensors
        .input
        .padding
        .unwrap()
        .into_data()
        .iter::<bool>()
        .collect();
    assert_eq!(padding.iter().filter(|padded| **padded).count(), 1);
    assert!(padding[5]);
}

#[test]
fn weights_are_those_of_the_targets_and_1_elsewhere() {
    let mut weighted = encoded(&[5, 6, 7], &[X, 6, 7]);
    weighted.weights = Some(vec![1.0, 0.5, 0.25]);
    let plain = encoded(&[8, 9], &[8, 9]);
    let packed = Row::new([&plain, &weighted, &plain]);
    assert_eq!(packed.targets, [9, X, 6, 7, X, 9, X]);
    assert_eq!(
        packed.weights,
        Some(vec![1.0, 1.0, 0.5, 0.25, 1.0, 1.0, 1.0])
    );
    let batch = Batch::collate(vec![packed, Row::new([&plain])], 0);
    assert_eq!((batch.trained(), batch.weight()), (5, 3.75));
    let weights = batch.to_tensors(&Device::default()).weights.unwrap();
    let weights: Vec<f32> = weights.into_data().iter::<f32>().collect();
    assert_eq!(weights[..7], [1.0, 1.0, 0.5, 0.25, 1.0, 1.0, 1.0]);
    assert_eq!(weights[7..], [1.0; 7]);

    let batch = Batch::collate(vec![Row::new([&plain])], 0);
    assert_eq!((batch.trained(), batch.weight()), (1, 1.0));
    assert!(batch.to_tensors(&Device::default()).weights.is_none());
}
