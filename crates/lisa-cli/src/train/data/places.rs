//! [`Places`]: where examples are in their files.

use std::path::Path;
use std::sync::Arc;

use lisa_lm::text::Place;

/// The places of examples, in order, with 8 bytes for each.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// The files, and whether their examples are in rows without lines.
    files: Vec<(Arc<Path>, bool)>,
    /// For each example its file, counted from 1, and its line or row there; 0: it has no place.
    at: Vec<(u32, u32)>,
}

impl Places {
    /// Adds the place of the next example.
    pub(crate) fn push(&mut self, place: Option<&Place>) {
        let Some(place) = place else {
            self.at.push((0, 0));
            return;
        };
        if self
            .files
            .last()
            .is_none_or(|(file, _)| **file != *place.file())
        {
            let is_row = place.row().is_some();
            self.files.push((Arc::from(place.file()), is_row));
        }
        let number = place.line().or(place.row()).unwrap_or_default();
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.at.push((self.files.len() as u32, number));
    }

    /// The number of examples.
    pub(crate) fn len(&self) -> usize {
        self.at.len()
    }

    /// The place of an example.
    pub(crate) fn get(&self, index: usize) -> Option<Place> {
        let (file, number) = *self.at.get(index)?;
        let (file, is_row) = self.files.get((file as usize).checked_sub(1)?)?;
        let (file, number) = (Arc::clone(file), number as usize);
        Some(if *is_row {
            Place::at_row(file, number)
        } else {
            Place::at_line(file, number)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_kept() {
        let [a, b] = ["a.jsonl", "b.parquet"].map(Path::new);
        let all = [
            Some(Place::at_line(a, 1)),
            Some(Place::at_line(a, 7)),
            None,
            Some(Place::at_row(b, 3)),
            Some(Place::at_line(a, 2)),
        ];
        let mut places = Places::default();
        for place in &all {
            places.push(place.as_ref());
        }
        let found = (0..places.len()).map(|index| places.get(index));
        assert_eq!(found.collect::<Vec<_>>(), all);
        assert_eq!(places.get(5), None);
    }
}
