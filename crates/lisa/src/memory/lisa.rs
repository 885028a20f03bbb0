//! [`MemoryPlan::lisa`]: the memory estimate of a run with layer sampling, or of full training.

use super::activations::{Activations, Footprint};
use super::breakdown::Breakdown;
use super::elements::{Draw, Elements, Matrices, Unit};
use super::largest::Largest;
use super::plan::MemoryPlan;
use super::workload::Workload;
use crate::{LayerMap, LisaConfig, LisaError, OnFreeze};

mod recomputed;

impl MemoryPlan {
    /// Plans a LISA run. If all layers of the model are active, it is the plan of full training.
    ///
    /// The plan is that of a period in which the parameters outside the layers train. In the other
    /// periods of [`outer_every`](LisaConfig::outer_every), a run needs less device memory.
    ///
    /// If layers differ in size, the largest ones count as active. For `Budget`, the plan assumes
    /// that the whole budget is used; for `Fixed`, it uses the given layers; for `Bernoulli`, it
    /// assumes a number of active layers that at most one period in a thousand exceeds. For a policy of
    /// your own, it assumes that the policy samples `active_layers` layers: if it may sample more, plan
    /// with the largest number that it samples. With [`split`](LisaConfig::split), the plan assumes that
    /// the active parts belong to as many different layers as possible. Nothing is allocated.
    ///
    /// # Errors
    ///
    /// The errors of [`LisaConfig::init`] that follow from the structure of the model and the
    /// settings: the stack of layers is not found or is ambiguous, there are fewer layers than
    /// active layers, or the model has no trainable parameters.
    pub fn lisa<M: Footprint>(
        model: &M,
        config: &LisaConfig,
        workload: &Workload,
    ) -> Result<Self, LisaError> {
        let map = LayerMap::of_shapes(model, &config.layers)?.split(&config.split)?;
        let may_train = crate::lisa::check(&map, config)?;
        let (head, packed) = (model.head_id(), !workload.flex);
        let masters = u64::from(has_masters(config, workload));
        let elements = Elements::of(
            &map,
            &may_train,
            config.frozen_weights,
            head,
            packed,
            |shape| workload.moments(shape) + masters,
        );
        let draw = Draw::largest(&elements, config);
        let run = Run {
            largest: Largest::of(&elements, &draw),
            draw,
            elements,
            activations: model.activations(workload),
            config,
            workload,
        };
        let (idle_on_device, idle_on_host) = run.idle_state();
        let (optimizer_state, master_weights) = (
            run.trainable() * 2 * run.moment(),
            run.trainable() * run.master(),
        );
        let during = |step: Breakdown, weights| Breakdown {
            weights,
            optimizer_state: optimizer_state + idle_on_device,
            master_weights,
            temporary: step.temporary + run.activations.workspace,
            ..step
        };
        let at_peak = during(run.step(), run.weights() + run.full_precision());
        let at_peak_recomputed = during(run.recomputed_step(), run.weights());
        Ok(Self {
            weights: run.weights(),
            gradients: run.gradients(),
            optimizer_state,
            master_weights,
            activations: run.stored() + run.activations.logits + run.activations.head,
            state_tensors: run.state_tensors(),
            host: run.full_precision() + idle_on_host + run.outer_on_host(),
            at_peak,
            at_peak_recomputed,
        })
    }
}

/// Whether trainable parameters have f32 master weights.
fn has_masters(config: &LisaConfig, workload: &Workload) -> bool {
    workload.element() < 4 && config.master_weights
}

/// A planned run. All methods return bytes, unless their documentation says otherwise.
struct Run<'a> {
    config: &'a LisaConfig,
    workload: &'a Workload,
    activations: Activations,
    elements: Elements,
    draw: Draw,
    largest: Largest,
}

/// Memory that does not change during a step.
impl Run<'_> {
    /// Trainable elements.
    fn trainable(&self) -> u64 {
        self.elements.outside + self.draw.trainable()
    }

    /// Bytes of the master weight of one trainable element.
    fn master(&self) -> u64 {
        if has_masters(self.config, self.workload) {
            4
        } else {
            0
        }
    }

    /// Bytes of one moment of one trainable element.
    fn moment(&self) -> u64 {
        self.master().max(self.workload.element())
    }

    fn state_of_element(&self) -> u64 {
        2 * self.moment() + self.master()
    }

    /// Weights on the device, with quantized frozen layers if the configuration says so.
    fn weights(&self) -> u64 {
        let quantized: u64 = self.quantized().map(|matrices| matrices.quantized).sum();
        let element = self.workload.element();
        self.elements.total * element - self.full_precision() + quantized
    }

    /// Full-precision weights of the quantized layers, in host memory.
    fn full_precision(&self) -> u64 {
        let elements: u64 = self.quantized().map(|matrices| matrices.elements).sum();
        elements * self.workload.element()
    }

    /// The matrices that are quantized.
    fn quantized(&self) -> impl Iterator<Item = Matrices> + '_ {
        let frozen = self.draw.frozen.iter().map(|unit| unit.matrices);
        let units = self.elements.units.iter();
        frozen.chain(units.map(|unit| unit.never_trained))
    }

    /// Optimizer state of frozen layers, on the device and in host memory. The plan assumes that
    /// every layer that can be sampled has been active.
    fn idle_state(&self) -> (u64, u64) {
        let idle: u64 = self.idle().map(|unit| unit.trainable).sum();
        let state = idle * self.state_of_element();
        match self.config.on_freeze {
            OnFreeze::Drop => (0, 0),
            OnFreeze::Keep => (state, 0),
            OnFreeze::Offload => (0, state),
        }
    }

    /// The units that are frozen and may have been active.
    fn idle(&self) -> impl Iterator<Item = &Unit> {
        let frozen = self.draw.frozen.iter();
        frozen.filter(move |unit| unit.can_be_sampled(self.config))
    }

    /// The number of tensors of all optimizer state in a record.
    fn state_tensors(&self) -> u64 {
        let active: u64 = self.draw.active.iter().map(|unit| unit.state_tensors).sum();
        let idle: u64 = match self.config.on_freeze {
            OnFreeze::Drop => 0,
            _ => self.idle().map(|unit| unit.state_tensors).sum(),
        };
        self.elements.state_tensors_outside + active + idle
    }

    /// Offloaded optimizer state of the parameters outside the layers, in a period in which they are
    /// frozen. On flex, it is in the memory that the peak has for it.
    fn outer_on_host(&self) -> u64 {
        let offloads = self.config.on_freeze == OnFreeze::Offload && !self.workload.flex;
        if offloads && self.config.outer_every_nth() > 1 {
            self.elements.outside * self.state_of_element()
        } else {
            0
        }
    }

    fn gradients(&self) -> u64 {
        self.trainable() * self.workload.element()
    }
}

/// A step without recomputation.
impl Run<'_> {
    /// The peak within a step: at the head, in the backward pass of a layer, or in the optimizer's
    /// step.
    fn step(&self) -> Breakdown {
        let mut head = self.head().max(self.head_backward());
        head.activations += self.stored();
        let layers = (0..self.layers_backward()).map(|done| self.layer_step(done));
        let mut step = layers.fold(head, Breakdown::max).max(Breakdown {
            gradients: self.gradients()
                + self.largest_outside() * (self.outside_copies() - 1)
                + self.tied_gradient(),
            temporary: self.update().max(self.embedding_rows()),
            ..Breakdown::default()
        });
        step.gradients += self.accumulated();
        step
    }

    /// The gradients of the earlier batches of a step, added up.
    fn accumulated(&self) -> u64 {
        if self.workload.accumulates() {
            self.gradients()
        } else {
            0
        }
    }

    /// Activations that the layers store for the backward pass.
    fn stored(&self) -> u64 {
        self.stored_below(0)
    }

    /// The same after the backward pass of `done` layers. The active ones are the last ones, which run
    /// backward first: then their gradients exist while most activations do.
    fn stored_below(&self, done: usize) -> u64 {
        let active = self.draw.active_layers.saturating_sub(done);
        let frozen = self.layers_backward() - done;
        let frozen = frozen.saturating_sub(active);
        let activations = &self.activations;
        activations.active_layer * active as u64 + activations.frozen_layer * frozen as u64
    }

    /// The backward pass of a layer after that of `done` layers: what is still stored, and the
    /// gradients until its end.
    fn layer_step(&self, done: usize) -> Breakdown {
        let is_active = done < self.draw.active_layers;
        let freed = if is_active { self.activations.freed } else { 0 };
        Breakdown {
            gradients: self.largest_outside() + self.gradients_of(done + 1),
            activations: self.stored_below(done).saturating_sub(freed),
            temporary: self.activations.layer_backward + self.activations.hidden,
            ..Breakdown::default()
        }
    }

    /// The gradients of the layers after the backward pass of `done` layers.
    fn gradients_of(&self, done: usize) -> u64 {
        let active = self.draw.active.len() * done;
        let active = active.div_ceil(self.draw.active_layers.max(1));
        let units = self.draw.active.iter().take(active);
        let trainable: u64 = units.map(|unit| unit.trainable).sum();
        trainable * self.workload.element()
    }

    /// The number of layers that the backward pass goes through.
    fn layers_backward(&self) -> usize {
        let layers = self.elements.layers();
        if self.elements.trainable_below {
            layers
        } else {
            layers - self.workload.lowest_active.min(layers)
        }
    }

    /// Memory that the backward pass of the head needs.
    fn head(&self) -> Breakdown {
        if self.activations.head > 0 {
            let of_weight = if self.elements.head_trains {
                self.activations.head_weight
            } else {
                0
            };
            return Breakdown {
                temporary: self.activations.head + of_weight + self.activations.loss_states(),
                gradients: self.largest_outside(),
                ..Breakdown::default()
            };
        }
        let logits = self.activations.logits;
        let of_logits = Breakdown {
            activations: logits,
            temporary: 2 * logits,
            ..Breakdown::default()
        };
        if self.elements.outside == 0 {
            return of_logits;
        }
        of_logits.max(Breakdown {
            activations: logits,
            temporary: logits,
            gradients: self.largest_outside() * self.workload.copies(),
            ..Breakdown::default()
        })
    }

    /// The backward pass of the head, if the loss has computed its gradients already.
    fn head_backward(&self) -> Breakdown {
        if !self.elements.head_trains || self.activations.head == 0 {
            return Breakdown::default();
        }
        Breakdown {
            temporary: self.activations.head_backward + self.activations.loss_states(),
            gradients: self.largest_outside(),
            ..Breakdown::default()
        }
    }

    /// How many tensors of its size the gradient of an embedding needs while it is computed.
    fn outside_copies(&self) -> u64 {
        if self.activations.head > 0 {
            1
        } else {
            self.workload.copies()
        }
    }

    /// A gradient of the largest parameter outside the layers.
    fn largest_outside(&self) -> u64 {
        self.elements.largest_outside * self.workload.element()
    }

    /// The gradient of a tied head, which is kept until the gradient of the embedding is computed.
    fn tied_gradient(&self) -> u64 {
        if self.activations.tied_head {
            self.largest_outside()
        } else {
            0
        }
    }

    /// The rows of an embedding's gradient, which are summed in f32 if they are in half precision: the
    /// rows in both dtypes, and their sums in both.
    fn embedding_rows(&self) -> u64 {
        if self.workload.element() < 4 && self.elements.trainable_below {
            6 * self.activations.hidden
        } else {
            0
        }
    }

    /// Temporary tensors of AdamW: four in f32, for a slice of the largest parameter.
    fn update(&self) -> u64 {
        let units = self.elements.units.iter();
        let largest = units.map(|unit| unit.largest).max().unwrap_or(0);
        self.workload
            .update(largest.max(self.elements.largest_outside))
    }
}
