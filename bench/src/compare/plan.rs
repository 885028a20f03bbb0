//! The memory that each method would need, from the model's shape alone.

use anyhow::Result;
use burn::tensor::Device;
use lisa::memory::{MemoryPlan, Workload};
use lisa_lm::CausalLm;

use crate::method::Method;
use crate::settings::Settings;
use crate::workload;

/// Prints a table for a GPU; allocates nothing.
pub(crate) fn print(settings: &Settings, methods: &[Method], budget: Option<f64>) -> Result<()> {
    let device = Device::default().autodiff();
    let model = settings.config()?.init(&device)?;
    println!(
        "{}, {:.0} M parameters, {}{}, batch {} x {} tokens, gamma {}; GB\n",
        settings.name(),
        model.num_parameters() as f64 / 1e6,
        settings.dtype,
        if settings.no_master_weights {
            " without master weights"
        } else {
            ""
        },
        settings.batch,
        settings.sequence,
        settings.active_layers,
    );
    let last = budget.map_or(String::new(), |gb| format!(" within {gb} GB |"));
    println!(
        "| method | weights | gradients | moments | masters | activations | host | peak |{last}"
    );
    println!(
        "|---|--:|--:|--:|--:|--:|--:|--:|{}",
        if budget.is_some() { "---|" } else { "" }
    );
    for &method in methods {
        let Some((plan, peak)) = of(settings, method, &model, false)? else {
            continue;
        };
        let columns = [
            plan.weights,
            plan.gradients,
            plan.optimizer_state,
            plan.master_weights,
            plan.activations,
            plan.host,
            peak,
        ];
        let columns = columns
            .map(|bytes| format!("{:.2}", bytes as f64 / 1e9))
            .join(" | ");
        let fits = budget.map_or("", |budget| {
            if peak as f64 <= budget * 1e9 {
                " yes |"
            } else {
                " no |"
            }
        });
        println!("| {method} | {columns} |{fits}");
    }
    Ok(())
}

/// The plan of a method and its peak, on flex or on a GPU; none for PyTorch's methods.
pub(crate) fn of(
    settings: &Settings,
    method: Method,
    model: &CausalLm,
    flex: bool,
) -> Result<Option<(MemoryPlan, u64)>> {
    // The draws of a run are known; the plan of a shape takes the worst case.
    let lowest = || {
        let draws = workload::draws(settings, model.num_layers());
        draws.into_iter().flatten().min().unwrap_or(0)
    };
    let run = Workload {
        batch: settings.batch,
        sequence: settings.sequence,
        dtype: settings.dtype.into(),
        flex,
        lowest_active: if flex { lowest() } else { 0 },
        recompute: method.recompute(model.num_layers()),
    };
    let plan = match method {
        _ if method.is_torch() => return Ok(None),
        Method::Lora | Method::LoraBurn => {
            let merged = method == Method::LoraBurn;
            MemoryPlan::lora(model, settings.lora_rank, merged, &run)?
        }
        _ => {
            let mut config = method.lisa_config(settings);
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
