use super::SMOLLM2 as MODEL;
use super::*;

/// The facts of 990 rows of `most` tokens and ten of `longest`.
fn data(most: usize, longest: usize) -> DataFacts {
    DataFacts::of([vec![most; 990], vec![longest; 10]].concat()).unwrap()
}

fn derived(flags: Flags, model: &ModelFacts, data: &DataFacts) -> (Flags, Reasons) {
    derived_in(flags, model, data, None)
}

fn derived_in(
    mut flags: Flags,
    model: &ModelFacts,
    data: &DataFacts,
    room: Option<&Room<'_>>,
) -> (Flags, Reasons) {
    let mut reasons = Vec::new();
    flags.derive_from_model(model, &mut reasons);
    let facts = Facts {
        room,
        ..Facts::default()
    };
    flags.derive_from_data(model, data, facts, &mut reasons);
    (flags, reasons)
}

fn method(method: Method) -> Flags {
    let mut flags = Flags::default();
    flags.method.method = Some(method);
    flags
}

#[test]
fn a_linear_schedule_falls_to_0_unless_a_final_rate_is_given() {
    let last = |schedule, ratio, rate| {
        let mut flags = Flags::default();
        let training = &mut flags.training;
        (training.schedule, training.min_lr_ratio, training.min_lr) = (schedule, ratio, rate);
        derived(flags, &MODEL, &data(100, 100))
            .0
            .training
            .min_lr_ratio
    };
    let linear = Some(Schedule::Linear);
    assert_eq!(last(linear, None, None), Some(0.0));
    assert_eq!(last(linear, None, Some(-1.0)), Some(0.0));
    assert_eq!(last(linear, Some(0.3), None), Some(0.3));
    assert_eq!(last(linear, None, Some(1e-5)), None);
    for other in [None, Some(Schedule::Cosine), Some(Schedule::Constant)] {
        assert_eq!(last(other, None, None), None);
    }
}

#[test]
fn learning_rate_and_layers_follow_from_method_and_model() {
    let rows = data(100, 100);
    let lr = |method_of, model: &ModelFacts| derived(method(method_of), model, &rows).0.training.lr;
    let of = |parameters| {
        let model = ModelFacts {
            parameters,
            ..MODEL
        };
        [Method::Lisa, Method::Full, Method::Lora].map(|method| lr(method, &model).unwrap())
    };
    assert_eq!(of(1_500_000), [1e-3; 3]);
    assert_eq!(of(135_000_000), [3e-4, 1e-4, 1e-3]);
    assert_eq!(of(500_000_000), [5e-5, 5e-5, 2e-4]);
    let active = |layers| {
        let model = ModelFacts { layers, ..MODEL };
        derived(Flags::default(), &model, &rows)
            .0
            .method
            .active_layers
    };
    assert_eq!(
        (active(1), active(30), active(80)),
        (Some(1), Some(2), Some(4))
    );
    // The other methods have no active layers and no period.
    let lora = derived(method(Method::Lora), &MODEL, &rows).0;
    assert_eq!(
        (lora.method.active_layers, lora.method.period),
        (None, None)
    );
}

#[test]
fn a_model_of_the_studys_size_trains_as_many_layers_as_lora_has_memory_for() {
    let rows = data(100, 100);
    let like_lora = |rows: usize, tokens: usize| (tokens < 1000).then_some(rows + tokens);
    let of = |mut flags: Flags, parameters: usize| {
        let model = ModelFacts {
            parameters,
            ..MODEL
        };
        let facts = Facts {
            like_lora: Some(LikeLora(&like_lora)),
            ..Facts::default()
        };
        let mut reasons = Vec::new();
        flags.derive_from_model(&model, &mut reasons);
        flags.derive_from_data(&model, &rows, facts, &mut reasons);
        let freeze = flags.method.freeze.map(|paths| paths.join(","));
        (flags.method.active_layers, freeze)
    };
    let frozen = Some("embed_tokens,embed_positions,lm_head".to_owned());
    let paper = (Some(2), None);
    // Four rows of 100 tokens; rows that are cut are shorter.
    assert_eq!(
        of(Flags::default(), 135_000_000),
        (Some(104), frozen.clone())
    );
    let mut cut = Flags::default();
    cut.input.max_seq_length = Some(64);
    assert_eq!(of(cut, 135_000_000), (Some(68), frozen));
    for parameters in [1_500_000, 500_000_000] {
        assert_eq!(of(Flags::default(), parameters), paper);
    }
    let with = |set: fn(&mut Flags)| {
        let mut flags = Flags::default();
        set(&mut flags);
        of(flags, 135_000_000)
    };
    assert_eq!(with(|flags| flags.method.active_layers = Some(2)), paper);
    assert_eq!(with(|flags| flags.method.outer_every = Some(1)), paper);
    assert_eq!(
        with(|flags| flags.method.policy = Some(Policy::Fixed)),
        paper
    );
    assert_eq!(
        with(|flags| flags.method.split = Some(vec!["attn".into()])),
        paper
    );
    assert_eq!(
        with(|flags| flags.input.resize_embeddings = Some(true)),
        paper
    );
    let none = with(|flags| flags.method.freeze = Some(Vec::new()));
    assert_eq!(none, (Some(2), Some(String::new())));
    let full = with(|flags| flags.method.method = Some(Method::Full));
    assert_eq!(full, (None, None));
}

#[test]
fn the_length_covers_the_data_and_stays_below_the_models_limit() {
    let length = |model: &ModelFacts, data: &DataFacts| {
        let (flags, reasons) = derived(Flags::default(), model, data);
        let reason = reasons.iter().find(|(name, _)| *name == "max-seq-length");
        (
            flags.input.max_seq_length.unwrap(),
            reason.unwrap().1.clone(),
        )
    };
    assert_eq!(length(&MODEL, &data(489, 612)).0, 612);
    let (far, reason) = length(&MODEL, &data(489, 5000));
    assert_eq!(far, 512);
    assert_eq!(
        reason,
        "99th percentile of the data 489, longest row 5000; the model's limit 8192"
    );
    let short = ModelFacts {
        positions: 256,
        ..MODEL
    };
    assert_eq!(length(&short, &data(489, 612)).0, 256);
    assert_eq!(DataFacts::of(Vec::new()), None);
}

#[test]
fn held_out_rows_are_whole_if_the_plan_fits() {
    let of = |rows: DataFacts, bytes: Option<u64>, pack: bool, held_out: usize| {
        let needs = |rows: usize, tokens: usize| Some((rows * tokens) as u64);
        let room = bytes.map(|bytes| Room {
            bytes,
            needs: &needs,
        });
        let mut flags = Flags::default();
        flags.input.pack = Some(pack);
        let data = rows.with_held_out(held_out);
        let (flags, reasons) = derived_in(flags, &MODEL, &data, room.as_ref());
        let reason = reasons
            .into_iter()
            .find(|(name, _)| *name == "max-seq-length");
        (flags.input.max_seq_length.unwrap(), reason.unwrap().1)
    };
    let rows = || data(400, 507);
    assert_eq!(of(rows(), None, false, 300).0, 507);
    let (length, reason) = of(rows(), Some(2280), false, 570);
    assert_eq!(length, 570);
    // The plan is that of the training rows.
    assert_eq!(
        reason,
        "99th percentile of the data 400, longest row 507, longest held-out row 570; the model's limit \
         8192; planned 0 MiB of 0 MiB"
    );
    let (length, reason) = of(rows(), Some(2279), false, 570);
    assert_eq!(length, 507);
    assert!(
        reason.contains("; 570 does not fit into memory; "),
        "{reason}"
    );
    // At most the model's limit.
    assert_eq!(of(rows(), None, false, 9000).0, 8192);
    // Packed rows, and training rows that are cut, become longer with the limit.
    for (rows, pack) in [(rows(), true), (data(400, 5000), false)] {
        assert_eq!(of(rows.clone(), None, pack, 800).0, 800);
        let cut = of(rows, None, pack, 801).0;
        assert_eq!(cut, if pack { 507 } else { 448 });
    }
}

#[test]
fn what_does_not_fit_into_memory_is_made_smaller_and_said() {
    let rows = data(489, 612);
    let shape = |bytes, given: Flags| {
        let needs = |rows: usize, tokens: usize| Some((rows * tokens) as u64);
        let room = Room {
            bytes,
            needs: &needs,
        };
        let (flags, reasons) = derived_in(given, &MODEL, &rows, Some(&room));
        let training = flags.training;
        (
            training.batch_size.unwrap(),
            training.gradient_accumulation_steps.unwrap_or(1),
            flags.input.max_seq_length.unwrap(),
            reasons
                .iter()
                .any(|(_, reason)| reason.contains("not fit into memory")),
        )
    };
    assert_eq!(shape(2448, Flags::default()), (4, 1, 612, false));
    assert_eq!(shape(2447, Flags::default()), (2, 2, 612, true));
    assert_eq!(shape(612, Flags::default()), (1, 4, 612, true));
    assert_eq!(shape(600, Flags::default()), (1, 4, 576, true));
    assert_eq!(shape(1, Flags::default()), (1, 4, 64, true));
    let mut batch = Flags::default();
    batch.training.batch_size = Some(4);
    assert_eq!(shape(600, batch), (4, 1, 128, true));
    // The longest row counts, not a limit above it, unless rows are packed up to that limit.
    let mut limit = Flags::default();
    limit.input.max_seq_length = Some(2048);
    assert_eq!(shape(2448, limit.clone()), (4, 1, 2048, false));
    limit.input.pack = Some(true);
    assert_eq!(shape(2448, limit), (1, 4, 2048, true));
}

#[test]
fn held_out_rows_of_a_given_length_fit_into_a_batch() {
    let rows = |held_out: usize, length: usize| {
        let needs = |rows: usize, tokens: usize| Some((rows * tokens) as u64);
        let room = Room {
            bytes: 2448,
            needs: &needs,
        };
        let mut flags = Flags::default();
        flags.input.max_seq_length = Some(length);
        let data = data(489, 612).with_held_out(held_out);
        let (flags, reasons) = derived_in(flags, &MODEL, &data, Some(&room));
        let reason = reasons.into_iter().find(|(name, _)| *name == "batch-size");
        let reason = reason.map(|(_, reason)| reason).unwrap_or_default();
        (flags.training.batch_size.unwrap(), reason)
    };
    assert_eq!(rows(600, 1024), (4, String::new()));
    let reason = "4 rows of 1000 tokens do not fit into memory".to_owned();
    assert_eq!(rows(1000, 1024), (2, reason));
    // They are cut, too.
    assert_eq!(rows(1000, 612).0, 4);
}

#[test]
fn layers_are_chosen_for_the_rows_that_are_trained_on() {
    let like_lora = |rows: usize, tokens: usize| Some(rows + tokens);
    let active = |pack| {
        let mut flags = Flags::default();
        (flags.input.pack, flags.input.max_seq_length) = (Some(pack), Some(2048));
        let facts = Facts {
            like_lora: Some(LikeLora(&like_lora)),
            ..Facts::default()
        };
        let mut reasons = Vec::new();
        flags.derive_from_model(&MODEL, &mut reasons);
        flags.derive_from_data(&MODEL, &data(489, 612), facts, &mut reasons);
        flags.method.active_layers
    };
    assert_eq!(active(false), Some(616));
    assert_eq!(active(true), Some(2052));
}

#[test]
fn a_short_run_samples_its_layers_more_than_once() {
    let period = |steps: usize, active: usize| {
        let mut flags = Flags::default();
        flags.training.steps = Some(steps);
        flags.method.active_layers = Some(active);
        let rows = data(100, 100);
        derived(flags, &MODEL, &rows).0.method.period.unwrap()
    };
    for steps in 2..200 {
        for active in [1, 2, 10, 15, 29, 30] {
            let period = period(steps, active);
            assert!((1..steps).contains(&period), "{steps} {active} {period}");
        }
    }
    // A third of the layers: each has a turn.
    assert_eq!([3, 6, 12, 15].map(|steps| period(steps, 10)), [1, 2, 4, 5]);
    // Two of 30: four periods.
    assert_eq!([3, 8, 19, 20].map(|steps| period(steps, 2)), [1, 2, 4, 5]);
    // There is no period below one step.
    assert_eq!(period(1, 2), 1);
}

#[test]
fn epochs_and_period_follow_from_the_rows() {
    let of = |rows: usize, steps: Option<usize>| {
        let data = DataFacts::of(vec![100; rows]).unwrap();
        let mut flags = Flags::default();
        flags.training.steps = steps;
        let (flags, _) = derived(flags, &MODEL, &data);
        (flags.training.epochs, flags.method.period.unwrap())
    };
    assert_eq!(of(1_999, None), (Some(3.0), 20));
    assert_eq!(of(7_473, None), (Some(2.0), 20));
    assert_eq!(of(52_000, None), (Some(1.0), 20));
    // 30 layers, of which 2 are active, have 15 periods of turns.
    assert_eq!(of(7_473, Some(150)), (None, 10));
    assert_eq!(of(7_473, Some(50)), (None, 5));
    let mut flags = Flags::default();
    (flags.training.steps, flags.method.layer_warmup) = (Some(50), Some(8));
    assert_eq!(
        derived(flags, &MODEL, &data(100, 100)).0.method.period,
        Some(8)
    );
    // 3 epochs of 25 steps.
    assert_eq!(of(100, None), (Some(3.0), 5));
    // 98 packed rows in batches of 4: 50 steps in 2 epochs, and not 1000.
    let mut flags = Flags::default();
    (flags.input.pack, flags.input.max_seq_length) = (Some(true), Some(2048));
    let rows = DataFacts::of(vec![100; 2_000]).unwrap();
    assert_eq!(rows.packed(2048), 98);
    assert_eq!(derived(flags, &MODEL, &rows).0.method.period, Some(5));
}

#[test]
fn a_period_has_its_reason() {
    let of = |steps: usize, active: usize, warmup: usize| {
        let mut flags = Flags::default();
        flags.training.steps = Some(steps);
        flags.method.active_layers = Some(active);
        flags.method.layer_warmup = Some(warmup);
        let (flags, reasons) = derived(flags, &MODEL, &data(100, 100));
        let reason = reasons.into_iter().find(|(name, _)| *name == "period");
        let reason = reason.map(|(_, reason)| reason).unwrap_or_default();
        (flags.method.period.unwrap(), reason)
    };
    let turns = |run: &str| format!("so that each of 30 layers can have a turn in about {run}");
    let few = |run: &str| {
        format!("the shortest: about {run} are too few for a turn of each of 30 layers")
    };
    let warmup = "as long as --layer-warmup".to_owned();
    // Four periods are not one turn of each layer, with 2 of 30; they are with 10.
    assert_eq!(of(12, 2, 0), (3, few("12 steps")));
    assert_eq!(of(12, 10, 0), (4, turns("12 steps")));
    assert_eq!(of(150, 2, 0), (10, turns("150 steps")));
    assert_eq!(of(1000, 2, 0), (20, String::new()));
    assert_eq!(of(12, 10, 4), (4, turns("12 steps")));
    assert_eq!(of(12, 2, 4), (4, warmup.clone()));
    assert_eq!(of(12, 2, 12), (12, warmup.clone()));
    assert_eq!(of(1000, 2, 30), (30, warmup));
}

#[test]
fn rows_that_are_left_out_do_not_count() {
    let rows = DataFacts::of(vec![100; 90]).unwrap();
    let of = |kept: Option<KeptRows<'_>>, pack: bool| {
        let mut flags = Flags::default();
        (flags.input.max_seq_length, flags.input.pack) = (Some(64), Some(pack));
        let mut reasons = Vec::new();
        flags.derive_from_model(&MODEL, &mut reasons);
        let facts = Facts {
            kept,
            ..Facts::default()
        };
        flags.derive_from_data(&MODEL, &rows, facts, &mut reasons);
        let reasons = reasons.into_iter();
        let reasons = reasons.filter(|(name, _)| ["epochs", "period"].contains(name));
        reasons.map(|(_, reason)| reason).collect::<Vec<_>>()
    };
    // Of 90 rows, 53 have no token to train on within 64 tokens.
    let kept = |length: usize| if length <= 64 { 37 } else { 90 };
    let kept = Some(KeptRows(&kept));
    let few = |steps: usize| {
        format!("the shortest: about {steps} steps are too few for a turn of each of 30 layers")
    };
    assert_eq!(of(kept, false), ["37 rows".to_owned(), few(30)]);
    assert_eq!(of(kept, true), ["37 rows".to_owned(), few(30)]);
    assert_eq!(of(None, false), ["90 rows".to_owned(), few(69)]);
}
