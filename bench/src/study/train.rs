//! One run: fine-tunes the checkpoint and scores it.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use cpu_time::ProcessTime;
use lisa::optimizer::Built;
use lisa::recompute::Recompute;
use lisa::{Lisa, LisaConfig};
use lisa_lm::model::{BatchTensors, LoraConfig};
use lisa_lm::text::{
    BatchOptions, Batches, EncodeOptions, Encoded, Example, ReadOptions, encode_examples,
    read_examples,
};
use lisa_lm::{CausalLm, Checkpoint, Tokenizer};

use super::arm::{Arm, State};
use super::catch_up::CatchUp;
use super::inputs::Inputs;
use super::job::{Job, Order, Outcome, Point, Purpose, scheduled};
use super::plan::name;
use super::score::{answers, metric, score};
use super::second_moment::SecondMoment;
use super::signal;
use crate::method::adamw;
use crate::{memory, process};

/// Runs a job and prints its outcome.
pub(crate) fn work(order: &Order) -> Result<()> {
    process::print(&run(order)?)
}

fn run(order: &Order) -> Result<Outcome> {
    let (job, sizes) = (&order.job, order.job.sizes);
    let device = Device::default().autodiff();
    let tokenizer = Tokenizer::from_dir(&order.model)?;
    let model = Checkpoint::open(&order.model)?.load(&device, Some(job.dtype.into()))?;
    device.seed(job.seed);
    let encode = |examples: &[Example]| -> Result<Vec<Encoded>> {
        let options = EncodeOptions {
            max_length: sizes.max_length,
            ..EncodeOptions::default()
        };
        Ok(encode_examples(examples, &tokenizer, options)?.examples)
    };
    let [train, validation, held_out] = read(&order.task, sizes.scored)?;
    let scored = match job.purpose {
        Purpose::Choice => validation,
        Purpose::Test => held_out,
        Purpose::Time => Vec::new(),
    };
    let run = Run {
        job,
        device: device.clone(),
        pad_id: tokenizer.pad_id(),
        held_out: match job.purpose {
            Purpose::Time => Vec::new(),
            Purpose::Choice | Purpose::Test => encode(&scored)?,
        },
    };
    let mut outcome = Outcome {
        device: device_name(&device),
        commit: env!("BENCH_COMMIT").to_owned(),
        inputs: Some(Inputs::of(&order.model, &order.task)?),
        ..Outcome::default()
    };
    let model = match job.arm {
        Arm::Base => model,
        _ => run.fit(model, encode(&train)?, &mut outcome)?,
    };
    if job.purpose == Purpose::Time {
        return Ok(outcome);
    }
    let metric = metric(&job.task);
    let choices = metric == Some(lisa_cli::settings::Metric::Choice);
    let score = |rows: &[Encoded], choices| {
        score(&model, rows, run.pad_id, &device.clone().inner(), choices)
    };
    outcome.scores = score(&run.held_out, choices);
    if job.purpose == Purpose::Choice {
        return Ok(outcome);
    }
    for other in &order.others {
        let [_, _, mut rows] = read(other, sizes.scored)?;
        rows.truncate(sizes.others);
        let loss = score(&encode(&rows)?, false).loss();
        outcome.others.push((name(other), loss));
    }
    if let (1, Some(metric), 1..) = (job.seed, metric, sizes.answers) {
        let examples = &scored[..sizes.answers.min(scored.len())];
        outcome.generated = Some(answers(&model, examples, &tokenizer, metric)?);
    }
    Ok(outcome)
}

/// The training, validation and held-out rows of a task. Where it has no file of validation rows, they
/// are the last training rows.
fn read(task: &Path, scored: usize) -> Result<[Vec<Example>; 3]> {
    let file = |name: &str| -> Result<Vec<Example>> {
        Ok(read_examples(&[task.join(name)], &ReadOptions::default())?.examples)
    };
    let mut train = file("train.jsonl")?;
    let mut validation = if task.join("validation.jsonl").exists() {
        file("validation.jsonl")?
    } else {
        ensure!(
            train.len() > scored,
            "`{}` has {} training rows; the last {scored} of them are for validation",
            task.display(),
            train.len()
        );
        train.split_off(train.len() - scored)
    };
    let mut held_out = file("heldout.jsonl")?;
    validation.truncate(scored);
    held_out.truncate(scored);
    Ok([train, validation, held_out])
}

/// The device, with the name of the first NVIDIA card.
pub(crate) fn device_name(device: &Device) -> String {
    let name = format!("{:?}", device.clone().inner());
    if !name.contains("Cuda") {
        return name;
    }
    let card = Command::new("nvidia-smi")
        .args(["--query-gpu=name", "--format=csv,noheader"])
        .output();
    let card = card.ok().filter(|output| output.status.success());
    let cards = card.and_then(|output| String::from_utf8(output.stdout).ok());
    match cards.as_deref().and_then(|cards| cards.lines().next()) {
        Some(card) => format!("{name}, {}", card.trim()),
        None => name,
    }
}

struct Run<'a> {
    job: &'a Job,
    device: Device,
    pad_id: u32,
    held_out: Vec<Encoded>,
}

impl Run<'_> {
    fn batches(&self, rows: Vec<Encoded>, vocab_size: usize) -> Result<Batches> {
        let options = BatchOptions {
            batch_size: self.job.sizes.batch,
            pack_to: None,
            shuffle: true,
            seed: self.job.seed,
            pad_id: self.pad_id,
            vocab_size,
        };
        Ok(Batches::new(rows, options)?)
    }

    /// The optimizer of the arm. Full training is LISA with every layer active, and LoRA that of a
    /// model which is frozen except for its adapters, as in the program.
    fn lisa(&self, model: CausalLm, rows: &[Encoded]) -> Result<(Lisa, CausalLm)> {
        let layers = model.num_layers();
        let seed = self.job.seed;
        let all = LisaConfig::new().with_active_layers(layers).with_seed(seed);
        let (config, model) = match self.job.arm {
            Arm::Base | Arm::Full => (all, model),
            Arm::Lora { rank } => {
                let lora = LoraConfig::new(rank).with_seed(seed);
                (all, model.with_lora(&lora)?)
            }
            Arm::Lisa(sampled) => {
                let batches = self.batches(rows.to_vec(), model.config().vocab_size())?;
                let (weights, model) = signal::weights(sampled.policy, model, batches)?;
                let config = sampled.config(layers, seed, weights);
                if sampled.state == State::Second {
                    let optimizer = Built(SecondMoment::new(sampled.period));
                    return Ok(config.init(optimizer, model)?);
                }
                (config, model)
            }
        };
        Ok(config.init(adamw(), model)?)
    }

    /// Trains; the curve and the costs are added to the outcome.
    fn fit(&self, model: CausalLm, rows: Vec<Encoded>, outcome: &mut Outcome) -> Result<CausalLm> {
        let (sizes, steps) = (self.job.sizes, self.job.steps());
        // A pool has no counter of its peak: what it has reserved after a step is at least that.
        let counted = self.device.memory_pool_usage().is_none();
        memory::reset(&self.device);
        let start = (ProcessTime::now(), Instant::now());
        let (mut lisa, mut model) = self.lisa(model, &rows)?;
        // What measures a signal for the sampling counts.
        let mut cpu = start.0.elapsed().as_secs_f64();
        let mut wall = start.1.elapsed().as_secs_f64();
        outcome.peak = memory::peak(&self.device);
        let layers = model.num_layers();
        let points = match self.job.purpose {
            Purpose::Choice | Purpose::Time => 0,
            Purpose::Test => sizes.points.min(self.held_out.len()),
        };
        let points = &self.held_out[..points];
        let mut batches = self.batches(rows, model.config().vocab_size())?;
        let mut active = vec![0.0; layers];
        let mut catch_up = match self.job.arm {
            Arm::Lisa(sampled) if sampled.catch_up => Some(CatchUp::new(layers, sampled.period)),
            _ => None,
        };
        let mut losses = Vec::new();
        for step in 1..=steps {
            let batch = batches.next_batch();
            outcome.trained += batch.trained() as u64;
            outcome.tokens += batch.tokens() as u64;
            memory::reset_heap();
            let in_host = lisa.memory().offloaded;
            let start = (ProcessTime::now(), Instant::now());
            let batch = batch.to_tensors(&self.device);
            // Layers may be split into units.
            let units = lisa.layers().layers().len() / layers;
            for &unit in lisa.active_layers() {
                active[unit / units] += 1.0 / (units * steps) as f64;
            }
            outcome.trainable = outcome.trainable.max(trainable(&model));
            let rate = scheduled(self.job.learning_rate(), step, steps);
            let rate = match &mut catch_up {
                Some(catch_up) => catch_up.rates(&lisa, rate),
                None => rate.into(),
            };
            let loss;
            (model, loss) = self.step(&mut lisa, model, batch, rate)?;
            losses.push(f64::from(loss.into_scalar::<f32>()));
            cpu += start.0.elapsed().as_secs_f64();
            wall += start.1.elapsed().as_secs_f64();
            // State of layers that return is in host memory until it moves.
            let in_host = in_host.min(lisa.memory().offloaded);
            outcome.offloaded = outcome.offloaded.max(in_host);
            let of_host = if counted { in_host } else { 0 };
            outcome.peak = outcome.peak.max(memory::peak(&self.device) - of_host);
            if step % self.job.steps_of_a_point() == 0 || step == steps {
                let device = self.device.clone().inner();
                let count = losses.len() as f64;
                outcome.curve.push(Point {
                    step,
                    cpu,
                    wall,
                    train: losses.drain(..).sum::<f64>() / count,
                    loss: score(&model, points, self.pad_id, &device, false).loss(),
                });
                // What the scoring reserved is not of the next steps.
                memory::reset(&self.device);
            }
        }
        if matches!(self.job.arm, Arm::Lisa(_)) {
            outcome.active = active;
        }
        Ok(model.merge_lora())
    }

    /// One step: the model and the loss.
    fn step(
        &self,
        lisa: &mut Lisa,
        model: CausalLm,
        batch: BatchTensors,
        rate: ModuleLearningRate,
    ) -> Result<(CausalLm, Tensor<1>)> {
        if matches!(self.job.arm, Arm::Lisa(sampled) if sampled.recompute) {
            let pass = Recompute::new().forward(&model, &batch);
            let loss = pass.loss();
            return Ok((lisa.try_step_layered(rate, model, pass)?, loss));
        }
        let loss = model.batch_loss(batch);
        let grads = GradientsParams::from_grads(loss.clone().backward(), &model);
        Ok((lisa.try_step(rate, model, grads)?, loss))
    }
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

#[cfg(test)]
mod tests {
    use super::super::arm::Policy;
    use super::*;
    use crate::files::bundled;

    fn order(arm: Arm, purpose: Purpose) -> Order {
        Order {
            job: Job {
                purpose,
                ..Job::sample(arm, 3)
            },
            model: bundled("base"),
            task: bundled("data"),
            others: vec![bundled("data")],
        }
    }

    #[test]
    fn a_run_is_a_pure_function_of_its_job() {
        let two = Arm::lisa(2);
        let with = |policy| Arm::Lisa(super::super::arm::Sampled { policy, ..two });
        let arms = [
            Arm::Full,
            Arm::Lora { rank: 4 },
            Arm::Lisa(two),
            with(Policy::Cyclic),
            with(Policy::Gradient),
            with(Policy::Budget),
            with(Policy::MeanNorm),
            with(Policy::MeanSquare),
            with(Policy::LossDecrease),
            Arm::Lisa(super::super::arm::Sampled {
                period: 0,
                outer_every: 0,
                state: State::Offload,
                ..two
            }),
            Arm::Lisa(super::super::arm::Sampled {
                state: State::Second,
                ..two
            }),
            Arm::Lisa(super::super::arm::Sampled {
                catch_up: true,
                period: 1,
                ..two
            }),
        ];
        for arm in arms {
            let again = || {
                let outcome = run(&order(arm, Purpose::Test)).unwrap();
                let losses = outcome.curve.iter().map(|point| [point.train, point.loss]);
                let losses: Vec<_> = losses.collect();
                (
                    outcome.scores,
                    outcome.others,
                    losses,
                    outcome.active,
                    outcome.trainable,
                )
            };
            let first = again();
            assert_eq!(first, again(), "{arm}");
            let (scores, others, losses, active, trainable) = first;
            assert!(scores.loss().is_finite() && losses.len() == 2 && others.len() == 1);
            assert!(trainable > 0);
            // Two of eight layers at a time.
            let active: f64 = active.iter().sum();
            match arm {
                Arm::Lisa(_) => assert!((active - 2.0).abs() < 1e-9, "{arm} {active}"),
                _ => assert!(active == 0.0),
            }
        }
    }

    #[test]
    fn recomputation_changes_no_loss() {
        let losses = |recompute| {
            let sampled = super::super::arm::Sampled {
                recompute,
                ..Arm::lisa(2)
            };
            let outcome = run(&order(Arm::Lisa(sampled), Purpose::Test)).unwrap();
            let curve = outcome.curve.into_iter();
            let curve: Vec<_> = curve.map(|point| [point.train, point.loss]).collect();
            (outcome.scores, curve)
        };
        assert_eq!(losses(true), losses(false));
    }

    #[test]
    fn rows_for_validation_are_those_that_do_not_train() {
        let [train, validation, held_out] = read(&bundled("data"), 8).unwrap();
        assert_eq!((validation.len(), held_out.len()), (8, 8));
        assert!(!train.contains(&validation[0]));
        let chosen = run(&order(Arm::Base, Purpose::Choice)).unwrap();
        let tested = run(&order(Arm::Base, Purpose::Test)).unwrap();
        assert_ne!(chosen.scores, tested.scores);
        assert!(chosen.others.is_empty() && tested.others.len() == 1);
    }
}
