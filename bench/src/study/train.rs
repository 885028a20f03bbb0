//! One run: the base model, trained in one way on one task, and what came of it. Tests: at the foot.

use std::path::Path;

use crate::held_out::{held_out_loss, input_of};
use anyhow::{Result, bail};
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};
use cpu_time::ProcessTime;
use lisa::importance::{Importance, NormTracker, WeightNorms};
use lisa::policy::CyclicOrder;
use lisa::policy::{Budget, Gradient};
use lisa::{Lisa, LisaConfig, PolicyConfig};
use lisa_lm::{BatchOptions, Batches, CausalLm, Encoded, IGNORED};

use super::base::{self, rows};
use super::job::{Job, Method, Outcome, Purpose};
use super::scale::Scale;
use super::tasks::{Question, domain_text};
use super::words::{END, Vocabulary};
use crate::method::adamw;

/// What a run is told.
struct Run<'a> {
    scale: &'a Scale,
    job: &'a Job,
    /// Of the layers, for the weighted policy.
    probabilities: &'a [f64],
}

/// Runs a job. `probabilities`: of the layers, for the weighted policy.
pub(crate) fn run(out: &Path, scale: &Scale, job: &Job, probabilities: &[f64]) -> Result<Outcome> {
    let device = Device::default().autodiff();
    let words = Vocabulary::new();
    let model = base::load(out, scale, &device)?;
    device.seed(job.seed);
    let questions = job.task.questions(base::SEED, scale);
    let train = encode(&questions.train, &words)?;
    if job.purpose == Purpose::Probe {
        return probe(scale, job, model, train);
    }
    let run = Run {
        scale,
        job,
        probabilities,
    };
    let mut outcome = Outcome::default();
    let mut trained = model.clone();
    if job.purpose == Purpose::Continual {
        let steps = scale.domain_steps;
        let text = domain_text(base::SEED, steps * scale.batch, scale.largest_term);
        // Two lines make a row.
        let rows = rows(&text, 48, &words)?;
        trained = run.fit(trained, rows, steps, None, &mut outcome)?;
        outcome = Outcome {
            cpu: outcome.cpu,
            ..Outcome::default()
        };
    }
    if job.method != Method::Base {
        trained = run.fit(trained, train, scale.steps, None, &mut outcome)?;
    }
    let held_out = match job.purpose {
        Purpose::Choice => questions.validation,
        _ => questions.test,
    };
    let held_out = encode(&held_out, &words)?;
    let plain = device.inner();
    outcome.loss = held_out_loss(&trained, &held_out, 64, END, &plain)?;
    outcome.asked = held_out.len();
    outcome.hits = exact(&trained, held_out, &plain)?;
    let mut norms = NormTracker::new(&model, &[])?;
    let mut updates = norms.clone();
    norms.observe(&trained)?;
    updates.observe_update(&trained, &model)?;
    let values = |tracker: NormTracker| -> Result<Vec<f64>> {
        let layers = tracker.norms()?.layers.into_iter();
        Ok(layers.map(|(_, norm)| norm).collect())
    };
    outcome.norms = values(norms)?;
    outcome.updates = values(updates)?;
    Ok(outcome)
}

/// A short LoRA run and a short full one, and the ratios of their mean weight norms.
fn probe(scale: &Scale, job: &Job, model: CausalLm, train: Vec<Encoded>) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut norms = |method, rate| -> Result<WeightNorms> {
        let mut tracker = NormTracker::new(&model, &[])?;
        let job = Job {
            method,
            rate,
            active_layers: 0,
            period: 0,
            ..job.clone()
        };
        let run = Run {
            scale,
            job: &job,
            probabilities: &[],
        };
        let (model, train, seen) = (model.clone(), train.clone(), Some(&mut tracker));
        run.fit(model, train, scale.probe_steps, seen, &mut outcome)?;
        Ok(tracker.norms()?)
    };
    let importance = Importance {
        lora: norms(Method::Lora8, job.rate + 1)?,
        full: norms(Method::Full, job.rate)?,
    };
    outcome.probabilities = importance.probabilities()?;
    Ok(outcome)
}

/// An optimizer, and which of the model trains.
enum Trainer {
    Lisa(Box<Lisa>),
    Plain(ModuleOptimizer),
}

impl Run<'_> {
    fn trainer(&self, steps: usize, model: CausalLm) -> Result<(Trainer, CausalLm)> {
        let (job, layers) = (self.job, self.scale.layers);
        if let Some(rank) = job.method.rank() {
            // Twice the rank, as is usual.
            let model = model.with_lora(rank, 2.0 * rank as f64)?;
            return Ok((Trainer::Plain(adamw().init()), model));
        }
        let share = job.active_layers as f64 / layers as f64;
        let config = LisaConfig::new()
            .with_seed(job.seed)
            .with_active_layers(job.active_layers)
            .with_sampling_period(match job.period {
                0 => steps + 1,
                period => period,
            });
        let config = match job.method {
            // Every layer in every period is AdamW.
            Method::Full => config.with_active_layers(layers),
            Method::Uniform => config,
            Method::Bernoulli => config.with_policy(PolicyConfig::Bernoulli(Vec::new())),
            Method::Weighted => {
                config.with_policy(PolicyConfig::Weighted(self.probabilities.to_vec()))
            }
            Method::Cyclic => config.with_policy(PolicyConfig::Cyclic(CyclicOrder::Reshuffled)),
            Method::Gradient => config.with_policy(PolicyConfig::Gradient(Gradient::new())),
            Method::Budget => config
                .with_policy(PolicyConfig::Budget(Budget::new().with_share(share)))
                .with_split(vec!["attn".into(), "input_layernorm".into()]),
            Method::Base | Method::Lora8 | Method::Lora64 => bail!("`{}` is not LISA", job.method),
        };
        let (lisa, model) = config.init(adamw(), model)?;
        Ok((Trainer::Lisa(Box::new(lisa)), model))
    }

    /// Trains for so many steps; what it took goes to `outcome`. `norms` sees the weights of each
    /// step.
    fn fit(
        &self,
        model: CausalLm,
        examples: Vec<Encoded>,
        steps: usize,
        mut norms: Option<&mut NormTracker>,
        outcome: &mut Outcome,
    ) -> Result<CausalLm> {
        let (job, layers) = (self.job, self.scale.layers);
        let device = model.device();
        let (mut trainer, mut model) = self.trainer(steps, model)?;
        let options = BatchOptions {
            batch_size: self.scale.batch,
            pack_to: None,
            shuffle: true,
            seed: job.seed,
            pad_id: END,
        };
        let mut batches = Batches::new(examples, options)?;
        let start = ProcessTime::now();
        let mut drawn = vec![0.0; layers];
        let last = steps - (steps / 10).max(1);
        let mut sum = 0.0;
        for step in 0..steps {
            let (input, targets) = input_of(&batches.next_batch(), &device);
            let loss = model.next_token_loss(&input, targets);
            if step >= last {
                sum += f64::from(loss.clone().into_scalar::<f32>());
            }
            let grads = GradientsParams::from_grads(loss.backward(), &model);
            let rate = learning_rate(job.learning_rate(), step, steps);
            match &mut trainer {
                Trainer::Plain(optimizer) => model = optimizer.step(rate, model, grads),
                Trainer::Lisa(lisa) => {
                    let parts = lisa.layers().layers().len() / layers;
                    for &part in lisa.active_layers() {
                        drawn[part / parts] += 1.0 / (parts * steps) as f64;
                    }
                    outcome.trained = outcome.trained.max(training(&model));
                    model = lisa.step(rate, model, grads);
                    outcome.state_bytes = outcome.state_bytes.max(lisa.memory().optimizer_state);
                }
            }
            if let Some(tracker) = norms.as_deref_mut() {
                tracker.observe(&model.clone().merge_lora())?;
            }
        }
        outcome.cpu += start.elapsed().as_secs_f64();
        outcome.training_loss = sum / (steps - last) as f64;
        match trainer {
            Trainer::Plain(_) => {
                outcome.trained = training(&model);
                // Two moments in f32.
                outcome.state_bytes = 8 * outcome.trained;
            }
            Trainer::Lisa(_) => outcome.drawn = drawn,
        }
        Ok(unfrozen(model.merge_lora()))
    }
}

/// The model with every weight free to train again, as a new run wants it.
fn unfrozen(model: CausalLm) -> CausalLm {
    model.set_require_grad(true)
}

/// How many numbers train.
fn training(model: &CausalLm) -> u64 {
    struct Count(usize);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.0 += param.lazy_shape().num_elements();
            }
        }
    }
    let mut count = Count(0);
    model.visit(&mut count);
    count.0 as u64
}

/// Rises over the first twentieth of the steps, then falls to 0 along a line.
pub(crate) fn learning_rate(highest: f64, step: usize, steps: usize) -> f64 {
    let warm_up = (steps / 20).max(1);
    if step < warm_up {
        return highest * (step + 1) as f64 / warm_up as f64;
    }
    highest * (steps - step) as f64 / (steps - warm_up) as f64
}

/// Questions as tokens; the loss is taken over the answer and the end.
pub(crate) fn encode(questions: &[Question], words: &Vocabulary) -> Result<Vec<Encoded>> {
    let one = |question: &Question| {
        let mut ids = words.encode(&question.prompt)?;
        let mut labels = vec![IGNORED; ids.len()];
        let mut answer = words.encode(&question.answer)?;
        answer.push(END);
        labels.extend(answer.iter().map(|id| i64::from(*id)));
        ids.extend(answer);
        Ok(Encoded { ids, labels })
    };
    questions.iter().map(one).collect()
}

/// How many answers greedy generation would give word for word, the end included.
///
/// Generation says the wanted answer where and only where each of its tokens is the most probable
/// behind the tokens before it, so one pass over the wanted answers tells.
pub(crate) fn exact(model: &CausalLm, examples: Vec<Encoded>, device: &Device) -> Result<usize> {
    let model = model.valid();
    let options = BatchOptions {
        batch_size: 64,
        pack_to: None,
        shuffle: false,
        seed: 0,
        pad_id: END,
    };
    let mut batches = Batches::new(examples, options)?;
    let mut hits = 0;
    for _ in 0..batches.per_epoch() {
        let batch = batches.next_batch();
        let [_, width] = batch.shape();
        let (input, _) = input_of(&batch, device);
        let said = model.forward(&input).argmax(2).into_data();
        let said: Vec<i64> = said.iter::<i64>().collect();
        for (row, said) in batch.rows().iter().zip(said.chunks(width)) {
            let mut pairs = row.targets.iter().zip(said);
            hits += usize::from(pairs.all(|(wanted, said)| *wanted == IGNORED || wanted == said));
        }
    }
    Ok(hits)
}

#[cfg(test)]
mod tests {
    use lisa_lm::{GenerationConfig, generate};

    use super::super::next::Plan;
    use super::super::tasks::Task;
    use super::*;

    fn scale() -> Scale {
        Scale {
            pretraining: [2, 2, 16],
            steps: 4,
            ..Scale::quick()
        }
    }

    fn jobs() -> Vec<Job> {
        let plan = Plan {
            scale: scale(),
            ..Plan::full()
        };
        let methods = [
            Method::Full,
            Method::Lora8,
            Method::Uniform,
            Method::Bernoulli,
            Method::Weighted,
            Method::Cyclic,
            Method::Gradient,
            Method::Budget,
        ];
        methods
            .map(|method| plan.run(Purpose::Test, Task::Facts, method, 1, 3))
            .to_vec()
    }

    #[test]
    fn a_run_is_a_pure_function_of_its_job() {
        let dir = tempfile::tempdir().unwrap();
        base::prepare(dir.path(), &scale()).unwrap();
        for job in jobs() {
            let again = || Outcome {
                cpu: 0.0,
                ..run(dir.path(), &scale(), &job, &[1.0, 2.0, 3.0, 4.0]).unwrap()
            };
            let first = again();
            assert_eq!(first, again(), "{}", job.method);
            assert!(first.loss.is_finite() && first.state_bytes > 0);
            // Two of four layers at a time, and whatever a coin says.
            let drawn: f64 = first.drawn.iter().sum();
            match job.method {
                Method::Full => assert!((drawn - 4.0).abs() < 1e-9),
                Method::Lora8 => assert!(first.drawn.is_empty()),
                Method::Bernoulli => assert!((0.0..=4.0).contains(&drawn)),
                _ => assert!((drawn - 2.0).abs() < 1e-9, "{} {drawn}", job.method),
            }
        }
    }

    #[test]
    fn an_answer_is_right_where_greedy_generation_gives_it() {
        let dir = tempfile::tempdir().unwrap();
        base::prepare(dir.path(), &scale()).unwrap();
        let device = Device::default();
        let model = base::load(dir.path(), &scale(), &device).unwrap();
        let config = GenerationConfig {
            max_new_tokens: 3,
            ..GenerationConfig::default()
        };
        let prompt = Vocabulary::new().encode("Anna has 3 hats").unwrap();
        let answer = generate(&model, &prompt, &config).unwrap();
        let example = |answer: &[u32]| {
            let mut labels = vec![IGNORED; prompt.len()];
            labels.extend(answer.iter().map(|id| i64::from(*id)));
            let ids = [prompt.as_slice(), answer].concat();
            Encoded { ids, labels }
        };
        let mut wrong = answer.clone();
        wrong[2] = (wrong[2] + 1) % 50;
        let hits = |examples| exact(&model, examples, &device).unwrap();
        assert_eq!(hits(vec![example(&answer)]), 1);
        assert_eq!(hits(vec![example(&wrong)]), 0);
        // Rows of different lengths in a batch.
        assert_eq!(
            hits(vec![
                example(&answer),
                example(&wrong),
                example(&answer[..1])
            ]),
            2
        );
    }

    #[test]
    fn a_probe_gives_a_probability_for_each_layer() {
        let dir = tempfile::tempdir().unwrap();
        base::prepare(dir.path(), &scale()).unwrap();
        let plan = Plan {
            scale: scale(),
            ..Plan::full()
        };
        let job = plan.probe(Task::Facts);
        let found = run(dir.path(), &scale(), &job, &[]).unwrap().probabilities;
        assert_eq!(found.len(), 4);
        assert!(found.iter().all(|p| (0.5..=1.0).contains(p)), "{found:?}");
    }

    #[test]
    fn the_learning_rate_rises_and_falls_to_nothing() {
        let rates: Vec<f64> = (0..40).map(|step| learning_rate(1.0, step, 40)).collect();
        assert_eq!(rates[..3], [0.5, 1.0, 1.0]);
        assert!(rates[2..].windows(2).all(|pair| pair[1] < pair[0]));
        assert!((rates[39] - 1.0 / 38.0).abs() < 1e-12);
    }
}
