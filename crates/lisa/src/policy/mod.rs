//! How the layers of a period are sampled.
//!
//! A [`SamplingPolicy`] gets a [`Draw`] and returns layers. It gets the number of layers, but no
//! modules. Its result is a pure function of the seed, the period and, for a policy that observes
//! gradients, the [`Scores`] of the layers. [`PolicyConfig`] selects a policy: one of this module,
//! or one of your own by [`PolicyConfig::custom`].
//!
//! # Example
//!
//! ```
//! use lisa::policy::{Cyclic, CyclicOrder, Draw, SamplingPolicy, Uniform};
//!
//! // Two of six layers, in the periods 0 to 2, with the seed 42.
//! let draws = (0..3).map(|period| Draw::new(42, period, 6, 2));
//! let cyclic = Cyclic::new(CyclicOrder::Ascending);
//! let layers: Vec<_> = draws.clone().map(|draw| cyclic.draw(&draw)).collect();
//! assert_eq!(layers, [[0, 1], [2, 3], [4, 5]]);
//! assert!(draws.clone().all(|draw| Uniform.draw(&draw).len() == 2));
//! ```

mod rng;
mod scores;
mod draw;
mod sampling;
pub(crate) mod systematic;
mod uniform;
mod bernoulli;
mod weighted;
mod cyclic;
mod gradient;
mod budget;
mod fixed;
mod config;
#[cfg(test)]
mod test_support;

pub use bernoulli::Bernoulli;
pub use budget::Budget;
pub use config::{Custom, PolicyConfig};
pub use cyclic::{Cyclic, CyclicOrder};
pub use draw::Draw;
pub use fixed::Fixed;
pub use gradient::Gradient;
pub use rng::DrawRng;
pub use sampling::SamplingPolicy;
pub use scores::{Observation, Score, Scores, Statistic};
pub use uniform::Uniform;
pub use weighted::Weighted;
