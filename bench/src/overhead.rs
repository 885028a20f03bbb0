//! `bench overhead`: the cost of LISA itself, in a step and in a draw.

use anyhow::Result;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Device;
use cpu_time::ProcessTime;
use lisa_lm::model::config::LlamaConfig;
use lisa_lm::{CausalLm, ModelConfig};

use crate::method::{Method, adamw};
use crate::settings::Settings;
use crate::stats::median;
use crate::trainer::Trainer;
use crate::workload;

/// Prints both.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    settings.check()?;
    step(settings)?;
    draw()
}

/// A LISA step and the same step frozen by hand, alternating, and in alternating order.
fn step(settings: &Settings) -> Result<()> {
    let device = Device::default().autodiff();
    // No draw within the run: the cost of a draw is measured separately.
    let quiet = Settings {
        period: settings.steps + 1,
        ..settings.clone()
    };
    let tokens = workload::tokens(settings)?;
    let model = || workload::model(settings, &device);
    let (mut lisa, mut ours) = Trainer::new(&quiet, Method::Lisa, model()?, &device)?;
    let mut plain = freeze_by_hand(model()?, lisa.active_layers());
    let mut optimizer = Trainer::Plain(adamw().init());
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for step in 0..settings.steps {
        let batch = workload::batch(settings, &tokens, step, &device);
        for with_lisa in [step % 2 == 0, step % 2 != 0] {
            let cpu = ProcessTime::now();
            if with_lisa {
                (ours, _, _) = lisa.step(settings.lr, ours, &batch, &device)?;
                a.push(cpu.elapsed().as_secs_f64());
            } else {
                (plain, _, _) = optimizer.step(settings.lr, plain, &batch, &device)?;
                b.push(cpu.elapsed().as_secs_f64());
            }
        }
    }
    let (a, b) = (&a[settings.warmup..], &b[settings.warmup..]);
    // The ratio of two steps that ran one after the other varies less than that of the medians.
    let ratios: Vec<f64> = a.iter().zip(b).map(|(a, b)| a / b).collect();
    println!(
        "{}, {} steps each, CPU-s a step: LISA {:.3}, frozen by hand {:.3}, median of the ratios {:.4}",
        settings.name(),
        ratios.len(),
        median(a),
        median(b),
        median(&ratios),
    );
    Ok(())
}

/// Draw, mask and release of an 80-layer model, relative to a step.
fn draw() -> Result<()> {
    let device = Device::default().autodiff();
    let mut config = LlamaConfig::new(1024, 256, 80, 4);
    config.intermediate_size = 704;
    let model = ModelConfig::Llama(config).init(&device)?;
    let settings = Settings {
        period: 2,
        sequence: 128,
        steps: 24,
        ..Settings::default()
    };
    let config = Method::Lisa.lisa_config(&settings, model.num_layers());
    let (mut lisa, mut model) = config.init(adamw(), model)?;
    let tokens = workload::tokens(&settings)?;
    let (mut steps, mut draws) = (Vec::new(), Vec::new());
    for step in 0..settings.steps {
        let batch = workload::batch(&settings, &tokens, step, &device);
        let cpu = ProcessTime::now();
        let loss = model.next_token_loss(&batch.input, batch.targets);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = lisa.step(1e-4, model, grads);
        steps.push(cpu.elapsed().as_secs_f64());
        // A step without gradients that ends the period: draw, mask and release only.
        let cpu = ProcessTime::now();
        model = lisa.step(1e-4, model, GradientsParams::new());
        draws.push(cpu.elapsed().as_secs_f64());
    }
    let (step, draw) = (median(&steps[2..]), median(&draws[2..]));
    println!(
        "80 layers of width 256, CPU-s: a step {step:.4}, a draw with mask and release {draw:.5}: at \
         K = 20 {:.2} % of a step",
        100.0 * draw / 20.0 / step
    );
    Ok(())
}

/// What a user would write: no gradients for the frozen layers.
fn freeze_by_hand(mut model: CausalLm, active: &[usize]) -> CausalLm {
    let layers = std::mem::take(&mut model.model.layers)
        .into_iter()
        .enumerate();
    let freeze = |(index, layer): (usize, _)| {
        if active.contains(&index) {
            layer
        } else {
            Module::no_grad(layer)
        }
    };
    model.model.layers = layers.map(freeze).collect();
    model
}
