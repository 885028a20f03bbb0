//! What LISA itself costs: a step beside the same step frozen by hand, and a draw.

use anyhow::Result;
use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use cpu_time::ProcessTime;
use lisa_lm::{BatchTensors, CausalLm, Input, LlamaConfig, ModelConfig};

use crate::method::{Method, Trainer, adamw, lisa_config};
use crate::report::median;
use crate::settings::Settings;
use crate::{child, preset};

/// Prints both.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    step(settings)?;
    draw()
}

/// Steps of one kind and of the other in turn, each kind first every other time.
fn step(settings: &Settings) -> Result<()> {
    let device = Device::default().autodiff();
    // No draw within the run: what a draw costs is measured by itself.
    let quiet = Settings {
        period: settings.steps + 1,
        ..settings.clone()
    };
    let tokens = preset::tokens(settings);
    let (mut lisa, mut ours) = Trainer::new(
        &quiet,
        Method::Lisa,
        preset::model(settings, &device)?,
        &device,
    )?;
    let active = match lisa.lisa() {
        Some(lisa) => lisa.active_layers().to_vec(),
        None => Vec::new(),
    };
    let mut plain = freeze_by_hand(preset::model(settings, &device)?, &active);
    let mut optimizer = Trainer::Plain(adamw().init());
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for step in 0..settings.steps {
        let batch = child::batch(settings, &tokens, step, &device);
        for first in [step % 2 == 0, step % 2 != 0] {
            let cpu = ProcessTime::now();
            if first {
                (ours, _, _) = lisa.step(settings.lr, ours, &batch, &device)?;
                a.push(cpu.elapsed().as_secs_f64());
            } else {
                (plain, _, _) = optimizer.step(settings.lr, plain, &batch, &device)?;
                b.push(cpu.elapsed().as_secs_f64());
            }
        }
    }
    // The two of a step ran beside each other: their ratio is less noisy than that of the medians.
    let ratios: Vec<f64> = a
        .iter()
        .zip(&b)
        .skip(settings.warmup)
        .map(|(a, b)| a / b)
        .collect();
    println!(
        "`{}`, {} steps each, CPU-s a step: LISA {:.3}, frozen by hand {:.3}, median of the ratios {:.4}",
        settings.preset,
        ratios.len(),
        median(&a[settings.warmup..]),
        median(&b[settings.warmup..]),
        median(&ratios),
    );
    Ok(())
}

/// Draw, mask and release together, with 80 layers, as a share of a step.
fn draw() -> Result<()> {
    let device = Device::default().autodiff();
    let mut config = LlamaConfig::new(1024, 256, 80, 4);
    config.intermediate_size = 704;
    let model = ModelConfig::Llama(config).init(&device)?;
    let settings = crate::settings::Settings {
        period: 2,
        batch: 1,
        sequence: 128,
        steps: 24,
        ..defaults()
    };
    let (mut lisa, mut model) = lisa_config(&settings, Method::Lisa).init(adamw(), model)?;
    let tokens = preset::tokens(&settings);
    let (mut steps, mut draws) = (Vec::new(), Vec::new());
    for step in 0..settings.steps {
        let batch = child::batch(&settings, &tokens, step, &device);
        let cpu = ProcessTime::now();
        let grads = grads(&model, &batch);
        model = lisa.step(1e-4, model, grads);
        steps.push(cpu.elapsed().as_secs_f64());
        // A step without gradients, at the end of the period: nothing but draw, mask, release.
        let cpu = ProcessTime::now();
        model = lisa.step(1e-4, model, GradientsParams::new());
        draws.push(cpu.elapsed().as_secs_f64());
    }
    let (step, draw) = (median(&steps[2..]), median(&draws[2..]));
    println!(
        "80 layers of {}, CPU-s: a step {step:.4}, a draw with mask and release {draw:.5}: at K = 20 {:.2} % of a step",
        256,
        100.0 * draw / 20.0 / step
    );
    Ok(())
}

fn defaults() -> Settings {
    use clap::Parser;
    crate::settings::Cli::parse_from(["compare", "--preset", "small"]).settings
}

fn grads(model: &CausalLm, batch: &BatchTensors) -> GradientsParams {
    let loss = model.next_token_loss(&Input::from(batch.clone()), batch.targets.clone());
    GradientsParams::from_grads(loss.backward(), model)
}

/// What a user would write: no gradients for the layers that do not train.
fn freeze_by_hand(mut model: CausalLm, active: &[usize]) -> CausalLm {
    struct Freeze;
    impl ModuleMapper for Freeze {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.set_require_grad(false)
        }
    }
    let layers = std::mem::take(&mut model.model.layers);
    let layers = layers.into_iter().enumerate().map(|(index, layer)| {
        if active.contains(&index) {
            layer
        } else {
            layer.map(&mut Freeze)
        }
    });
    model.model.layers = layers.collect();
    model
}
