//! [`Description`]: what trains, what does not, and what the moments weigh.

use std::fmt;

use crate::Lisa;
use crate::layers::Parameter;
use crate::memory::Usage;

/// A snapshot of a [`Lisa`]; `Display` prints it as a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Every layer, in order.
    pub layers: Vec<LayerDescription>,
    /// How many numbers train throughout.
    pub always_on: usize,
    /// How many numbers train in this period because their layer was drawn.
    pub active: usize,
    /// How many numbers do not train in this period.
    pub frozen: usize,
    /// The name of the sampling policy.
    pub policy: String,
    /// Optimizer steps taken.
    pub step: u64,
    /// The period of the next step, from 0.
    pub period: u64,
    /// What the run holds beside the model.
    pub memory: Usage,
}

/// One layer of a [`Description`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerDescription {
    /// Its path.
    pub path: String,
    /// How many numbers its parameters hold.
    pub parameters: usize,
    /// Whether it trains in this period.
    pub active: bool,
}

impl Description {
    pub(crate) fn new(lisa: &Lisa) -> Self {
        let parameters = lisa.map.parameters();
        let layers = lisa.map.layers().iter().enumerate();
        let training: usize = lisa.training().map(|i| parameters[i].len()).sum();
        let always_on = lisa.always_on().map(|i| parameters[i].len()).sum();
        Self {
            layers: layers
                .map(|(i, layer)| LayerDescription {
                    path: layer.path.clone(),
                    parameters: layer.size,
                    active: lisa.active.binary_search(&i).is_ok(),
                })
                .collect(),
            always_on,
            active: training - always_on,
            frozen: parameters.iter().map(Parameter::len).sum::<usize>() - training,
            policy: lisa.policy.name(),
            step: lisa.steps(),
            period: lisa.period(),
            memory: lisa.memory(),
        }
    }

    /// How many numbers the model has: what is always on, active and frozen.
    #[must_use]
    pub fn total(&self) -> usize {
        self.always_on + self.active + self.frozen
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total().max(1) as f64;
        let share = |n: usize| 100.0 * n as f64 / total;
        writeln!(
            f,
            "step {}, period {}, policy {}",
            self.step, self.period, self.policy
        )?;
        for (name, n) in [
            ("always on", self.always_on),
            ("active", self.active),
            ("frozen", self.frozen),
        ] {
            writeln!(f, "  {name:<10} {n:>14} parameters  {:>5.1} %", share(n))?;
        }
        for layer in &self.layers {
            let mark = if layer.active { "active" } else { "frozen" };
            writeln!(f, "  {mark:<10} {:>14} {}", layer.parameters, layer.path)?;
        }
        let memory = &self.memory;
        write!(f, "  moments    {:>14} bytes", memory.optimizer_state)?;
        if memory.master_weights > 0 {
            write!(f, "\n  masters    {:>14} bytes", memory.master_weights)?;
        }
        if memory.offloaded > 0 {
            write!(f, "\n  on host    {:>14} bytes", memory.offloaded)?;
        }
        Ok(())
    }
}

impl fmt::Display for Lisa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe().fmt(f)
    }
}
