//! [`Largest`]: the sums of the largest layers, which a plan needs for each segment.

use std::collections::BTreeSet;

use super::elements::{Draw, Elements, Unit};

/// Elements of the `n` largest layers, by n.
pub(super) struct Largest {
    /// Trainable elements, if as many parts of a layer as possible are active.
    pub(super) trainable: Sums,
    /// Elements of matrices that are quantized.
    pub(super) quantized: Sums,
    /// The same in layers that have active parts.
    pub(super) quantized_in_active: Sums,
}

impl Largest {
    pub(super) fn of(elements: &Elements, draw: &Draw) -> Self {
        let layers = elements.layers();
        let sums = |units: &[Unit], most: usize, of: fn(&Unit) -> u64| {
            let mut all = vec![(0, 0); layers];
            for unit in units {
                let (count, sum) = &mut all[unit.layer];
                if *count < most {
                    *sum += of(unit);
                }
                *count += 1;
            }
            all.into_iter().map(|(_, sum)| sum).collect::<Vec<u64>>()
        };
        let quantized = sums(&draw.frozen, usize::MAX, Unit::quantized_elements);
        let mut in_active = sums(&draw.active, usize::MAX, |unit| unit.never_trained.elements);
        let active: BTreeSet<usize> = draw.active.iter().map(|unit| unit.layer).collect();
        for layer in active {
            in_active[layer] += quantized[layer];
        }
        let trainable = sums(&elements.units, draw.active.len(), |unit| unit.trainable);
        Self {
            trainable: Sums::of(trainable),
            quantized: Sums::of(quantized),
            quantized_in_active: Sums::of(in_active),
        }
    }
}

/// Sums of the largest values.
pub(super) struct Sums(Vec<u64>);

impl Sums {
    fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable_by(|a, b| b.cmp(a));
        let mut sums = vec![0];
        for value in values {
            sums.push(sums[sums.len() - 1] + value);
        }
        Self(sums)
    }

    /// The sum of the `count` largest values, or of all.
    pub(super) fn largest(&self, count: usize) -> u64 {
        self.0[count.min(self.0.len() - 1)]
    }
}

#[test]
fn the_largest_values_are_added() {
    let sums = Sums::of(vec![3, 9, 4]);
    assert_eq!(
        [0, 1, 2, 3, 4].map(|count| sums.largest(count)),
        [0, 9, 13, 16, 16]
    );
    assert_eq!(Sums::of(Vec::new()).largest(1), 0);
}
