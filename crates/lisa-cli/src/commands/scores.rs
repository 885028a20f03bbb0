//! Scores of layers for `lisa importance`: from the gradients of a few batches, and from a run with
//! LoRA. Tests: at the end, and `tests/run/policies.rs`.

use anyhow::Result;
use burn::module::Module;
use lisa::LisaError;
use lisa::importance::{GradientTracker, NormTracker, Scores, distance_from_uniform};
use lisa::recompute::Recompute;

use super::probe::{After, Source, probe};
use crate::terminal::progress::bar;

/// Sampling by weights that are nearer to uniform than this is called uniform.
const NEAR: f64 = 0.05;

/// The gradient of each layer in a few batches, and also the expected decreases of the loss with
/// `decreases`. The gradients of one layer exist at a time, and there is no optimizer.
pub(super) fn gradients(source: &Source<'_>, decreases: bool) -> Result<GradientTracker> {
    let settings = &source.settings;
    let mut model = source.model()?;
    let mut tracker = GradientTracker::new(&model)?;
    if decreases {
        tracker = tracker.with_loss_decreases();
    }
    // The other parameters have no score.
    let layers = std::mem::take(&mut model.model.layers);
    model = model.no_grad();
    model.model.layers = layers;
    let mut batches = source.batches(settings)?;
    let device = model.device();
    let progress = bar(settings.training.steps as u64, 0);
    for _ in 0..settings.training.steps {
        for batch in batches.try_next_step(settings.training.gradient_accumulation_steps)? {
            let pass = Recompute::new().forward(&model, &batch.to_tensors(&device));
            let passed = pass.backward_with(model, |model, grads| {
                tracker.observe(&model, grads);
                model
            });
            model = passed.map_err(LisaError::from)?;
            tracker.end_batch();
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(tracker)
}

/// For each layer, the norm of its change in a run with LoRA, divided by the norm of its weights.
pub(super) fn lora_update(source: &Source<'_>) -> Result<Scores> {
    let base = source.model()?;
    let mut weights = NormTracker::new(&base, &[])?;
    let mut update = weights.clone();
    weights.observe(&base)?;
    // The run shares the weights of the base model, which are frozen.
    let trained = base.clone();
    probe(
        source,
        &source.settings,
        trained,
        After::LastStep,
        |merged| Ok(update.observe_update(merged, &base)?),
    )?;
    let (weights, update) = (weights.norms()?, update.norms()?);
    let layers = update.layers.into_iter().zip(weights.layers);
    Ok(Scores {
        by: "LoRA update".to_owned(),
        observations: source.settings.training.steps as u64,
        layers: layers
            .map(|((path, update), (_, weight))| (path, update / weight))
            .collect(),
    })
}

/// The score and the weight of each layer, with the words for one and for several observations.
pub(super) fn table(scores: &Scores, [one, several]: [&str; 2]) -> Result<String> {
    let count = scores.observations;
    let observations = if count == 1 { one } else { several };
    let mut text = format!(
        "scores by {} over {count} {observations}\n  {:<32}{:>12}{:>8}\n",
        scores.by, "", "score", "weight"
    );
    for ((path, score), weight) in scores.layers.iter().zip(scores.weights()?) {
        text.push_str(&format!("  {path:<32}{score:>12.4e}{weight:>8.3}\n"));
    }
    Ok(text)
}

/// How far sampling by these weights is from uniform, as text, and whether it is nearly uniform.
pub(super) fn from_uniform(weights: &[f64]) -> (String, bool) {
    let distance = distance_from_uniform(weights);
    let (least, most) = weights
        .iter()
        .fold((f64::INFINITY, 0.0f64), |(a, b), &w| (a.min(w), b.max(w)));
    let text = format!(
        "distance from uniform sampling {:.1} %: that share of the draws would be other layers; the \
         largest weight is {:.2} times the smallest",
        100.0 * distance,
        most / least
    );
    (text, distance < NEAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_scores_and_weights_and_the_distance_is_said() {
        let sizes = |by: &str, observations| Scores {
            by: by.to_owned(),
            observations,
            layers: vec![("layers.0".into(), 0.5), ("layers.1".into(), 2.0)],
        };
        let text = table(&sizes("gradient", 3), ["batch", "batches"]).unwrap();
        assert!(
            text.starts_with("scores by gradient over 3 batches\n"),
            "{text}"
        );
        assert!(text.contains("5.0000e-1   0.250\n"), "{text}");
        assert!(text.contains("2.0000e0   1.000\n"), "{text}");
        let text = table(&sizes("LoRA update", 1), ["step", "steps"]).unwrap();
        assert!(text.contains("over 1 step\n"), "{text}");
        let weights = sizes("gradient", 1).weights().unwrap();
        let (text, near) = from_uniform(&weights);
        assert!(
            text.contains("30.0 %") && text.contains("4.00 times"),
            "{text}"
        );
        assert!(!near && from_uniform(&[1.0, 0.95]).1);
    }

    #[test]
    fn scores_that_are_no_sizes_are_refused() {
        for (values, message) in [
            ([0.5, f64::NAN], "the score of `layers.1` is NaN"),
            ([f64::INFINITY, 0.5], "the score of `layers.0` is inf"),
            ([0.5, -0.5], "the score of `layers.1` is -0.5"),
            ([0.0, 0.0], "all 2 scores are 0"),
        ] {
            let layers = ["layers.0", "layers.1"].map(str::to_owned);
            let scores = Scores {
                by: "gradient".to_owned(),
                observations: 1,
                layers: layers.into_iter().zip(values).collect(),
            };
            assert_eq!(scores.weights().unwrap_err().message(), message);
            assert_eq!(scores.scaled(1).unwrap_err().message(), message);
            let error = table(&scores, ["batch", "batches"]).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
    }
}
