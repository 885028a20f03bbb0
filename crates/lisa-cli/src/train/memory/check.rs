//! [`check_memory`]: whether the machine and the device have the memory that a run needs, and
//! [`check_rows`] and [`check_rows_of_model`]: whether memory, and the model's limit, leave enough of the data.

use anyhow::Result;

use super::fitting::changes;
use super::planned::Planner;
use crate::machine::total_bytes;
use crate::settings::{Quantize, Settings};
use crate::terminal::output::warn;
use crate::terminal::text::{counted, size};
use crate::user_error::UserError;

/// Prints what a user should know of the memory that a run needs: that it does not fit, or that quantized
/// layers need more of it. A run that `starts` is refused if it needs more memory of the machine than there
/// is: the operating system would kill it. With `--memory`, the user has said how much a CPU has.
pub(crate) fn check_memory(
    planner: Planner<'_>,
    settings: &Settings,
    tokens: usize,
    starts: bool,
) -> Result<()> {
    let total = total_bytes().filter(|_| starts);
    check_in([total, planner.room(settings)], planner, settings, tokens)
}

fn check_in(
    [total, room]: [Option<u64>; 2],
    planner: Planner<'_>,
    settings: &Settings,
    tokens: usize,
) -> Result<()> {
    let rows = settings.training.batch_size;
    let plan = planner.plan_run(settings, tokens)?;
    let needed = plan.needed();
    let of_batch = || {
        let (rows, tokens) = (counted(rows, "row"), counted(tokens, "token"));
        format!("the run needs {} for {rows} of {tokens}", size(needed))
    };
    let too_little = |bytes: u64| total.filter(|total| bytes > *total);
    if !planner.hardware.is_host()
        && let Some(total) = too_little(plan.host)
    {
        return Err(UserError::new(format!(
            "the run needs {} of host memory, but this machine has {} of memory and swap for it",
            size(plan.host),
            size(total)
        ))
        .with_help("a run without --quantize and with --moments drop keeps nothing in host memory")
        .into());
    }
    if planner.hardware.is_host()
        && settings.memory.memory == 0.0
        && let Some(total) = too_little(needed)
    {
        let changes = changes(planner, settings, tokens, total)?;
        return Err(UserError::new(format!(
            "{}, but this machine has {} of memory and swap for it",
            of_batch(),
            size(total)
        ))
        .with_help(format!(
            "{changes}. The plan may be too high: to run anyway, give --memory GIB"
        ))
        .into());
    }
    if let Some(room) = room.filter(|room| needed > *room) {
        let changes = changes(planner, settings, tokens, room)?;
        warn(format!(
            "{}, more than the {} that are available; {changes}",
            of_batch(),
            size(room),
        ));
    }
    if let Some(note) = of_quantized(planner, settings, tokens)? {
        warn(note);
    }
    Ok(())
}

/// That the backward pass keeps dequantized weights, if the run needs more memory because of it.
fn of_quantized(
    planner: Planner<'_>,
    settings: &Settings,
    tokens: usize,
) -> Result<Option<String>> {
    let (memory, rows) = (&settings.memory, settings.training.batch_size);
    if memory.quantize == Quantize::None || memory.recompute == 1 || memory.sublayers {
        return Ok(None);
    }
    let needed = planner.needed(settings, rows, tokens)?;
    let mut exact = settings.clone();
    exact.memory.quantize = Quantize::None;
    let exact = planner.needed(&exact, rows, tokens)?;
    let (with, layers, flag) = if memory.recompute == 0 {
        (
            "without --recompute".to_owned(),
            String::new(),
            "add --recompute",
        )
    } else if needed > exact {
        let layers = memory.recompute.min(planner.model.num_layers());
        (
            format!("with --recompute {}", memory.recompute),
            format!(" of {layers} layers"),
            "use --recompute 1",
        )
    } else {
        return Ok(None);
    };
    Ok(Some(format!(
        "--quantize {with} needs {} instead of {}, because the backward pass keeps the dequantized \
         weights{layers}; {flag}",
        size(needed),
        size(exact)
    )))
}

/// A run is refused if memory or the model's limit shortens its rows so much that more than one row in
/// `LEFT_OUT` has no trained token. Data with some long rows is not refused: most of its rows are short.
const LEFT_OUT: usize = 2;

/// Rows that have a trained token within a length, and all rows: training rows and held-out rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) training: (usize, usize),
    /// 0 of 0 if they are not evaluated.
    pub(crate) held_out: (usize, usize),
}

impl Kept {
    /// The rows that are left out, if they are most training rows or all held-out rows.
    fn too_few(self) -> Option<String> {
        let ((kept, all), (kept_held_out, held_out)) = (self.training, self.held_out);
        if (all - kept) * LEFT_OUT > all {
            Some(format!("{} of {all} training rows", all - kept))
        } else if held_out > 0 && kept_held_out == 0 {
            Some(format!("all {}", counted(held_out, "held-out row")))
        } else {
            None
        }
    }

    /// Whether held-out rows are kept, or there are none.
    fn has_held_out(self) -> bool {
        self.held_out.1 == 0 || self.held_out.0 > 0
    }

    /// How to train on the rows that are kept; nothing if no training row is.
    fn help(self, length: usize) -> String {
        let kept = self.training.0;
        if kept == 0 {
            return String::new();
        }
        let rows = counted(kept, "row");
        let evaluation = if self.has_held_out() {
            ""
        } else {
            " and --no-eval"
        };
        format!(". To train on the other {rows}, give --max-seq-length {length}{evaluation}")
    }
}

/// Refuses a run that would leave most of its training rows or all its held-out rows out because of memory.
/// Without regard to memory, rows would have up to `usual` tokens. A length that the user gave is not
/// refused.
pub(crate) fn check_rows(
    planner: Planner<'_>,
    settings: &Settings,
    usual: usize,
    rows: Kept,
) -> Result<()> {
    let length = settings.input.max_seq_length;
    let Some(room) = planner.room(settings).filter(|_| length < usual) else {
        return Ok(());
    };
    let Some(found) = rows.too_few() else {
        return Ok(());
    };
    let help = changes(planner, settings, usual, room)? + &rows.help(length);
    Err(UserError::new(format!(
        "rows of {usual} tokens do not fit into {} and would be cut at {length}: {found} have no token to \
         train on within {length} tokens",
        size(room),
    ))
    .with_help(help)
    .into())
}

/// Refuses a run that would leave most of its training rows out because of the model's limit, `positions`
/// tokens. With `length` tokens, as memory allows, it would train on `kept` rows. If nothing is kept, the
/// rows are refused with their file when they are cut.
pub(crate) fn check_rows_of_model(
    positions: usize,
    rows: Kept,
    (length, kept): (usize, Kept),
) -> Result<()> {
    let found = rows
        .too_few()
        .filter(|_| rows.training.0 > 0 && rows.has_held_out());
    let Some(found) = found else {
        return Ok(());
    };
    Err(UserError::new(format!(
        "the model has {positions} positions: {found} have no token to train on within {positions} tokens"
    ))
    .with_help(format!(
        "use a model with more positions, or shorten the prompts of the data{}",
        kept.help(length)
    ))
    .into())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::hardware::Hardware;
    use super::*;
    use crate::settings::{Flags, Method};

    #[test]
    fn a_run_that_needs_more_than_the_machine_has_is_refused() {
        let config = lisa_lm::ModelConfig::from_json(crate::bundled::CONFIG).unwrap();
        let model = config.init(&Device::default().autodiff()).unwrap();
        let mut settings = Flags::default().resolve(None).unwrap();
        settings.method.method = Method::Full;
        let check = |settings: &Settings, hardware, total: Option<u64>| {
            let planner = Planner::new(&model, hardware);
            let checked = check_in([total, None], planner, settings, 256);
            checked.map_err(|error| crate::terminal::report::report(&error))
        };
        let cpu = Hardware::Flex;
        let needed = Planner::new(&model, cpu)
            .plan_run(&settings, 256)
            .unwrap()
            .needed();
        check(&settings, cpu, Some(needed)).unwrap();
        // A dry run only warns.
        check(&settings, cpu, None).unwrap();
        let shown = check(&settings, cpu, Some(needed - 1)).unwrap_err();
        for part in [&size(needed)[..], "256 tokens", "--batch-size 4"] {
            assert!(shown.contains(part), "{shown}");
        }
        settings.memory.memory = 0.001;
        check(&settings, cpu, Some(needed - 1)).unwrap();

        // On a GPU, only what is kept in host memory counts.
        let gpu = Hardware::Gpu;
        check(&settings, gpu, Some(1)).unwrap();
        settings.method.method = Method::Lisa;
        settings.memory.recompute = 1;
        settings.memory.quantize = Quantize::Int8;
        let host = Planner::new(&model, gpu)
            .plan_run(&settings, 256)
            .unwrap()
            .host;
        check(&settings, gpu, Some(host)).unwrap();
        let shown = check(&settings, gpu, Some(host - 1)).unwrap_err();
        assert!(
            shown.contains("host memory") && shown.contains(&size(host)),
            "{shown}"
        );
    }

    #[test]
    fn quantized_layers_that_need_more_memory_are_said() {
        let config = lisa_lm::ModelConfig::from_json(crate::bundled::CONFIG).unwrap();
        let model = config.init(&Device::default().autodiff()).unwrap();
        let planner = Planner::new(&model, Hardware::Gpu);
        let mut settings = Flags::default().resolve(None).unwrap();
        settings.memory.quantize = Quantize::Int4;
        let mut said = |recompute, sublayers| {
            settings.memory.recompute = recompute;
            settings.memory.sublayers = sublayers;
            of_quantized(planner, &settings, 256).unwrap()
        };
        assert_eq!(said(1, false), None);
        assert_eq!(said(8, true), None);
        for (recompute, parts) in [
            (0, ["without --recompute needs", "weights; add --recompute"]),
            // All layers are one segment.
            (
                9,
                [
                    "with --recompute 9 needs",
                    "weights of 8 layers; use --recompute 1",
                ],
            ),
        ] {
            let said = said(recompute, false).unwrap();
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        }
    }

    #[test]
    fn a_run_that_would_leave_most_rows_out_because_of_memory_is_refused() {
        let config = lisa_lm::ModelConfig::from_json(crate::bundled::CONFIG).unwrap();
        let model = config.init(&Device::default().autodiff()).unwrap();
        let planner = Planner::new(&model, Hardware::Flex);
        let mut settings = Flags::default().resolve(None).unwrap();
        settings.method.method = Method::Full;
        settings.memory.memory = 0.03;
        settings.training.batch_size = 1;
        settings.input.max_seq_length = 64;
        let check = |usual, [training, held_out]: [(usize, usize); 2]| {
            let rows = Kept { training, held_out };
            let checked = check_rows(planner, &settings, usual, rows);
            checked.map_err(|error| crate::terminal::report::report(&error))
        };
        let none = (0, 0);
        check(256, [(180, 360), none]).unwrap();
        check(256, [(180, 360), (1, 40)]).unwrap();
        // The length is not that of the memory.
        check(64, [(1, 360), (0, 40)]).unwrap();
        let shown = check(256, [(179, 360), none]).unwrap_err();
        for part in [
            "rows of 256 tokens do not fit into 31 MiB and would be cut at 64: 181 of 360 training rows have",
            "--recompute",
            "To train on the other 179 rows, give --max-seq-length 64",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
        let shown = check(256, [(360, 360), (0, 40)]).unwrap_err();
        assert!(
            shown.contains("cut at 64: all 40 held-out rows have no token"),
            "{shown}"
        );
        let part = "To train on the other 360 rows, give --max-seq-length 64 and --no-eval";
        assert!(shown.contains(part), "{shown}");
        let shown = check(256, [(0, 360), none]).unwrap_err();
        assert!(!shown.contains("To train on"), "{shown}");
    }

    #[test]
    fn the_models_limit_may_leave_as_many_rows_out_as_memory() {
        let check = |training, held_out| {
            let kept = Kept {
                training: (170, 360),
                held_out,
            };
            let checked = check_rows_of_model(256, Kept { training, held_out }, (200, kept));
            let error = checked.map_err(|error| error.downcast::<UserError>().unwrap());
            error.map_err(|error| (error.to_string(), error.help().unwrap().to_owned()))
        };
        check((180, 360), (0, 0)).unwrap();
        check((180, 360), (1, 40)).unwrap();
        let help = "use a model with more positions, or shorten the prompts of the data";
        let (message, shown) = check((179, 360), (1, 40)).unwrap_err();
        assert_eq!(
            message,
            "the model has 256 positions: 181 of 360 training rows have no token to train on within 256 \
             tokens"
        );
        assert_eq!(
            shown,
            format!("{help}. To train on the other 170 rows, give --max-seq-length 200")
        );
        // Where nothing of a kind is kept, the rows are refused with their file.
        check((0, 360), (1, 40)).unwrap();
        check((360, 360), (0, 40)).unwrap();
    }
}
