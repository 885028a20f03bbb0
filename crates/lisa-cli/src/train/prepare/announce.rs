//! [`announce`]: what a run will do, before it starts.

use anyhow::Result;
use lisa_lm::CausalLm;
use lisa_lm::text::Batches;

use super::job::Job;
use crate::device;
use crate::settings::{Method, MethodSettings, Policy};
use crate::terminal::output::{say, warn};
use crate::terminal::text::{counted, epochs_in_words, size};
use crate::train::memory::planned::Planner;
use crate::train::method::trainer::{Trainer, count};

/// Prints model, data, method, trainable parameters, steps, evaluation, memory and output.
pub(crate) fn announce(
    job: &Job<'_>,
    model: &CausalLm,
    trainer: &Trainer,
    batches: &Batches,
) -> Result<()> {
    let settings = &job.settings;
    if settings.input.is_demo() {
        say(
            "no --model and --data: this run has the model, the data and the settings of \
             `lisa demo`",
        )?;
    }
    // A resumed run has the model and the data that it began with.
    if job.saved.is_none()
        && let Some(warning) = settings.input.half_bundled()
    {
        warn(warning);
    }
    let (trainable, all) = count(model);
    let longest = job.data.longest(settings);
    let mut lines = vec![
        ("model", model_line(job, model)),
        ("data", data_line(job)),
        ("method", method_line(job, model, trainer)),
        (
            "trainable",
            format!(
                "{} of {} parameters ({:.1} %)",
                millions(trainable),
                millions(all),
                100.0 * trainable as f64 / all.max(1) as f64
            ),
        ),
        ("training", steps_line(job, batches)),
        ("evaluation", evaluation_line(job)),
    ];
    // The layers of the model are masked already.
    let plan = Planner::new(&job.shape()?, job.device).plan_run(settings, longest)?;
    let peak = size(plan.needed());
    lines.push((
        "memory",
        format!("about {peak} planned, for rows of up to {longest} tokens"),
    ));
    lines.push(("output", output_line(job)));
    for (name, text) in lines {
        say(format_args!("{name:<11} {text}"))?;
    }
    for line in job.origins.lines(settings, false) {
        say(format_args!("  {line}"))?;
    }
    Ok(())
}

fn model_line(job: &Job<'_>, model: &CausalLm) -> String {
    let path = &job.settings.input.model;
    let name = if path.as_os_str().is_empty() {
        "the bundled model".to_owned()
    } else {
        path.display().to_string()
    };
    format!(
        "{name}: {} parameters in {}, {} on {}",
        millions(count(model).1),
        counted(model.num_layers(), "layer"),
        job.settings.memory.dtype,
        device::name(job.device)
    )
}

fn data_line(job: &Job<'_>) -> String {
    format!(
        "{} to train on, {} held out",
        counted(job.data.train.len(), "row"),
        job.data.held_out_sources.len()
    )
}

fn method_line(job: &Job<'_>, model: &CausalLm, trainer: &Trainer) -> String {
    let method = &job.settings.method;
    match method.method {
        Method::Full => "full: all parameters".to_owned(),
        Method::Lora => format!("lora: adapters of rank {}", method.lora_rank),
        Method::Lisa => {
            let active = trainer.active_layers();
            let all = match (trainer.layers(), model.num_layers()) {
                (parts, layers) if parts != layers => format!("{parts} parts of {layers}"),
                (layers, _) => layers.to_string(),
            };
            // The checkpoint of a resumed run, which has its layers, is not loaded yet.
            let which = if job.saved.is_some() {
                String::new()
            } else {
                let names: Vec<String> = active.iter().map(ToString::to_string).collect();
                format!(" ({})", names.join(", "))
            };
            format!(
                "lisa: {} of {all} layers{which}, {}",
                active.len(),
                sampled(method)
            )
        }
    }
}

/// When the layers are sampled, and in which periods the parameters outside the layers train, if not
/// in all.
pub(crate) fn sampled(method: &MethodSettings) -> String {
    let period = counted(method.period, "step");
    let is_fixed = method.policy == Policy::Fixed;
    let layers = if is_fixed {
        "always the same".to_owned()
    } else {
        format!("sampled anew every {period}")
    };
    let of = if is_fixed {
        format!(" of {period}")
    } else {
        String::new()
    };
    match method.outer_every {
        1 => layers,
        every => format!("{layers}; parameters outside the layers in 1 of {every} periods{of}"),
    }
}

fn steps_line(job: &Job<'_>, batches: &Batches) -> String {
    let training = &job.settings.training;
    let accumulation = training.gradient_accumulation_steps;
    // An epoch may have fewer rows than a batch, and fewer batches than a step.
    let rows = counted(training.batch_size.min(batches.rows()), "row");
    let rows = match accumulation.min(batches.per_epoch()) {
        1 => rows,
        batches => format!("{batches} batches of {rows}"),
    };
    let epochs = job.steps as f64 / batches.steps_per_epoch(accumulation).max(1) as f64;
    format!(
        "{} of {rows}, {}; learning rate up to {:e}, {}",
        counted(job.steps as usize, "step"),
        epochs_in_words(epochs),
        training.lr,
        training.schedule
    )
}

fn evaluation_line(job: &Job<'_>) -> String {
    let output = &job.settings.output;
    let (rows, all) = job.evaluate.rows();
    if rows == 0 {
        return if output.no_eval {
            "none: --no-eval".to_owned()
        } else {
            "none: no row is held out".to_owned()
        };
    }
    let every = output.eval_every;
    let every = (every > 0 && (every as u64) < job.steps).then(|| counted(every, "step"));
    let answers = match job.evaluate.answers() {
        0 => String::new(),
        count => format!(" with {}", counted(count, "generated answer")),
    };
    let rows = if rows == all {
        counted(rows, "held-out row")
    } else {
        format!("{rows} of {all} held-out rows")
    };
    // A resumed run was evaluated before training.
    let first = job.saved.is_none().then(|| job.evaluate.first_rows());
    let first = first.map(|first| (first, first < job.evaluate.rows().0));
    format!("{}{answers}", when(&rows, first, every.as_deref()))
}

/// When held-out rows are evaluated: `first` are those before training, and whether there are more; `every`
/// are the steps between two evaluations.
fn when(rows: &str, first: Option<(usize, bool)>, every: Option<&str>) -> String {
    let every = every.map(|every| format!("every {every}"));
    let mut times: Vec<String> = Vec::from_iter(every);
    let mut before = String::new();
    match first {
        Some((first, true)) => before = format!("{first} rows before training, "),
        Some((_, false)) => times.insert(0, "before training".to_owned()),
        None => {}
    }
    match times.join(", ") {
        times if times.is_empty() => format!("{before}{rows} at the end"),
        times => format!("{before}{rows} {times} and at the end"),
    }
}

fn output_line(job: &Job<'_>) -> String {
    let output = &job.settings.output;
    let every = match output.save_every {
        0 if output.eval_every > 0 && !job.evaluate.is_empty() => {
            "a checkpoint at the end only, none of the best step (--save-every 0)".to_owned()
        }
        every if every == 0 || every as u64 >= job.steps => "a checkpoint at the end".to_owned(),
        every => format!(
            "a checkpoint every {}, {}{} kept",
            counted(every, "step"),
            output.keep,
            match (job.evaluate.is_empty(), output.keep) {
                (false, _) => " and the best are",
                (true, 1) => " is",
                (true, _) => " are",
            }
        ),
    };
    format!(
        "{}: {every}; at most {} on disk",
        output.out.display(),
        size(job.disk)
    )
}

/// A number of parameters, such as `134.5 M`.
fn millions(count: usize) -> String {
    format!("{:.1} M", count as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::when;

    #[test]
    fn the_evaluation_before_training_is_said() {
        let steps = Some("5 steps");
        for (first, every, expected) in [
            (
                Some((16, true)),
                None,
                "16 rows before training, ROWS at the end",
            ),
            (
                Some((16, true)),
                steps,
                "16 rows before training, ROWS every 5 steps and at the end",
            ),
            (
                Some((3, false)),
                None,
                "ROWS before training and at the end",
            ),
            (
                Some((3, false)),
                steps,
                "ROWS before training, every 5 steps and at the end",
            ),
            (None, None, "ROWS at the end"),
            (None, steps, "ROWS every 5 steps and at the end"),
        ] {
            assert_eq!(when("ROWS", first, every), expected);
        }
    }
}
