//! [`device`]: the device that the commands use, from the backends of this build.

use anyhow::Result;
use burn::tensor::{Device, DeviceType};

use crate::user_error::{UserError, require};

/// All backends that the program can be built with: the name of the feature, which is also its name in
/// `BURN_DEVICE`. Burn chooses the first one of a build.
pub(crate) const BACKENDS: [&str; 7] = ["cuda", "metal", "rocm", "vulkan", "wgpu", "tch", "flex"];

/// The backends of this build with their names, in the order of `BACKENDS`.
#[must_use]
pub(crate) fn backends() -> Vec<(&'static str, DeviceType)> {
    vec![
        #[cfg(feature = "cuda")]
        ("cuda", DeviceType::Cuda),
        #[cfg(feature = "metal")]
        ("metal", DeviceType::Metal),
        #[cfg(feature = "rocm")]
        ("rocm", DeviceType::Rocm),
        #[cfg(feature = "vulkan")]
        ("vulkan", DeviceType::Vulkan),
        #[cfg(feature = "wgpu")]
        ("wgpu", DeviceType::Wgpu),
        #[cfg(feature = "tch")]
        ("tch", DeviceType::LibTorch),
        #[cfg(feature = "flex")]
        ("flex", DeviceType::Flex),
    ]
}

/// The device that `BURN_DEVICE` names, or the first backend's.
///
/// # Errors
///
/// `BURN_DEVICE` names a backend that this build does not have, or there is none.
pub(crate) fn device() -> Result<Device> {
    let built: Vec<&str> = backends().into_iter().map(|(name, _)| name).collect();
    require!(
        !built.is_empty(),
        format!("build with one of the features {}", BACKENDS.join(", ")),
        "this program was built without a backend"
    );
    if let Some(name) = std::env::var_os("BURN_DEVICE") {
        check(&name.to_string_lossy(), &built)?;
    }
    Ok(Device::default())
}

/// The name of a device, for messages.
pub(crate) fn name(device: &Device) -> String {
    let name = format!("{device:?}");
    let name = name.strip_prefix("Device<").unwrap_or(&name);
    name.trim_end_matches('>').chars().take(40).collect()
}

/// Refuses a name in `BURN_DEVICE` that is none of the backends of this build.
fn check(name: &str, built: &[&str]) -> Result<()> {
    let wanted = name.to_lowercase();
    if built.contains(&wanted.as_str()) {
        return Ok(());
    }
    let (message, help) = if BACKENDS.contains(&wanted.as_str()) {
        (
            format!("BURN_DEVICE is `{name}`, and this program was built without that backend"),
            format!(
                "build with `--features {wanted}`, or give one of this build: {}",
                built.join(", ")
            ),
        )
    } else {
        (
            format!("BURN_DEVICE is `{name}`, which is no backend"),
            format!("give one of this build, or unset it: {}", built.join(", ")),
        )
    };
    Err(UserError::new(message).with_help(help).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_is_not_in_this_build_is_named_with_its_feature() {
        let built = ["vulkan", "flex"];
        let refused = |name| {
            let error = check(name, &built).unwrap_err();
            let error = error.downcast_ref::<UserError>().unwrap();
            format!("{error}; {}", error.help().unwrap())
        };
        check("Flex", &built).unwrap();
        assert_eq!(
            refused("cuda"),
            "BURN_DEVICE is `cuda`, and this program was built without that backend; build with \
             `--features cuda`, or give one of this build: vulkan, flex"
        );
        assert_eq!(
            refused("gpu"),
            "BURN_DEVICE is `gpu`, which is no backend; give one of this build, or unset it: \
             vulkan, flex"
        );
        assert!(refused("").contains("no backend"));
    }

    #[test]
    fn the_backends_of_a_build_are_in_the_order_in_which_burn_chooses() {
        let built = backends();
        let names: Vec<&str> = built.iter().map(|(name, _)| *name).collect();
        let known: Vec<&str> = BACKENDS
            .into_iter()
            .filter(|name| names.contains(name))
            .collect();
        assert_eq!(names, known);
        assert!(names.contains(&"flex"));
    }
}
