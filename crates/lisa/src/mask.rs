//! [`FreezeMask`]: which parameters of a module require gradients.

use std::collections::HashSet;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

use crate::visit::requires_gradients;

/// The parameters that require gradients.
///
/// A frozen layer keeps its dropout and its running statistics: only the gradients of its parameters
/// are left out. Burn's `freeze_group` turns off all three.
///
/// # Example
///
/// ```
/// use burn::nn::LinearConfig;
/// use burn::tensor::Device;
/// use lisa::FreezeMask;
///
/// let linear = LinearConfig::new(2, 2).init(&Device::flex().autodiff());
/// let (weight, bias) = (linear.weight.id, linear.bias.as_ref().unwrap().id);
///
/// let mut mask = FreezeMask::new([weight, bias]);
/// let linear = mask.change(linear, [bias]);
/// assert!(!linear.weight.is_require_grad());
/// assert!(linear.bias.unwrap().is_require_grad());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FreezeMask {
    trainable: HashSet<ParamId>,
}

impl FreezeMask {
    /// The mask of a module in which exactly these parameters require gradients.
    pub fn new(trainable: impl IntoIterator<Item = ParamId>) -> Self {
        Self {
            trainable: trainable.into_iter().collect(),
        }
    }

    /// Makes the parameters in `trainable` require gradients, and freezes the parameters of the
    /// mask that are not in `trainable`.
    ///
    /// A parameter that is neither in this mask nor in `trainable` is unchanged. A parameter that
    /// was trainable and stays trainable is also unchanged: a change would make a new autodiff
    /// leaf, and gradients that are not yet extracted would be lost. Call it after a step and
    /// before the next forward pass. In distributed training, Burn marks the parameters whose
    /// gradients the workers sum. Parameters that become trainable get this mark. Cost: it visits
    /// every module twice; no tensor is copied.
    #[must_use]
    pub fn change<M: Module>(
        &mut self,
        module: M,
        trainable: impl IntoIterator<Item = ParamId>,
    ) -> M {
        let target: HashSet<ParamId> = trainable.into_iter().collect();
        let mut distributed = Distributed::default();
        module.visit(&mut distributed);
        let module = module.map(&mut Toggle {
            distributed: distributed.0,
            on: target.difference(&self.trainable).copied().collect(),
            off: self.trainable.difference(&target).copied().collect(),
        });
        self.trainable = target;
        module
    }

    /// Whether this parameter requires gradients.
    #[must_use]
    pub fn contains(&self, id: ParamId) -> bool {
        self.trainable.contains(&id)
    }

    /// How many parameters require gradients.
    #[must_use]
    pub fn len(&self) -> usize {
        self.trainable.len()
    }

    /// Whether no parameter requires gradients.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trainable.is_empty()
    }
}

struct Toggle {
    on: HashSet<ParamId>,
    off: HashSet<ParamId>,
    distributed: bool,
}

/// Looks for a parameter that distributed training has marked.
#[derive(Default)]
struct Distributed(bool);

impl ModuleVisitor for Distributed {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Burn answers for float tensors alone.
        self.0 |= requires_gradients(param) && param.val().is_distributed();
    }
}

impl ModuleMapper for Toggle {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.on.contains(&param.id) {
            let (id, param) = (param.id, param.set_require_grad(true));
            // Freezing removed Burn's mark, without which the workers do not sum its gradient.
            if self.distributed {
                param.map(|tensor| tensor.set_distributed(id))
            } else {
                param
            }
        } else if self.off.contains(&param.id) {
            param.set_require_grad(false)
        } else {
            param
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    fn linears() -> Vec<Linear> {
        let device = Device::flex().autodiff();
        let linears: Vec<Linear> = (0..3)
            .map(|_| LinearConfig::new(2, 2).with_bias(false).init(&device))
            .collect();
        for linear in &linears {
            assert_eq!(linear.weight.val().dims(), [2, 2]);
        }
        linears
    }

    fn state(linears: &[Linear]) -> Vec<bool> {
        linears.iter().map(|l| l.weight.is_require_grad()).collect()
    }

    #[test]
    fn exactly_the_asked_parameters_require_gradients() {
        let model = linears();
        let ids: Vec<ParamId> = model.iter().map(|l| l.weight.id).collect();
        let cases: [(&str, &[usize]); 4] = [
            ("none", &[]),
            ("all", &[0, 1, 2]),
            ("first", &[0]),
            ("outer", &[0, 2]),
        ];
        for (name, on) in cases {
            let mut mask = FreezeMask::new(ids.clone());
            let model = mask.change(model.clone(), on.iter().map(|&i| ids[i]));
            let expected: Vec<bool> = (0..3).map(|i| on.contains(&i)).collect();
            assert_eq!(state(&model), expected, "{name}");
            let model = mask.change(model, ids.clone());
            assert_eq!(state(&model), [true; 3], "{name}, and back");
        }
    }

    #[test]
    fn a_parameter_outside_the_mask_is_left_alone() {
        let model = linears();
        let ids: Vec<ParamId> = model.iter().map(|l| l.weight.id).collect();
        let mut model = model;
        model[1].weight = model[1].weight.clone().set_require_grad(false);
        let mut mask = FreezeMask::new([ids[0], ids[2]]);
        let model = mask.change(model, [ids[2]]);
        assert_eq!(state(&model), [false, false, true]);
    }

    #[test]
    fn validation_mode_and_back_keeps_the_mask() {
        let model = linears();
        let ids: Vec<ParamId> = model.iter().map(|l| l.weight.id).collect();
        let model = FreezeMask::new(ids.clone()).change(model, [ids[1]]);
        let model = model.valid().train();
        assert_eq!(state(&model), [false, true, false]);
    }
}
