//! [`Limits`]: the longest rows and the largest batches that fit into memory.

use anyhow::Result;

use super::fitting::{batch, smaller};
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

    /// The batch of a run with these settings, of rows of `tokens` tokens, as flags: `None` if nothing
    /// fits. Smaller batches are accumulated to as many rows as the settings have. If that does not fit,
    /// fewer rows come before shorter ones.
    pub(crate) fn flags(
        self,
        planner: Planner<'_>,
        settings: &Settings,
        tokens: usize,
        bytes: u64,
    ) -> Result<Option<String>> {
        let with_length = |batch: &str, tokens| Some(format!("{batch} --max-seq-length {tokens}"));
        let all = settings.training.batch_size;
        let mut rows = all;
        loop {
            let mut changed = settings.clone();
            let flags = of_batch(&mut changed, rows);
            let has_all = rows == all || !settings.memory.update_in_backward;
            if has_all && planner.needed(&changed, rows, tokens)? <= bytes {
                return Ok(with_length(&flags, tokens));
            }
            if rows == 1 {
                break;
            }
            rows = rows.div_ceil(2);
        }
        if self.rows > 0 {
            return Ok(with_length(&format!("--batch-size {}", self.rows), tokens));
        }
        if self.tokens == 0 {
            return Ok(None);
        }
        let mut changed = settings.clone();
        let accumulated = of_batch(&mut changed, 1);
        let needed = |tokens| planner.needed(&changed, 1, tokens);
        Ok(match most(self.tokens, bytes, needed)? {
            0 => with_length("--batch-size 1", self.tokens),
            tokens => with_length(&accumulated, tokens),
        })
    }
}

/// Sets batches of `rows` rows, accumulated to as many as before. Returns the flags.
fn of_batch(settings: &mut Settings, rows: usize) -> String {
    smaller(settings, rows);
    batch(settings).join(" ")
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
        // Not one row of this length, but a shorter one.
        let short = limits(1024, bytes);
        assert_eq!((short.rows, short.tokens), (0, found.tokens));
        let none = limits(100, 1);
        assert_eq!((none.rows, none.tokens), (0, 0));
        let flags = none.flags(planner, &settings, 100, 1).unwrap();
        assert_eq!(flags, None);
    }

    #[test]
    fn the_flags_keep_the_rows_of_a_step() {
        let device = Device::default().autodiff();
        let config = lisa_lm::ModelConfig::from_json(crate::bundled::CONFIG).unwrap();
        let model = config.init(&device).unwrap();
        let planner = Planner::new(&model, &device);
        let mut settings = Flags::default().resolve(None).unwrap();
        settings.training.batch_size = 4;
        let needed = |settings: &Settings, rows, batches, tokens| {
            let mut settings = settings.clone();
            settings.training.gradient_accumulation_steps = batches;
            planner.needed(&settings, rows, tokens).unwrap()
        };
        let flags = |settings: &Settings, bytes| {
            let found = Limits::of(planner, settings, (256, 256), bytes).unwrap();
            let flags = found.flags(planner, settings, 256, bytes);
            flags.unwrap().unwrap_or_default()
        };
        // More rows would fit.
        let many = needed(&settings, 64, 1, 256);
        assert_eq!(
            flags(&settings, many),
            "--batch-size 4 --max-seq-length 256"
        );
        for (rows, batches) in [(2, 2), (1, 4)] {
            let bytes = needed(&settings, rows, batches, 256);
            let expected = format!(
                "--batch-size {rows} --gradient-accumulation-steps {batches} --max-seq-length 256"
            );
            assert_eq!(flags(&settings, bytes), expected);
        }
        let bytes = needed(&settings, 1, 4, 100);
        let found = flags(&settings, bytes.min(needed(&settings, 1, 1, 256) - 1));
        let short = "--batch-size 1 --gradient-accumulation-steps 4 --max-seq-length 1";
        assert!(found.starts_with(short), "{found}");
        let mut given = settings.clone();
        given.training.gradient_accumulation_steps = 3;
        assert_eq!(
            flags(&given, needed(&given, 4, 3, 256)),
            "--batch-size 4 --gradient-accumulation-steps 3 --max-seq-length 256"
        );
        // Batches that are not accumulated: as many rows as fit.
        settings.memory.recompute = 1;
        settings.memory.update_in_backward = true;
        let bytes = needed(&settings, 3, 1, 256);
        assert_eq!(
            flags(&settings, bytes),
            "--batch-size 3 --max-seq-length 256"
        );
    }
}
