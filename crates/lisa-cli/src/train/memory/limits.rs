//! [`Limits`]: the longest rows and the largest batches that fit into memory.

use anyhow::Result;

use super::planned::Planner;
use crate::settings::Settings;

/// More rows are not looked for.
const MOST_ROWS: usize = 1024;

/// What fits into memory with one method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The most tokens of a row in a batch of one row; 0 if no row fits.
    pub(crate) tokens: usize,
    /// The most rows of the planned length in a batch; 0 if none fits.
    pub(crate) rows: usize,
}

impl Limits {
    /// Plans batches of these settings until they need more than `bytes`. A row has `tokens` tokens,
    /// and at most `positions` where the length is looked for.
    pub(crate) fn of(
        planner: Planner<'_>,
        settings: &Settings,
        (tokens, positions): (usize, usize),
        bytes: u64,
    ) -> Result<Self> {
        let needed = |rows, tokens| planner.needed(settings, rows, tokens);
        Ok(Self {
            tokens: most(positions, bytes, |tokens| needed(1, tokens))?,
            rows: most(MOST_ROWS, bytes, |rows| needed(rows, tokens))?,
        })
    }

    /// The flags of the largest batch, or of the longest row if not one row of the length fits. `None`
    /// if nothing fits.
    pub(crate) fn flags(self, tokens: usize) -> Option<String> {
        let (rows, tokens) = match self {
            Self { tokens: 0, .. } => return None,
            Self { rows: 0, tokens } => (1, tokens),
            Self { rows, .. } => (rows, tokens),
        };
        Some(format!("--batch-size {rows} --max-seq-length {tokens}"))
    }
}

/// The largest number up to `limit` that needs at most `bytes`, if larger numbers need more; 0 if 1
/// needs more.
fn most(limit: usize, bytes: u64, needed: impl Fn(usize) -> Result<u64>) -> Result<usize> {
    let (first, last) = (needed(1)?, needed(limit)?);
    if last <= bytes {
        return Ok(limit);
    }
    if first > bytes {
        return Ok(0);
    }
    let (mut low, mut high) = ((1, first), (limit, last));
    let mut halves = false;
    while high.0 - low.0 > 1 {
        // Memory grows nearly linearly, so a plan or two are enough; halving ends any search.
        let distance = high.0 - low.0;
        let share = (bytes - low.1) as f64 / (high.1 - low.1) as f64;
        let share = if halves { 0.5 } else { share };
        let step = (share * distance as f64) as usize;
        let middle = low.0 + step.clamp(1, distance - 1);
        let found = needed(middle)?;
        if found <= bytes {
            low = (middle, found);
        } else {
            high = (middle, found);
        }
        halves = !halves;
    }
    Ok(low.0)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::settings::Flags;

    #[test]
    fn the_largest_number_that_fits_is_found() {
        for limit in [1, 2, 7, 1000] {
            for largest in [0, 1, 2, 6, 7, 999, 1000] {
                for power in [1, 2] {
                    // As many bytes as `largest` needs, and a few more.
                    let needed = |number: usize| 10 + 7 * (number as u64).pow(power);
                    let found = most(limit, needed(largest) + 3, |number| Ok(needed(number)));
                    assert_eq!(found.unwrap(), largest.min(limit), "{limit} {power}");
                }
            }
        }
        // A straight line takes five plans, whatever the limit is.
        let plans = std::cell::Cell::new(0);
        let needed = |number: usize| {
            plans.set(plans.get() + 1);
            Ok(500 + 3 * number as u64)
        };
        assert_eq!(most(1_000_000, 500 + 3 * 1234, needed).unwrap(), 1234);
        assert!(plans.get() <= 5, "{plans:?}");
    }

    #[test]
    fn one_row_or_token_more_does_not_fit() {
        let device = Device::default().autodiff();
        let config = lisa_lm::ModelConfig::from_json(crate::bundled::CONFIG).unwrap();
        let model = config.init(&device).unwrap();
        let settings = Flags::default().resolve(None).unwrap();
        let planner = Planner::new(&model, &device);
        let needed = |rows, tokens| planner.needed(&settings, rows, tokens).unwrap();
        let limits = |tokens, bytes| Limits::of(planner, &settings, (tokens, 1024), bytes).unwrap();
        let bytes = needed(3, 100);
        let found = limits(100, bytes);
        assert_eq!(found.rows, 3);
        assert!(needed(1, found.tokens) <= bytes && needed(1, found.tokens + 1) > bytes);
        let flags = found.flags(100);
        assert_eq!(
            flags.as_deref(),
            Some("--batch-size 3 --max-seq-length 100")
        );
        // Not one row of this length, but a shorter one.
        let short = limits(1024, bytes);
        assert_eq!((short.rows, short.tokens), (0, found.tokens));
        let flags = format!("--batch-size 1 --max-seq-length {}", found.tokens);
        assert_eq!(short.flags(1024), Some(flags));
        let none = limits(100, 1);
        assert_eq!((none.rows, none.tokens, none.flags(100)), (0, 0, None));
    }
}
