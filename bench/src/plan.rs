//! What each method would need, from the model's shape alone.

use anyhow::Result;
use burn::tensor::Device;
use lisa::memory::{MemoryPlan, Workload};
use lisa::policy::{Draw, SamplingPolicy, Uniform};
use lisa_lm::CausalLm;

use crate::method::{Method, lisa_config};
use crate::preset;
use crate::settings::Settings;

/// Prints a table, as on a GPU; nothing is allocated.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let device = Device::default().autodiff();
    let model = settings.preset.config(settings.shrink).init(&device)?;
    println!(
        "`{}`, {:.0} M parameters, {}{}, batch {} x {} tokens, gamma {}; GB\n",
        settings.preset,
        model.num_parameters() as f64 / 1e6,
        settings.dtype,
        if settings.no_master_weights {
            " without masters"
        } else {
            ""
        },
        settings.batch,
        settings.sequence,
        settings.active_layers,
    );
    let last = settings
        .budget
        .map_or(String::new(), |gb| format!(" within {gb} GB |"));
    println!(
        "| method | weights | gradients | moments | masters | activations | host | peak |{last}"
    );
    println!(
        "|---|--:|--:|--:|--:|--:|--:|--:|{}",
        if last.is_empty() { "" } else { "---|" }
    );
    for method in settings.methods() {
        let Some((plan, peak)) = of(settings, method, &model, false)? else {
            continue;
        };
        let gb = |bytes: u64| format!("{:.2}", bytes as f64 / 1e9);
        let fits = settings.budget.map_or(String::new(), |budget| {
            let fits = peak as f64 <= budget * 1e9;
            format!(" {} |", if fits { "fits" } else { "does not" })
        });
        println!(
            "| {method} | {} | {} | {} | {} | {} | {} | {} |{fits}",
            gb(plan.weights),
            gb(plan.gradients),
            gb(plan.optimizer_state),
            gb(plan.master_weights),
            gb(plan.activations),
            gb(plan.host),
            gb(peak),
        );
    }
    Ok(())
}

/// The plan of a method and its peak, on flex or on a GPU; none for PyTorch's.
pub(crate) fn of(
    settings: &Settings,
    method: Method,
    model: &CausalLm,
    flex: bool,
) -> Result<Option<(MemoryPlan, u64)>> {
    let run = Workload {
        batch: settings.batch,
        sequence: settings.sequence,
        dtype: preset::dtype(settings),
        flex,
        // Draws are known before a run; without one the most is planned.
        lowest_active: if flex { lowest(settings, model) } else { 0 },
        recompute: method.recompute(model.num_layers()),
    };
    if method.is_torch() {
        return Ok(None);
    }
    let lora = |merged| MemoryPlan::lora(model, settings.lora_rank, merged, &run);
    let plan = match method {
        Method::Lora => lora(false)?,
        Method::LoraBurn => lora(true)?,
        _ => {
            let mut config = lisa_config(settings, method);
            if method == Method::Full {
                config.active_layers = model.num_layers();
                // Plain AdamW has none.
                config.master_weights = false;
            }
            MemoryPlan::lisa(model, &config, &run)?
        }
    };
    let peak = if method.recomputes() {
        plan.peak_recomputed
    } else {
        plan.peak
    };
    Ok(Some((plan, peak)))
}

/// The lowest layer that a run of this length draws.
fn lowest(settings: &Settings, model: &CausalLm) -> usize {
    let periods = settings.steps.div_ceil(settings.period) as u64;
    let draws = (0..periods).flat_map(|period| {
        let (layers, active) = (model.num_layers(), settings.active_layers);
        Uniform.draw(&Draw::new(settings.seed, period, layers, active))
    });
    draws.min().unwrap_or(0)
}
