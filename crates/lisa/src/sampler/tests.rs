//! Periods, their layers, and the errors of a draw.

use super::*;
use crate::policy::{Gradient, Statistic, Uniform};

/// Returns given layers, period by period.
#[derive(Debug)]
struct Told(&'static [&'static [usize]]);

impl SamplingPolicy for Told {
    fn name(&self) -> String {
        "told".into()
    }

    fn draw(&self, draw: &Draw) -> Vec<usize> {
        self.0[draw.period as usize % self.0.len()].to_vec()
    }

    fn observes(&self) -> Option<Observation> {
        Some(Observation {
            statistic: Statistic::MeanSquare,
            decay: 0.5,
        })
    }
}

fn sampling(policy: impl SamplingPolicy) -> Sampling {
    Sampling {
        policy: Arc::new(policy),
        seed: 42,
        active_layers: 2,
        period: 2,
        unbiased: false,
        outer_every: 1,
        warmup: 0,
        layers: (0..4).map(|i| (format!("layers.{i}"), 10)).collect(),
    }
}

#[test]
fn a_period_has_its_layers_and_the_next_one_others() {
    let mut sampler = Sampler::new(sampling(Told(&[&[2, 0, 2], &[3]]))).unwrap();
    assert_eq!(sampler.active(), [0, 2]);
    assert_eq!(sampler.active_paths(), "layers.0, layers.2");
    assert!(!sampler.advance() && sampler.advance());
    sampler
        .next(&BTreeMap::from([(0, 4.0), (2, f32::NAN)]))
        .unwrap();
    assert_eq!((sampler.active(), sampler.period()), (&[3][..], 1));
    assert!(sampler.is_active(Some(3)) && !sampler.is_active(Some(0)));
    let of = |layer| sampler.scores().get(layer);
    assert_eq!((of(0).score, of(0).last_drawn), (Some(4.0), Some(0)));
    assert_eq!((of(2).score, of(2).last_drawn), (None, Some(0)));
    assert_eq!(of(3).last_drawn, None);
}

#[test]
fn an_invalid_draw_is_an_error_and_changes_no_layer() {
    let cases: [(&'static [&'static [usize]], &str); 2] = [
        (&[&[1], &[4]], "drew layer 4 of 4"),
        (&[&[1], &[]], "drew no layer"),
    ];
    for (draws, message) in cases {
        let mut asked = sampling(Told(draws));
        asked.outer_every = 0;
        let mut sampler = Sampler::new(asked).unwrap();
        sampler.advance();
        sampler.advance();
        let error = sampler.next(&BTreeMap::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Policy);
        assert!(error.message().contains(message), "{error}");
        assert!(error.message().contains("`told`") && error.help().is_some());
        assert_eq!(sampler.active(), [1]);
    }
}

#[test]
fn parameters_outside_the_layers_train_in_every_nth_period() {
    for (every, expected) in [
        (0, [false; 7]),
        (1, [true; 7]),
        (2, [true, false, true, false, true, false, true]),
        (3, [true, false, false, true, false, false, true]),
        (9, [true, false, false, false, false, false, false]),
    ] {
        let mut asked = sampling(Told(&[&[1]]));
        asked.outer_every = every;
        let start = Sampler::new(asked).unwrap();
        for (period, expected) in expected.into_iter().enumerate() {
            for step in [2 * period, 2 * period + 1] {
                let run = start.at(step as u64, vec![1], &[]).unwrap();
                assert_eq!(run.is_active(None), expected, "{every}, step {step}");
            }
        }
    }
}

#[test]
fn layers_that_become_active_are_warmed_up() {
    let mut asked = sampling(Uniform);
    (asked.period, asked.warmup, asked.outer_every) = (5, 4, 2);
    let mut run = Sampler::new(asked).unwrap();
    let mut before: Option<(Vec<usize>, bool)> = None;
    let (mut warmed, mut stayed) = (0, 0);
    for _ in 0..12 {
        let now = (run.active().to_vec(), run.is_active(None));
        for step in 1..=5u32 {
            let rising = f64::from(step.min(4)) / 4.0;
            let factor = |was_active: bool| if was_active { 1.0 } else { rising };
            for &layer in run.active() {
                let was_active = before.as_ref().is_none_or(|(l, _)| l.contains(&layer));
                assert_eq!(run.warmup(Some(layer)), factor(was_active), "step {step}");
                warmed += usize::from(!was_active);
                stayed += usize::from(was_active && before.is_some());
            }
            if now.1 {
                let was_active = before.as_ref().is_none_or(|(_, outer)| *outer);
                assert_eq!(run.warmup(None), factor(was_active), "step {step}");
            }
            let resumed = run.at(run.steps(), run.active().to_vec(), &[]).unwrap();
            assert_eq!(resumed.was_active, run.was_active);
            if run.advance() {
                run.next(&BTreeMap::new()).unwrap();
            }
        }
        before = Some(now);
    }
    assert!(warmed > 20 && stayed > 5, "{warmed} {stayed}");
}

#[test]
fn a_period_without_layers_needs_the_parameters_outside_them() {
    let mut asked = sampling(Told(&[&[]]));
    asked.outer_every = 2;
    let mut sampler = Sampler::new(asked).unwrap();
    assert!(sampler.active().is_empty() && sampler.is_active(None));
    sampler.advance();
    sampler.advance();
    let error = sampler.next(&BTreeMap::new()).unwrap_err();
    assert!(error.message().contains("drew no layer"), "{error}");
    // As the layers of the previous period, which are none, stay active.
    assert_eq!((sampler.period(), sampler.is_active(None)), (1, true));
}

#[test]
fn a_run_goes_on_at_another_step() {
    let start = Sampler::new(sampling(Gradient::new())).unwrap();
    let mut run = start.clone();
    for period in 0..5u8 {
        run.advance();
        run.advance();
        let observed = run.active().iter().map(|&l| (l, f32::from(period) + 0.5));
        let observed = observed.collect();
        run.next(&observed).unwrap();
    }
    let scores: Vec<_> = run
        .scores()
        .iter()
        .map(|s| (s.score, s.last_drawn))
        .collect();
    let again = start.at(10, run.active().to_vec(), &scores).unwrap();
    assert_eq!(again.active(), run.active());
    assert_eq!((again.steps(), again.scores()), (10, run.scores()));
}

#[test]
fn probabilities_are_known_where_gradients_are_divided_by_them() {
    let mut asked = sampling(Uniform);
    assert!(Sampler::new(asked.clone()).unwrap().inclusion().is_none());
    asked.unbiased = true;
    let sampler = Sampler::new(asked).unwrap();
    assert_eq!(sampler.inclusion(), Some(&[0.5; 4][..]));
    let mut unknown = sampling(Gradient::new());
    unknown.unbiased = true;
    let error = Sampler::new(unknown).unwrap_err();
    assert!(
        error.message().contains("does not know how probable"),
        "{error}"
    );
}
