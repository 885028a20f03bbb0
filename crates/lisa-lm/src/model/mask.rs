//! The masks of attention.

use burn::tensor::{Bool, Device, Int, Tensor};

use crate::model::input::Input;

/// The mask of a layer with this sliding window, after `past` keys that are in a cache: `[batch or 1,
/// 1, seq, past + seq]`, true where a query must not attend to a key. `None` if every query attends to
/// every key.
pub(crate) fn of(
    input: &Input,
    past: usize,
    window: Option<usize>,
    device: &Device,
) -> Option<Tensor<4, Bool>> {
    let [batch, seq] = input.tokens.dims();
    let keys = past + seq;
    let slides = window.is_some_and(|window| keys > window);
    if seq == 1 && !slides && input.padding.is_none() && input.segments.is_none() {
        return None;
    }
    let offset = past as i64;
    let mut mask = Tensor::<2, Bool>::tril_mask([seq, keys], offset, device);
    if let (Some(window), true) = (window, slides) {
        let first = offset - window as i64 + 1;
        mask = mask.bool_or(Tensor::triu_mask([seq, keys], first, device));
    }
    let mut mask: Tensor<4, Bool> = mask.reshape([1, 1, seq, keys]);
    if let Some(padding) = &input.padding {
        let padding = padding.clone().reshape([batch, 1, 1, keys]);
        let shape = [batch, 1, seq, keys];
        mask = mask.expand(shape).bool_or(padding.expand(shape));
    }
    if let Some(segments) = &input.segments {
        let shape = [batch, 1, seq, keys];
        let rows: Tensor<4, Int> = segments.clone().reshape([batch, 1, seq, 1]);
        let columns: Tensor<4, Int> = segments.clone().reshape([batch, 1, 1, keys]);
        let differ = rows.expand(shape).not_equal(columns.expand(shape));
        mask = mask.expand(shape).bool_or(differ);
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_causal_windowed_and_within_segments() {
        let device = Device::default();
        let tokens = Tensor::<2, Int>::zeros([1, 3], &device);
        let rows = |past, window, input: &Input| {
            let mask = of(input, past, window, &device).unwrap();
            let bits: Vec<bool> = mask.into_data().iter::<bool>().collect();
            bits.chunks(3 + past)
                .map(|row| row.iter().map(|b| u8::from(!b)).collect())
                .collect()
        };
        let expect = |found: Vec<Vec<u8>>, expected: [&[u8]; 3]| assert_eq!(found, expected);
        let mut input = Input::new(tokens.clone());
        expect(rows(0, None, &input), [&[1, 0, 0], &[1, 1, 0], &[1, 1, 1]]);
        expect(
            rows(0, Some(2), &input),
            [&[1, 0, 0], &[1, 1, 0], &[0, 1, 1]],
        );
        expect(
            rows(2, None, &input),
            [&[1, 1, 1, 0, 0], &[1, 1, 1, 1, 0], &[1; 5]],
        );
        expect(
            rows(1, Some(2), &input),
            [&[1, 1, 0, 0], &[0, 1, 1, 0], &[0, 0, 1, 1]],
        );
        input.segments = Some(Tensor::from_data([[0, 1, 1]], &device));
        expect(rows(0, None, &input), [&[1, 0, 0], &[0, 1, 0], &[0, 1, 1]]);
        input.segments = None;
        input.padding = Some(Tensor::from_data([[false, false, true]], &device));
        expect(rows(0, None, &input), [&[1, 0, 0], &[1, 1, 0], &[1, 1, 0]]);
        let one = Input::new(Tensor::<2, Int>::zeros([1, 1], &device));
        assert!(of(&one, 7, Some(9), &device).is_none());
    }
}
