//! Plans of the update in slices, and of the tensors that the slices have in a record.

use super::*;

#[test]
fn a_large_parameter_is_planned_in_the_slices_in_which_it_is_stepped() {
    let net = net();
    for (flex, slice) in [(true, 1 << 16), (false, 1 << 22)] {
        let workload = Workload {
            flex,
            ..Workload::new(&net, 1, 4)
        };
        let most = 128 * slice;
        for (elements, temporary) in [
            (7, 7),
            (slice, slice),
            (most, slice),
            (2 * most, 2 * slice),
            (2 * most + 1, 2 * slice + 1),
        ] {
            assert_eq!(workload.update(elements), 16 * temporary, "{elements}");
        }
    }
}

#[test]
fn the_tensors_of_a_record_are_those_of_all_layers_that_have_state() {
    let net = net();
    let tensors = |dtype, on_freeze| {
        let workload = Workload {
            dtype,
            ..Workload::new(&net, 1, 4)
        };
        let config = LisaConfig::new().with_on_freeze(on_freeze);
        let plan = MemoryPlan::lisa(&net, &config, &workload).unwrap();
        plan.state_tensors
    };
    // Two moments of two layers, the embedding and the head, or of all layers; and master weights.
    assert_eq!(tensors(FloatDType::F32, OnFreeze::Drop), 4 * 2);
    assert_eq!(tensors(FloatDType::BF16, OnFreeze::Drop), 4 * 3);
    for on_freeze in [OnFreeze::Keep, OnFreeze::Offload] {
        assert_eq!(tensors(FloatDType::F32, on_freeze), 10 * 2);
    }
    let workload = Workload::new(&net, 1, 4);
    let lora = MemoryPlan::lora(&net, &Adapters::all(2, false), &workload).unwrap();
    assert_eq!(lora.state_tensors, 8 * 2 * 2);
}

#[test]
fn each_slice_of_a_large_parameter_has_tensors_of_its_own() {
    let device = Device::flex().autodiff();
    let embed = LinearConfig::new(8192, 4096).with_bias(false).init(&device);
    let net = Net { embed, ..net() };
    let tensors = |flex| {
        let workload = Workload {
            flex,
            ..Workload::new(&net, 1, 4)
        };
        let plan = MemoryPlan::lisa(&net, &LisaConfig::new(), &workload).unwrap();
        plan.state_tensors
    };
    assert_eq!(tensors(true), 2 * (128 + 3));
    assert_eq!(tensors(false), 2 * (8 + 3));
    assert!(!net.embed.weight.is_initialized());
}
