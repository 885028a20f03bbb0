//! [`shuffled`] and [`split`]: random orders that depend only on their arguments.
//!
//! The generator is ChaCha8, seeded with the bytes of the arguments, so an order is the same on
//! every platform and in every version.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::error::{Error, ErrorKind};

/// The indices below `count`, in an order that is a pure function of the seed and the epoch.
///
/// # Example
///
/// ```
/// let order = lisa_lm::text::shuffled(5, 42, 0);
/// assert_eq!(order, lisa_lm::text::shuffled(5, 42, 0));
/// assert_ne!(order, lisa_lm::text::shuffled(5, 42, 1));
/// ```
#[must_use]
pub fn shuffled(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&epoch.to_le_bytes());
    let mut random = ChaCha8Rng::from_seed(bytes);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, below(&mut random, last as u64 + 1) as usize);
    }
    order
}

/// A uniform integer below `bound`: samples beyond its last multiple are rejected.
fn below(random: &mut ChaCha8Rng, bound: u64) -> u64 {
    let usable = u64::MAX - u64::MAX % bound;
    loop {
        let draw = random.next_u64();
        if draw < usable {
            return draw % bound;
        }
    }
}

/// Splits items into a training and a held-out set, both in the given order.
///
/// Which items are held out is a pure function of the seed and the count. A fraction above 0 holds
/// out at least one item and leaves at least one.
///
/// # Errors
///
/// The fraction is outside `0.0..1.0`, or it is above 0 and there are fewer than two items.
///
/// # Example
///
/// ```
/// let (train, held_out) = lisa_lm::text::split((0..10).collect(), 0.2, 42)?;
/// assert_eq!((train.len(), held_out.len()), (8, 2));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
pub fn split<T>(items: Vec<T>, fraction: f64, seed: u64) -> Result<(Vec<T>, Vec<T>), Error> {
    if !(0.0..1.0).contains(&fraction) {
        return Err(Error::new(
            ErrorKind::Config,
            format!("the validation split is {fraction}"),
        )
        .with_help("give a fraction of at least 0 and below 1"));
    }
    if fraction == 0.0 {
        return Ok((items, Vec::new()));
    }
    let count = items.len();
    if count < 2 {
        return Err(Error::new(
            ErrorKind::Data,
            format!("a validation split needs 2 examples, but there are {count}"),
        )
        .with_help("set the validation split to 0"));
    }
    let held_out = ((count as f64 * fraction).round() as usize).clamp(1, count - 1);
    // An epoch that training never reaches: the split is independent of the order of epoch 0.
    let mut is_held_out = vec![false; count];
    for index in &shuffled(count, seed, u64::MAX)[..held_out] {
        is_held_out[*index] = true;
    }
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    for (item, held_out) in items.into_iter().zip(is_held_out) {
        if held_out {
            &mut validation
        } else {
            &mut train
        }
        .push(item);
    }
    Ok((train, validation))
}

#[cfg(test)]
mod tests {
    use super::*;

    // The literals are another implementation's of ChaCha8 (RFC 8439 with eight rounds).
    #[test]
    fn an_order_is_a_pure_function_of_seed_and_epoch() {
        assert_eq!(shuffled(8, 0, 0), [2, 1, 3, 7, 0, 4, 5, 6]);
        assert_eq!(shuffled(8, 0, 1), [3, 7, 2, 1, 4, 0, 6, 5]);
        assert_eq!(shuffled(8, 42, 0), [3, 6, 0, 4, 5, 2, 1, 7]);
        assert_eq!(shuffled(0, 1, 1), Vec::<usize>::new());
        assert_eq!(shuffled(1, 1, 1), [0]);
    }

    #[test]
    fn an_order_holds_every_index_once() {
        let mut order = shuffled(1000, 7, 3);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_split_parts_every_item_and_keeps_the_order() {
        let (train, validation) = split((0..20).collect(), 0.2, 5).unwrap();
        assert_eq!(validation, [0, 1, 8, 16]);
        let mut all = [train.clone(), validation].concat();
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
        assert!(train.is_sorted());
    }

    #[test]
    fn a_split_holds_out_at_least_one_and_leaves_one() {
        assert_eq!(split(vec![1, 2, 3], 0.01, 0).unwrap().1.len(), 1);
        assert_eq!(split(vec![1, 2, 3], 0.99, 0).unwrap().0.len(), 1);
        assert_eq!(
            split(vec![1, 2, 3], 0.0, 0).unwrap(),
            (vec![1, 2, 3], vec![])
        );
    }

    #[test]
    fn a_split_out_of_range_says_so() {
        for wrong in [-0.1, 1.0, f64::NAN] {
            let error = split(vec![1, 2, 3], wrong, 0).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(&wrong.to_string()), "{error}");
        }
        assert_eq!(split(vec![1], 0.5, 0).unwrap_err().kind(), ErrorKind::Data);
    }
}
