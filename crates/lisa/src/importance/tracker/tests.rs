//! Norms of small models, and models of another structure.

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::Device;

use super::*;

#[derive(Module, Debug)]
struct Net {
    embed: Linear,
    layers: Vec<Linear>,
}

fn net(width: usize, values: &[f32], device: &Device) -> Net {
    let linear = |value: f32| Linear {
        weight: Param::from_tensor(Tensor::full([width, width], value, device)),
        bias: Some(Param::from_tensor(Tensor::full([1], value, device))),
    };
    Net {
        embed: linear(5.0),
        layers: values.iter().map(|&value| linear(value)).collect(),
    }
}

#[test]
fn the_mean_is_of_norms_over_all_elements_of_a_layer() {
    let (plain, autodiff) = (Device::flex(), Device::flex().autodiff());
    let mut tracker = NormTracker::new(&net(2, &[1.0, 1.0], &plain), &[]).unwrap();
    assert!(tracker.norms().is_err());
    // Another copy each time, with and without autodiff.
    tracker.observe(&net(2, &[1.0, 0.0], &plain)).unwrap();
    tracker.observe(&net(2, &[3.0, 2.0], &autodiff)).unwrap();
    let norms = tracker.norms().unwrap();
    let five = 5.0f64.sqrt();
    assert_eq!(norms.observations, 2);
    for ((path, norm), (wanted, mean)) in norms
        .layers
        .iter()
        .zip([("layers.0", 2.0), ("layers.1", 1.0)])
    {
        assert_eq!(path, wanted);
        assert!((norm - mean * five).abs() < 1e-6, "{path}: {norm}");
    }
    let outside: Vec<&str> = norms
        .outside
        .iter()
        .map(|(path, _)| path.as_str())
        .collect();
    assert_eq!(outside, ["embed.weight", "embed.bias"]);
    assert_eq!((norms.outside[0].1, norms.outside[1].1), (10.0, 5.0));
}

#[test]
fn an_update_is_the_difference_from_the_base() {
    let device = Device::flex();
    let base = net(2, &[1.0, 4.0], &device);
    let mut tracker = NormTracker::new(&base, &[]).unwrap();
    tracker.observe_update(&base, &base).unwrap();
    tracker
        .observe_update(&net(2, &[3.0, 4.0], &device), &base)
        .unwrap();
    let norms = tracker.norms().unwrap();
    assert!((norms.layers[0].1 - 5.0f64.sqrt()).abs() < 1e-6);
    assert_eq!((norms.layers[1].1, norms.outside[0].1), (0.0, 0.0));
}

#[test]
fn a_model_of_another_structure_is_refused_and_not_counted() {
    let device = Device::flex();
    let base = net(2, &[1.0, 4.0], &device);
    let mut tracker = NormTracker::new(&base, &[]).unwrap();
    tracker.observe(&base).unwrap();
    let before = tracker.norms().unwrap();
    let error = tracker.observe(&net(2, &[1.0], &device)).unwrap_err();
    assert!(
        error.to_string().contains("4 parameters instead of 6"),
        "{error}"
    );
    let error = tracker.observe(&net(3, &[1.0, 4.0], &device)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`embed.weight` has shape [3, 3]"),
        "{error}"
    );
    let three = net(2, &[1.0; 3], &device);
    let error = tracker.observe(&three).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("an unknown parameter `layers.2.weight`")
    );
    let error = tracker
        .observe_update(&base, &net(2, &[1.0], &device))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the base model has no `layers.1.weight`"),
        "{error}"
    );
    assert_eq!(tracker.norms().unwrap(), before);
}
