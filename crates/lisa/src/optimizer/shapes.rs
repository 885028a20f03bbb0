//! [`StateShapes`]: the shapes that the state of a parameter may have in a record that is loaded.

use std::any::TypeId;
use std::collections::BTreeSet;

use super::master::MASTER;
use super::slices::{is_elementwise, slice_of};
use crate::slicing::rows_of;

/// The shapes that the tensors of a parameter's state have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StateShapes {
    /// The shape of the parameter, or those of its slices.
    Sliced,
    /// The shape of the parameter.
    Whole,
    /// The shape of the parameter, or that shape with one of the last two dimensions reduced to 1.
    Factored,
    /// The shapes of an optimizer that is not Burn's.
    Free,
}

impl StateShapes {
    /// The shapes of this optimizer.
    pub(crate) fn of<O: 'static>() -> Self {
        use burn::optim::{Adafactor, Adan, Lamb, Muon};
        let this = TypeId::of::<O>();
        let whole = [
            TypeId::of::<Adan>(),
            TypeId::of::<Lamb>(),
            TypeId::of::<Muon>(),
        ];
        if is_elementwise::<O>() {
            Self::Sliced
        } else if this == TypeId::of::<Adafactor>() {
            Self::Factored
        } else if whole.contains(&this) {
            Self::Whole
        } else {
            Self::Free
        }
    }

    /// Whether any shape and dtype is accepted.
    pub(crate) fn is_free(self) -> bool {
        self == Self::Free
    }

    /// Whether the leaf of this name fits a parameter of this shape. `leaves` are all leaves of the
    /// parameter, with their shapes.
    pub(crate) fn fit(self, leaves: &[(&str, &[usize])], name: &str, shape: &[usize]) -> bool {
        let Some((_, found)) = leaves.iter().find(|leaf| leaf.0 == name) else {
            return false;
        };
        let found = *found;
        let same = found == shape;
        if is_master(name) {
            return same;
        }
        match self {
            Self::Free => true,
            Self::Whole => same,
            Self::Factored => {
                let reduced = |from_end: usize| {
                    let mut reduced = shape.to_vec();
                    if let Some(size) = reduced.iter_mut().nth_back(from_end - 1) {
                        *size = 1;
                    }
                    reduced
                };
                same || (shape.len() > 1 && (found == reduced(1) || found == reduced(2)))
            }
            Self::Sliced => {
                let slices: BTreeSet<usize> =
                    leaves.iter().filter_map(|leaf| slice_of(leaf.0)).collect();
                let Some(slice) = slice_of(name) else {
                    return same && slices.is_empty();
                };
                let (count, rows) = (slices.len(), shape.first().copied().unwrap_or(1));
                // All of them, from the first on, and cut as a step cuts them.
                if slices.last() != Some(&(count - 1)) || count > rows {
                    return false;
                }
                let part = rows_of(slice, count, rows);
                !part.is_empty()
                    && found.first() == Some(&part.len())
                    && found.get(1..) == shape.get(1..)
            }
        }
    }
}

/// Whether this leaf of a record has master weights.
pub(super) fn is_master(name: &str) -> bool {
    name.rsplit('.').next() == Some(MASTER)
}

#[cfg(test)]
mod tests {
    use super::StateShapes::{Factored, Sliced, Whole};
    use super::*;

    #[test]
    fn slices_of_a_large_parameter_fit_as_they_are_cut() {
        let name = |slice: usize| format!("1.moments.slice{slice}.momentum.moment_1");
        let fits = |sizes: &[usize]| {
            let names: Vec<String> = (0..sizes.len()).map(name).collect();
            let shapes: Vec<[usize; 2]> = sizes.iter().map(|rows| [*rows, 3]).collect();
            let leaves: Vec<(&str, &[usize])> = (names.iter().zip(&shapes))
                .map(|(name, shape)| (name.as_str(), &shape[..]))
                .collect();
            let mut names = names.iter();
            names.all(|name| Sliced.fit(&leaves, name, &[10, 3]))
        };
        assert!(fits(&[5, 5]) && fits(&[4, 4, 2]) && fits(&[10]) && fits(&[1; 10]));
        assert!(!fits(&[6, 4]) && !fits(&[5, 4]) && !fits(&[1; 11]) && !fits(&[5, 5, 5]));
        let one = |shapes: StateShapes, found: &[usize]| {
            shapes.fit(&[("1.moments.x", found)], "1.moments.x", &[10, 3])
        };
        assert!(one(Factored, &[10, 1]) && one(Factored, &[1, 3]) && one(Factored, &[10, 3]));
        assert!(!one(Factored, &[1, 1]) && !one(Whole, &[10, 1]) && !one(Sliced, &[5, 3]));
    }
}
