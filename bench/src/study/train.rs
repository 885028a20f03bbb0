//! One run: fine-tunes the checkpoint and scores the result.

use anyhow::{Result, bail, ensure};
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, FloatDType, Tensor};
use cpu_time::ProcessTime;
use lisa::policy::{Budget, CyclicOrder, Gradient};
use lisa::{Lisa, LisaConfig, PolicyConfig};
use lisa_lm::model::{BatchTensors, Input, LoraConfig};
use lisa_lm::text::{
    Batch, BatchOptions, Batches, EncodeOptions, Encoded, IGNORED, ReadOptions, encode_examples,
    read_examples,
};
use lisa_lm::{CausalLm, Checkpoint, Tokenizer};

use super::job::{Job, Method, Order, Outcome, Purpose};
use crate::method::adamw;
use crate::process;

/// Runs a job and prints its outcome.
pub(crate) fn work(order: &Order) -> Result<()> {
    process::print(&run(order)?)
}

fn run(order: &Order) -> Result<Outcome> {
    let job = &order.job;
    let device = Device::default().autodiff();
    let tokenizer = Tokenizer::from_dir(&order.model)?;
    let model = Checkpoint::open(&order.model)?.load(&device, Some(FloatDType::F32))?;
    device.seed(job.seed);
    let read = |file: &str| -> Result<Vec<Encoded>> {
        let examples = read_examples(&[order.task.join(file)], &ReadOptions::default())?.examples;
        let options = EncodeOptions {
            max_length: job.sizes.max_length,
            ..EncodeOptions::default()
        };
        Ok(encode_examples(&examples, &tokenizer, options)?.examples)
    };
    let mut train = read("train.jsonl")?;
    let scored = job.sizes.scored;
    ensure!(
        train.len() > scored,
        "`{}` has {} training examples; {scored} of them are for validation",
        job.task,
        train.len()
    );
    let validation = train.split_off(train.len() - scored);
    let held_out = match job.purpose {
        Purpose::Choice => validation,
        Purpose::Test => {
            let mut test = read("heldout.jsonl")?;
            test.truncate(scored);
            test
        }
    };
    let mut outcome = Outcome::default();
    let pad = tokenizer.pad_id();
    let model = if job.method == Method::Base {
        model
    } else {
        fit(job, model, train, pad, &mut outcome)?
    };
    score(&model, held_out, pad, &device.inner(), &mut outcome)?;
    Ok(outcome)
}

/// An optimizer, with the layers that it trains.
enum Trainer {
    Lisa(Box<Lisa>),
    Plain(ModuleOptimizer),
}

fn trainer(job: &Job, model: CausalLm) -> Result<(Trainer, CausalLm)> {
    let layers = model.num_layers();
    let share = job.sizes.active_layers as f64 / layers as f64;
    let config = LisaConfig::new()
        .with_seed(job.seed)
        .with_active_layers(job.sizes.active_layers)
        .with_sampling_period(job.sizes.period);
    let config = match job.method {
        Method::Lora => {
            let model = model.with_lora(&LoraConfig::new(8).with_seed(job.seed))?;
            return Ok((Trainer::Plain(adamw().init()), model));
        }
        // With every layer active in every period, LISA is AdamW.
        Method::Full => config.with_active_layers(layers),
        Method::Uniform => config,
        Method::Bernoulli => config.with_policy(PolicyConfig::Bernoulli(Vec::new())),
        Method::Cyclic => config.with_policy(PolicyConfig::Cyclic(CyclicOrder::Reshuffled)),
        Method::Gradient => config.with_policy(PolicyConfig::Gradient(Gradient::new())),
        Method::Budget => config
            .with_policy(PolicyConfig::Budget(Budget::new().with_share(share)))
            .with_split(vec!["attn".into(), "input_layernorm".into()]),
        Method::Base => bail!("`base` is not trained"),
    };
    let (lisa, model) = config.init(adamw(), model)?;
    Ok((Trainer::Lisa(Box::new(lisa)), model))
}

/// Trains; the costs are added to the outcome.
fn fit(
    job: &Job,
    model: CausalLm,
    examples: Vec<Encoded>,
    pad_id: u32,
    outcome: &mut Outcome,
) -> Result<CausalLm> {
    let (steps, layers, device) = (job.sizes.steps, model.num_layers(), model.device());
    let (mut trainer, mut model) = trainer(job, model)?;
    let options = BatchOptions {
        batch_size: job.sizes.batch,
        pack_to: None,
        shuffle: true,
        seed: job.seed,
        pad_id,
        vocab_size: model.config().vocab_size(),
    };
    let mut batches = Batches::new(examples, options)?;
    let start = ProcessTime::now();
    let mut active = vec![0.0; layers];
    let mut losses = Vec::new();
    for step in 0..steps {
        let (input, targets) = input_of(&batches.next_batch(), &device);
        let loss = model.next_token_loss(&input, targets);
        losses.push(f64::from(loss.clone().into_scalar::<f32>()));
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let rate = learning_rate(job.learning_rate(), step, steps);
        match &mut trainer {
            Trainer::Plain(optimizer) => model = optimizer.step(rate, model, grads),
            Trainer::Lisa(lisa) => {
                // Layers may be split into units.
                let units = lisa.layers().layers().len() / layers;
                for &unit in lisa.active_layers() {
                    active[unit / units] += 1.0 / (units * steps) as f64;
                }
                outcome.trainable = outcome.trainable.max(trainable(&model));
                model = lisa.try_step(rate, model, grads)?;
                let state = lisa.memory().optimizer_state;
                outcome.state_bytes = outcome.state_bytes.max(state);
            }
        }
    }
    outcome.cpu = start.elapsed().as_secs_f64();
    let tenths = losses.chunks(steps.div_ceil(10).max(1));
    outcome.curve = tenths
        .map(|tenth| tenth.iter().sum::<f64>() / tenth.len() as f64)
        .collect();
    match trainer {
        Trainer::Plain(_) => {
            outcome.trainable = trainable(&model);
            // Two moments in f32.
            outcome.state_bytes = 8 * outcome.trainable;
        }
        Trainer::Lisa(_) => outcome.active = active,
    }
    Ok(model.merge_lora())
}

/// The number of trainable parameters.
fn trainable(model: &CausalLm) -> u64 {
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

/// Rises over the first twentieth of the steps, then falls to 0 linearly.
fn learning_rate(highest: f64, step: usize, steps: usize) -> f64 {
    let warm_up = (steps / 20).max(1);
    if step < warm_up {
        return highest * (step + 1) as f64 / warm_up as f64;
    }
    highest * (steps - step) as f64 / (steps - warm_up) as f64
}

fn input_of(batch: &Batch, device: &Device) -> (Input, burn::tensor::Tensor<2, burn::tensor::Int>) {
    let tensors: BatchTensors = batch.to_tensors(device);
    let targets = tensors.targets.clone();
    (Input::from(tensors), targets)
}

/// The mean loss of a target, and how many answers greedy generation would give exactly, with their end.
///
/// Generation gives an answer if and only if each of its tokens is the most probable after the tokens
/// before it, so one forward pass over the wanted answers is enough.
fn score(
    model: &CausalLm,
    examples: Vec<Encoded>,
    pad_id: u32,
    device: &Device,
    outcome: &mut Outcome,
) -> Result<()> {
    let model = model.valid();
    outcome.asked = examples.len();
    let options = BatchOptions {
        batch_size: 32,
        pack_to: None,
        shuffle: false,
        seed: 0,
        pad_id,
        vocab_size: model.config().vocab_size(),
    };
    let mut batches = Batches::new(examples, options)?;
    let (mut sum, mut count) = (0.0, 0);
    for _ in 0..batches.per_epoch() {
        let batch = batches.next_batch();
        let (input, targets) = input_of(&batch, device);
        let loss = model.next_token_loss(&input, targets).into_scalar::<f32>();
        sum += f64::from(loss) * batch.trained() as f64;
        count += batch.trained();
        let most_probable = model.forward(&input).argmax(2).into_data();
        let most_probable: Vec<i64> = most_probable.iter::<i64>().collect();
        let rows = most_probable.chunks(batch.shape()[1]);
        for (row, found) in batch.rows().iter().zip(rows) {
            let mut pairs = row.targets.iter().zip(found);
            let right = pairs.all(|(wanted, found)| *wanted == IGNORED || wanted == found);
            outcome.hits += usize::from(right);
        }
    }
    outcome.loss = sum / count.max(1) as f64;
    Ok(())
}

#[cfg(test)]
mod tests {
    use lisa_lm::{GenerationConfig, generate};

    use super::*;
    use crate::files::bundled;

    fn order(method: Method) -> Order {
        Order {
            job: Job::sample(method, 3),
            model: bundled("base"),
            task: bundled("data"),
        }
    }

    #[test]
    fn a_run_is_a_pure_function_of_its_job() {
        use Method::{Bernoulli, Budget, Cyclic, Full, Gradient, Lora, Uniform};
        for method in [Full, Lora, Uniform, Bernoulli, Cyclic, Gradient, Budget] {
            let again = || Outcome {
                cpu: 0.0,
                ..run(&order(method)).unwrap()
            };
            let first = again();
            assert_eq!(first, again(), "{method}");
            assert!(first.loss.is_finite() && first.state_bytes > 0);
            // Two of eight layers at a time; under Bernoulli by chance.
            let active: f64 = first.active.iter().sum();
            match method {
                Full => assert!((active - 8.0).abs() < 1e-9),
                Lora => assert!(first.active.is_empty()),
                Bernoulli => assert!((0.0..=8.0).contains(&active)),
                _ => assert!((active - 2.0).abs() < 1e-9, "{method} {active}"),
            }
        }
    }

    #[test]
    fn an_answer_is_right_if_greedy_generation_gives_it() {
        let device = Device::default();
        let checkpoint = Checkpoint::open(bundled("base")).unwrap();
        let model = checkpoint.load(&device, Some(FloatDType::F32)).unwrap();
        let config = GenerationConfig {
            max_new_tokens: 3,
            ..GenerationConfig::default()
        };
        let tokenizer = Tokenizer::from_dir(bundled("base")).unwrap();
        let prompt = tokenizer.encode("Anna has 3 hats").unwrap();
        let answer = generate(&model, &prompt, &config).unwrap();
        let example = |answer: &[u32]| {
            let mut labels = vec![IGNORED; prompt.len()];
            labels.extend(answer.iter().map(|id| i64::from(*id)));
            let ids = [prompt.as_slice(), answer].concat();
            Encoded::new(ids, labels)
        };
        let mut wrong = answer.clone();
        wrong[2] = (wrong[2] + 1) % 50;
        let hits = |examples| {
            let mut outcome = Outcome::default();
            score(&model, examples, 0, &device, &mut outcome).unwrap();
            outcome.hits
        };
        assert_eq!(hits(vec![example(&answer)]), 1);
        assert_eq!(hits(vec![example(&wrong)]), 0);
        // Rows of different lengths in a batch.
        let short = example(&answer[..1]);
        assert_eq!(hits(vec![example(&answer), example(&wrong), short]), 2);
    }

    #[test]
    fn the_learning_rate_rises_and_falls_to_zero() {
        let rates: Vec<f64> = (0..40).map(|step| learning_rate(1.0, step, 40)).collect();
        assert_eq!(rates[..3], [0.5, 1.0, 1.0]);
        assert!(rates[2..].windows(2).all(|pair| pair[1] < pair[0]));
        assert!((rates[39] - 1.0 / 38.0).abs() < 1e-12);
    }
}
