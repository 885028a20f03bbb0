//! The learning rate of each step, and the names of its settings.

use std::path::Path;

use super::effect::idle;
use super::{Facts, Flags, ModelFacts, Origin, Schedule, defaults, given, toml};
use crate::user_error::UserError;

/// The rates of a run of 12 steps with two steps of warm-up, by schedule and final rate.
fn rates(schedule: Schedule, min_lr_ratio: f64) -> Vec<f64> {
    let mut training = defaults().training;
    (training.lr, training.schedule) = (1.0, schedule);
    (training.warmup_steps, training.min_lr_ratio) = (2, min_lr_ratio);
    (0..12)
        .map(|step| training.learning_rate(step, 12))
        .collect()
}

fn close(found: f64, wanted: f64) {
    assert!((found - wanted).abs() < 1e-12, "{found}, not {wanted}");
}

#[test]
fn each_schedule_has_its_rates() {
    for (schedule, middle, last) in [
        // 0.1 + 0.9 * (1 + cos(9 / 10 pi)) / 2.
        (Schedule::Cosine, 0.55, 0.122_024_567_667_180_9),
        // 1 - 0.9 * 9 / 10.
        (Schedule::Linear, 0.55, 0.19),
        (Schedule::Constant, 1.0, 1.0),
    ] {
        let rates = rates(schedule, 0.1);
        for (step, wanted) in [(0, 0.5), (1, 1.0), (2, 1.0), (7, middle), (11, last)] {
            assert!(
                (rates[step] - wanted).abs() < 1e-12,
                "{schedule}, step {step}: {}",
                rates[step]
            );
        }
    }
    let linear = rates(Schedule::Linear, 0.0);
    // As in transformers, the rate after the last step would be 0.
    for (step, rate) in linear.iter().enumerate().skip(2) {
        close(*rate, (12 - step) as f64 / 10.0);
    }
    // The final rate itself.
    let mut training = defaults().training;
    (training.lr, training.schedule, training.min_lr) = (0.5, Schedule::Linear, 0.2);
    training.warmup_ratio = 0.0;
    close(training.learning_rate(0, 10), 0.5);
    close(training.learning_rate(5, 10), 0.35);
    close(training.learning_rate(10, 10), 0.2);
}

/// Those of the study (bench/src/study/job.rs): steps from 1 on.
#[test]
fn the_runs_of_the_study_can_be_made() {
    let line = "--schedule linear --warmup-ratio 0.05 --min-lr-ratio 0 --max-grad-norm 0 --lr 3e-4";
    let line: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let training = given(&line).resolve(None).unwrap().training;
    assert_eq!(training.max_grad_norm, 0.0);
    let (steps, warm_up) = (120, 6);
    for step in 1..=steps {
        let studied = if step <= warm_up {
            step as f64 / warm_up as f64
        } else {
            (steps - step + 1) as f64 / (steps - warm_up) as f64
        };
        close(training.learning_rate(step - 1, steps), 3e-4 * studied);
    }
}

#[test]
fn a_file_of_transformers_has_its_schedule() {
    let of = |text: &str| toml(text).unwrap().resolve(None).unwrap().training;
    let file =
        "learning_rate = 1e-4\nlr_scheduler_type = \"linear\"\nwarmup_steps = 5\nmax_steps = 100";
    let training = of(file);
    assert_eq!(
        (training.schedule, training.warmup_steps, training.lr),
        (Schedule::Linear, 5, 1e-4)
    );
    // 0 is "not given" there, too.
    let training = of("warmup_steps = 0\nwarmup_ratio = 0.5\nlr_scheduler_type = \"cosine\"");
    assert_eq!(
        (training.schedule, training.warmup_ratio),
        (Schedule::Cosine, 0.5)
    );
    for (word, schedule) in [
        ("cosine_with_min_lr", Schedule::Cosine),
        ("constant", Schedule::Constant),
        ("constant_with_warmup", Schedule::Constant),
    ] {
        let training = of(&format!("lr_scheduler_type = \"{word}\""));
        assert_eq!(training.schedule, schedule, "{word}");
    }
    let error = format!(
        "{:?}",
        toml("lr_scheduler_type = \"polynomial\"").unwrap_err()
    );
    assert!(
        error.contains("`lr_scheduler_type` is cosine or "),
        "{error}"
    );
}

#[test]
fn the_steps_of_the_warm_up_replace_its_ratio() {
    let (message, help) = idle("warmup_steps = 5\nwarmup_ratio = 0.1").unwrap();
    assert_eq!(
        message,
        "--warmup-ratio has no effect with --warmup-steps 5"
    );
    assert_eq!(help, "leave it out, or leave --warmup-steps out");
    let mut flags = Flags::default();
    flags.training.warmup_ratio = Some(0.5);
    let training = flags
        .or(toml("warmup-steps = 5").unwrap())
        .resolve(None)
        .unwrap()
        .training;
    assert_eq!((training.warmup_ratio, training.warmup_steps), (0.5, 0));
    let mut flags = Flags::default();
    flags.training.warmup_steps = Some(5);
    let merged = flags.or(toml("warmup-ratio = 0.5").unwrap());
    assert_eq!(merged.training.warmup_ratio, None);
    let settings = merged.clone().resolve(None).unwrap();
    merged.check_effect(&settings).unwrap();
    assert_eq!(settings.training.warmup_steps, 5);

    let (message, help) = idle("schedule = \"constant\"\nmin-lr-ratio = 0.2").unwrap();
    assert_eq!(
        message,
        "--min-lr-ratio has no effect with --schedule constant, which does not fall"
    );
    assert_eq!(help, "leave it out, or use --schedule linear or cosine");
}

#[test]
fn the_final_rate_and_its_ratio_replace_each_other() {
    let of = |flags: &str, file: &str| {
        let merged = toml(flags).unwrap().or(toml(file).unwrap());
        let settings = merged.clone().resolve(None).unwrap();
        merged.check_effect(&settings).unwrap();
        (merged.training.min_lr, merged.training.min_lr_ratio)
    };
    assert_eq!(
        of("min-lr = 1e-6", "min-lr-ratio = 0.5"),
        (Some(1e-6), None)
    );
    assert_eq!(of("min-lr-ratio = 0.5", "min-lr = 1e-6"), (None, Some(0.5)));
    assert_eq!(
        of("min-lr = -1", "min-lr-ratio = 0.5"),
        (Some(-1.0), Some(0.5))
    );
}

#[test]
fn a_linear_schedule_of_the_demonstration_falls_to_0() {
    let model = ModelFacts {
        dtype: None,
        parameters: 1_500_000,
        layers: 8,
        positions: 1024,
    };
    let facts = Facts {
        model: Some(&model),
        ..Facts::default()
    };
    let last = |flags: &str| {
        let settings = toml(flags).unwrap().resolve_with(facts).unwrap().0;
        settings.training.min_lr_ratio
    };
    assert_eq!((last("schedule = \"linear\""), last("")), (0.0, 0.1));
}

#[test]
fn the_learning_rate_rises_and_falls() {
    let mut training = defaults().training;
    (training.lr, training.warmup_ratio, training.min_lr_ratio) = (1.0, 0.1, 0.1);
    let rate = |step| training.learning_rate(step, 100);
    assert!((rate(0) - 0.1).abs() < 1e-12 && (rate(9) - 1.0).abs() < 1e-12);
    assert!((rate(10) - 1.0).abs() < 1e-12 && (rate(55) - 0.55).abs() < 1e-9);
    assert!((rate(100) - 0.1).abs() < 1e-12);
    // The final rate itself, instead of its ratio.
    training.lr = 0.5;
    training.min_lr = 0.2;
    assert!((training.learning_rate(100, 100) - 0.2).abs() < 1e-12);
    assert!((training.learning_rate(55, 100) - 0.35).abs() < 1e-9);
    training.min_lr = 0.0;
    assert!(training.learning_rate(100, 100).abs() < 1e-12);
}

#[test]
fn the_final_rate_is_at_most_the_highest_and_replaces_its_ratio() {
    let error = toml("lr = 1e-4\nmin_lr = 1e-3").unwrap();
    let error = error.resolve(None).unwrap_err();
    let error = error.downcast_ref::<UserError>().unwrap();
    assert_eq!(error.to_string(), "--min-lr is 0.001, and --lr is 0.0001");
    assert_eq!(
        error.help(),
        Some("give a rate from 0 to 0.0001, which is --lr")
    );
    assert_eq!(error.place(), Some((Path::new("run.toml"), Some(2))));
    // The highest rate follows from the model, which is not known yet.
    let unknown = toml("model = \"m\"\nmin_lr = 1e-3").unwrap();
    unknown.clone().resolve(None).unwrap();
    let model = ModelFacts {
        dtype: None,
        parameters: 135_000_000,
        layers: 30,
        positions: 8192,
    };
    let facts = Facts {
        model: Some(&model),
        ..Facts::default()
    };
    assert!(unknown.clone().resolve_with(facts).is_err());
    // A ratio on the command line replaces the rate of a file, and a checkpoint has both.
    let mut flags = Flags::default();
    flags.training.min_lr_ratio = Some(0.5);
    let settings = flags
        .or(toml("lr = 1e-4\nmin_lr = 1e-5").unwrap())
        .resolve(None)
        .unwrap();
    assert_eq!(
        (settings.training.min_lr, settings.training.min_lr_ratio),
        (-1.0, 0.5)
    );
    let saved = settings.to_flags().all_from(&Origin::Checkpoint);
    assert_eq!(saved.resolve(None).unwrap(), settings);
}
