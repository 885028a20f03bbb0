//! The memory that each method would need, from the model's shape alone.

use std::collections::BTreeSet;

use anyhow::Result;
use burn::tensor::Device;
use lisa::memory::{Adapters, MemoryPlan, Workload};
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
        in_backward: !settings.is_whole(),
        accumulated: settings.accumulation,
    };
    let plan = match method {
        _ if method.is_torch() => return Ok(None),
        Method::LoraBurn => {
            let adapters = Adapters::all(settings.lora_rank, true);
            MemoryPlan::lora(model, &adapters, &run)?
        }
        Method::Lora | Method::LoraRecompute => {
            let adapters = model.planned_lora(&settings.lora(), &run);
            MemoryPlan::lora(model, &adapters, &run)?
        }
        _ => {
            let config = method.lisa_config(settings, model.num_layers());
            MemoryPlan::lisa(model, &config, &run)?
        }
    };
    let peak = if method.recomputes() {
        plan.peak_recomputed()
    } else {
        plan.peak()
    };
    let unused = if flex && method == Method::LisaKeep {
        let dropped = Method::Lisa.lisa_config(settings, model.num_layers());
        let kept = peak - MemoryPlan::lisa(model, &dropped, &run)?.peak();
        let (never, frozen) = never_active(settings, model.num_layers());
        kept / frozen.max(1) * never
    } else {
        0
    };
    Ok(Some((plan, peak - unused)))
}

/// How many layers the run never activates, and how many are frozen at a time. The plan of a run that
/// keeps the state of frozen layers assumes that each of them was active.
fn never_active(settings: &Settings, layers: usize) -> (u64, u64) {
    let drawn: BTreeSet<usize> = workload::draws(settings, layers)
        .into_iter()
        .flatten()
        .collect();
    let frozen = layers.saturating_sub(settings.active_layers);
    ((layers - drawn.len()) as u64, frozen as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset::Preset;

    #[test]
    fn kept_state_is_that_of_the_layers_that_were_drawn() {
        let settings = Settings {
            preset: Preset::Small,
            shrink: 32,
            period: 1,
            ..Settings::default()
        };
        let device = Device::default().autodiff();
        let model = settings.config().unwrap().init(&device).unwrap();
        let peak = |method, steps| {
            let settings = Settings {
                steps,
                ..settings.clone()
            };
            of(&settings, method, &model, true).unwrap().unwrap().1
        };
        // The first draw keeps nothing of an earlier one.
        assert_eq!(peak(Method::LisaKeep, 1), peak(Method::Lisa, 1));
        let layer = (peak(Method::LisaKeep, 1000) - peak(Method::Lisa, 1000)) / 14;
        for steps in [2, 3, 5] {
            let settings = Settings {
                steps,
                ..settings.clone()
            };
            let (never, frozen) = never_active(&settings, 16);
            assert_eq!(frozen, 14);
            let kept = peak(Method::LisaKeep, steps) - peak(Method::Lisa, steps);
            assert_eq!(kept, layer * (14 - never), "{steps}");
        }
    }

    #[test]
    fn full_training_is_planned_as_it_runs() {
        let settings = Settings {
            preset: Preset::Tiny,
            ..Settings::default()
        };
        let config = Method::Full.lisa_config(&settings, 9);
        assert_eq!(config.active_layers, 9);
        assert_eq!(config.master_weights, !settings.no_master_weights);
    }
}
