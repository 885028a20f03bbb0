//! The arms of the study: the methods, which run on every task, and the variants of LISA.

use clap::ValueEnum;
use lisa_cli::display_as_value;

use super::arm::{Arm, Policy, Sampled, State};

/// An arm by its name on the command line.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// LoRA of rank 16
    Lora,
    /// Layers sampled once, embeddings frozen: for gsm8k, pubmedqa and instruct
    LisaOnce,
    /// LISA with ten layers, embeddings frozen
    LisaFrozen,
    /// The same with the policy `budget`
    LisaBudget,
    /// Twenty layers sampled once, embeddings frozen, with recomputation
    LisaRecomputed,
    /// Full training
    Full,
    /// LISA with two layers, embeddings trained
    Lisa,
    /// The variants of LISA, with one seed
    Variants,
}

display_as_value!(Kind);

impl Kind {
    pub(crate) fn of(arm: Arm) -> Option<Self> {
        match arm {
            Arm::Base => None,
            Arm::Lora { .. } => Some(Self::Lora),
            Arm::Full => Some(Self::Full),
            Arm::Lisa(sampled) if sampled.recompute => Some(Self::LisaRecomputed),
            Arm::Lisa(sampled) if sampled.period == 0 => Some(Self::LisaOnce),
            Arm::Lisa(sampled) if sampled.policy == Policy::Budget => Some(Self::LisaBudget),
            Arm::Lisa(sampled) if sampled.outer_every == 0 => Some(Self::LisaFrozen),
            Arm::Lisa(_) => Some(Self::Lisa),
        }
    }
}

/// The arms of every task, the most telling ones first. With ten layers and frozen embeddings, LISA needs
/// 3 to 14 % less memory than LoRA. With recomputation, twenty layers need less than LoRA without it.
pub(super) const ARMS: [Arm; 6] = [
    Arm::Base,
    Arm::Lora { rank: 16 },
    Arm::Lisa(Sampled {
        active_layers: 10,
        ..FROZEN_2
    }),
    Arm::Lisa(Sampled {
        active_layers: 20,
        period: 0,
        recompute: true,
        ..FROZEN_2
    }),
    Arm::Full,
    Arm::Lisa(Arm::lisa(2)),
];

/// The arm with which the others are compared.
pub(crate) const REFERENCE: Arm = Arm::Lora { rank: 16 };

/// The place of the layers that are sampled once among the arms.
pub(super) const ONCE: usize = 2;

pub(super) const FROZEN_2: Sampled = Sampled {
    outer_every: 0,
    ..Arm::lisa(2)
};

pub(super) fn frozen(active_layers: usize) -> Sampled {
    Sampled {
        active_layers,
        ..FROZEN_2
    }
}

/// Layers that are sampled once, for the whole run.
pub(super) fn once(active_layers: usize) -> Sampled {
    Sampled {
        period: 0,
        ..frozen(active_layers)
    }
}

/// The variants that run on every task with every seed: of those that ran on the first task with one seed, the
/// best one in which all layers may train.
pub(super) const LEVERS: [Arm; 1] = [Arm::Lisa(Sampled {
    active_layers: 10,
    policy: Policy::Budget,
    ..FROZEN_2
})];

/// What else might close the gap to LoRA, and the paper's control, whose layers are sampled once. They vary LISA
/// with ten layers where they can: with two, 12 periods draw 24 of 30 layers, so that there are hardly
/// layers that return, and the adaptive policies only begin to use what they observe.
pub(super) fn variants() -> Vec<Arm> {
    let ten = frozen(10);
    let by = |policy| Sampled { policy, ..ten };
    let every = |period| Sampled { period, ..ten };
    let sampled = [
        frozen(16),
        once(10),
        Sampled {
            state: State::Offload,
            ..ten
        },
        // Each layer has one turn.
        Sampled {
            period: 40,
            policy: Policy::Cyclic,
            ..ten
        },
        by(Policy::MeanNorm),
        by(Policy::MeanSquare),
        by(Policy::LossDecrease),
        // Each layer trains in one of three periods, as often as the others.
        by(Policy::Cyclic),
        // The default of `lisa train` for a run of 120 steps.
        every(20),
        Sampled {
            period: 0,
            ..Arm::lisa(2)
        },
        Arm::lisa(4),
        every(5),
        Sampled {
            outer_every: 4,
            ..Arm::lisa(4)
        },
        by(Policy::Gradient),
        Sampled {
            layer_warmup: 5,
            ..ten
        },
        Sampled {
            state: State::Second,
            ..ten
        },
        Sampled {
            catch_up: true,
            ..ten
        },
        Sampled {
            policy: Policy::MeanNorm,
            ..once(10)
        },
    ];
    sampled.into_iter().map(Arm::Lisa).collect()
}
