//! Settings that determine how much memory a run needs.

use anyhow::Result;
use lisa::recompute::Recompute;

use super::group::{differing, group};
use super::kinds::{Dtype, Method, Quantize};
use crate::user_error::require;

group! { "Memory", MemoryFlags, MemorySettings {
    /// Dtype of the weights [default: as stored; bundled model: f32]
    #[arg(long, value_enum)]
    dtype: Dtype = Dtype::F32;
    /// Memory of the device in GiB [default: what a CPU has available]
    #[arg(long, value_name = "GIB", value_parser = gib)]
    memory: f64 = 0.0;
    /// Recompute activations from every N-th layer; 0: off [default: 0]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "1")]
    recompute: usize = 0;
    /// Keep frozen layers quantized on the device [default: none]
    #[arg(long, value_enum)]
    quantize: Quantize = Quantize::None;
    /// With --recompute: recompute attention and MLP separately, for less memory
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    sublayers: bool = false;
    /// With --recompute: update in the backward pass; no accumulation or clipping
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    update_in_backward: bool = false;
    /// Train half-precision weights without f32 master weights; small updates are lost
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    no_master_weights: bool = false;
}}

/// Reads `--memory`: GiB, or a number with GB or GiB. A file may have 0, which is not known.
pub(crate) fn gib(text: &str) -> Result<f64, &'static str> {
    let lower = text.to_ascii_lowercase();
    let (number, unit) = if let Some(number) = lower.strip_suffix("gib") {
        (number, 1.0)
    } else if let Some(number) = lower.strip_suffix("gb") {
        (number, 1e9 / f64::from(1 << 30))
    } else {
        (lower.as_str(), 1.0)
    };
    let given = number
        .trim_end()
        .parse()
        .ok()
        .map(|given: f64| given * unit);
    given
        .filter(|gib: &f64| *gib > 0.0 && gib.is_finite())
        .ok_or("give the memory of the device in GiB, above 0 (or as 24GB), or leave it out")
}

impl MemorySettings {
    /// Whether full-precision weights of frozen layers are in host memory and not on the device.
    #[must_use]
    pub(crate) fn keeps_exact_elsewhere(&self) -> bool {
        self.quantize != Quantize::None
    }

    /// How activations are recomputed.
    #[must_use]
    pub(crate) fn recomputation(&self) -> Recompute {
        let plan = Recompute::new().with_every(self.recompute);
        if self.sublayers {
            plan.with_sublayers()
        } else {
            plan
        }
    }

    pub(super) fn check(&self, method: Method) -> Result<()> {
        require!(
            self.memory >= 0.0 && self.memory.is_finite(),
            "give the memory of the device in GiB",
            "--memory is {}",
            self.memory
        );
        require!(
            !self.sublayers || self.recompute > 0,
            "add --recompute",
            "--sublayers has no effect without recomputation"
        );
        require!(
            !self.update_in_backward || self.recompute > 0,
            "add --recompute",
            "--update-in-backward has no effect without recomputation"
        );
        require!(
            !self.no_master_weights || self.dtype != Dtype::F16 || method == Method::Lora,
            "leave --no-master-weights out, or use --dtype bf16",
            "--no-master-weights makes weights of --dtype f16 infinite: AdamW's epsilon of 1e-8 and small \
             squares of gradients are 0 in f16"
        );
        require!(
            self.quantize == Quantize::None || method == Method::Lisa,
            "leave --quantize out, or use --method lisa",
            "--quantize is for frozen layers of LISA, and the method is {method}"
        );
        Ok(())
    }

    pub(super) fn differs(&self, saved: &Self) -> Option<String> {
        differing!(self, saved; dtype, no_master_weights, quantize);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::gib;

    #[test]
    fn memory_is_in_gib_or_has_its_unit() {
        assert_eq!(gib("24"), Ok(24.0));
        assert_eq!(gib("0.5GiB"), Ok(0.5));
        assert_eq!(gib("24 gib"), Ok(24.0));
        // 24e9 bytes.
        let bytes = gib("24GB").unwrap() * f64::from(1 << 30);
        assert!((bytes - 24e9).abs() < 1.0, "{bytes}");
        for wrong in ["0", "-1GB", "GB", "inf", "24TB", ""] {
            assert!(gib(wrong).unwrap_err().contains("above 0"), "{wrong}");
        }
    }
}
