//! [`Description`]: the active layers, the number of trainable parameters, and the memory of a run.

use std::fmt;

use crate::Lisa;
use crate::layers::Parameter;
use crate::optimizer::usage::Usage;

/// A snapshot of a run, made by [`Lisa::describe`]. `Display` prints it as a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Description {
    /// All layers, in order.
    pub layers: Vec<LayerDescription>,
    /// Elements that train in this period outside the layers; 0 in a period in which
    /// [`outer_every`](crate::LisaConfig::outer_every) freezes them.
    pub outside: usize,
    /// Elements that train in this period because their layer is active.
    pub active: usize,
    /// Elements that are frozen in this period.
    pub frozen: usize,
    /// The name of the sampling policy.
    pub policy: String,
    /// Optimizer steps taken.
    pub step: u64,
    /// The period of the next step, counted from 0.
    pub period: u64,
    /// The memory of the run, without the model.
    pub memory: Usage,
}

/// One layer of a [`Description`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerDescription {
    /// Its path.
    pub path: String,
    /// The number of elements of its parameters.
    pub parameters: usize,
    /// Whether it is active in this period.
    pub active: bool,
}

impl Lisa {
    /// The active layers, the number of trainable parameters, and the memory of the run. `Display`
    /// of `Lisa` prints the same table.
    #[must_use]
    pub fn describe(&self) -> Description {
        let all = self.layers().parameters().iter().map(Parameter::len);
        let layers = self.layers().layers().iter().enumerate();
        let (outside, active) = self.trainable_elements();
        Description {
            layers: layers
                .map(|(i, layer)| LayerDescription {
                    path: layer.path.clone(),
                    parameters: layer.size,
                    active: self.active_layers().contains(&i),
                })
                .collect(),
            outside,
            active,
            frozen: all.sum::<usize>() - outside - active,
            policy: self.policy_name(),
            step: self.steps(),
            period: self.period(),
            memory: self.memory(),
        }
    }
}

impl Description {
    /// The number of elements of all parameters of the model.
    #[must_use]
    pub fn total(&self) -> usize {
        self.outside + self.active + self.frozen
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
            ("outside layers", self.outside),
            ("active", self.active),
            ("frozen", self.frozen),
        ] {
            writeln!(f, "  {name:<15} {n:>14} parameters  {:>5.1} %", share(n))?;
        }
        for layer in &self.layers {
            let mark = if layer.active { "active" } else { "frozen" };
            writeln!(f, "  {mark:<15} {:>14} {}", layer.parameters, layer.path)?;
        }
        let memory = &self.memory;
        write!(
            f,
            "  {:<15} {:>14} bytes",
            "optimizer state", memory.optimizer_state
        )?;
        for (name, bytes) in [
            ("master weights", memory.master_weights),
            ("offloaded", memory.offloaded),
            ("full precision", memory.full_precision),
        ] {
            if bytes > 0 {
                write!(f, "\n  {name:<15} {bytes:>14} bytes")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Lisa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe().fmt(f)
    }
}
