//! Settings without effect.

use std::path::Path;

use super::{Contents, toml};
use crate::user_error::UserError;

/// The error of the effect check, and its help.
pub(super) fn idle(text: &str) -> Option<(String, String)> {
    let flags = toml(text).unwrap();
    let settings = flags.clone().resolve(None).unwrap();
    let error = flags.check_effect(&settings).err()?;
    let error = error.downcast_ref::<UserError>().unwrap();
    assert_eq!(
        error.place(),
        Some((Path::new("run.toml"), Some(2))),
        "{text}"
    );
    Some((error.to_string(), error.help().unwrap().to_owned()))
}

#[test]
fn a_setting_without_effect_is_an_error_that_says_so() {
    for (text, message, help) in [
        (
            "method = \"lora\"\npolicy = \"cyclic\"",
            "--policy has no effect with --method lora",
            "leave it out, or use --method lisa",
        ),
        (
            "method = \"full\"\nperiod = 4",
            "--period has no effect with --method full",
            "leave it out, or use --method lisa",
        ),
        (
            "method = \"lisa\"\nlora-rank = 4",
            "--lora-rank has no effect with --method lisa",
            "leave it out, or use --method lora",
        ),
        (
            "policy = \"uniform\"\nshare = 0.3",
            "--share has no effect with --policy uniform",
            "leave it out, or use --policy budget",
        ),
        (
            "method = \"full\"\nshare = 0.3",
            "--share has no effect with --method full",
            "leave it out, or use --method lisa",
        ),
        (
            "method = \"full\"\nouter-every = 3",
            "--outer-every has no effect with --method full",
            "leave it out, or use --method lisa",
        ),
        (
            "method = \"full\"\nlayer-warmup = 3",
            "--layer-warmup has no effect with --method full",
            "leave it out, or use --method lisa",
        ),
        (
            "policy = \"gradient\"\norder = \"shuffled\"",
            "--order has no effect with --policy gradient",
            "leave it out, or use --policy cyclic",
        ),
        (
            "policy = \"budget\"\nactive-layers = 2",
            "--active-layers has no effect with --policy budget",
            "leave it out, or give --share",
        ),
        (
            "policy = \"cyclic\"\nprobabilities = [0.5]",
            "--probabilities has no effect with --policy cyclic",
            "leave it out, or use --policy weighted or --policy bernoulli",
        ),
        (
            "steps = 9\nepochs = 2",
            "--epochs has no effect with --steps 9",
            "leave it out, or leave --steps out",
        ),
        (
            "dtype = \"f32\"\nno-master-weights = true",
            "--no-master-weights has no effect with --dtype f32, which has no master weights",
            "leave it out, or use --dtype bf16",
        ),
        (
            "no-eval = true\neval-every = 3",
            "--eval-every has no effect with --no-eval",
            "leave it out, or leave --no-eval out",
        ),
        (
            "eval = \"held.jsonl\"\neval-fraction = 0.2",
            "--eval-fraction has no effect with --eval, which gives the held-out rows",
            "leave it out, or leave --eval out",
        ),
        (
            "min-lr = 1e-5\nmin-lr-ratio = 0.2",
            "--min-lr-ratio has no effect with --min-lr, which gives the rate itself",
            "leave it out, or leave --min-lr out",
        ),
        (
            "eval-examples = 0\nmax-new-tokens = 9",
            "--max-new-tokens has no effect with --eval-examples 0",
            "leave it out, or give the number of generated answers",
        ),
        (
            "eval-rows = 0\nfinal-eval-all = true",
            "--final-eval-all has no effect with --eval-rows 0, which evaluates all rows",
            "leave it out, or give a number of --eval-rows",
        ),
    ] {
        let (found, found_help) = idle(text).unwrap_or_else(|| panic!("{text} is accepted"));
        assert_eq!((&*found, &*found_help), (message, help), "{text}");
    }
    for text in [
        "policy = \"budget\"\nshare = 0.3",
        "method = \"lora\"\nlora-rank = 4",
        "outer-every = 3\npolicy = \"fixed\"\nfixed-layers = [1]\nperiod = 4\nmoments = \"keep\"",
        // A switch that is off asks for nothing.
        "method = \"lora\"\nunbiased = false",
        "policy = \"cyclic\"\norder = \"ascending\"\nperiod = 4",
    ] {
        assert_eq!(idle(text), None, "{text}");
    }
}

#[test]
fn a_setting_without_effect_on_the_data_is_an_error_that_says_so() {
    let check = |text: &str, contents: Contents| {
        let flags = toml(text).unwrap();
        let settings = flags.clone().resolve(None).unwrap();
        let error = flags.check_effect_on(contents, &settings).err()?;
        let error = error.downcast_ref::<UserError>().unwrap();
        assert_eq!(error.place(), Some((Path::new("run.toml"), Some(1))));
        Some((error.to_string(), error.help().unwrap().to_owned()))
    };
    let all = Contents {
        held_out: true,
        held_out_files: true,
        answers: true,
        pairs: true,
        chats: true,
    };
    let texts = Contents {
        held_out: true,
        ..Contents::default()
    };
    let pairs = Contents {
        pairs: true,
        answers: true,
        ..texts
    };
    let none_held_out = Contents {
        held_out: false,
        held_out_files: false,
        answers: false,
        ..all
    };
    let plain = "plain text, all of which is trained on";
    let answers = "held-out data without answers";
    let rows = "data without held-out rows";
    for (text, contents, with) in [
        (
            "eval-fraction = 0.2",
            all,
            "data that has held-out files of its own",
        ),
        ("eval-rows = 3", none_held_out, rows),
        ("eval-every = 3", none_held_out, rows),
        ("eval-first = true", none_held_out, rows),
        ("final-eval-all = true", none_held_out, rows),
        ("eval-examples = 3", none_held_out, rows),
        ("metric = \"contains\"", none_held_out, rows),
        ("max-new-tokens = 3", none_held_out, rows),
        ("metric = \"contains\"", texts, answers),
        ("max-new-tokens = 3", texts, answers),
        ("eval-examples = 3", texts, answers),
        (
            "pairs = \"text\"",
            texts,
            "data without pairs of prompt and completion",
        ),
        ("turns = \"last\"", pairs, "data without chats"),
        ("turns = \"last\"", texts, "data without chats"),
        ("empty-answers = \"refuse\"", texts, plain),
        (
            "empty-answers = \"refuse\"\nloss-on-all = true",
            all,
            "--loss-on-all, which trains on all tokens of a chat",
        ),
        ("loss-on-all = true", texts, plain),
    ] {
        let (found, help) = check(text, contents).unwrap_or_else(|| panic!("{text} is accepted"));
        let name = text.split(' ').next().unwrap();
        assert_eq!(found, format!("--{name} has no effect with {with}"));
        assert!(help.starts_with("leave it out, or "), "{help}");
    }
    for (text, contents) in [
        ("eval-fraction = 0.2", pairs),
        ("eval-examples = 0\neval-every = 0", none_held_out),
        ("pairs = \"chat\"\nturns = \"last\"", pairs),
        ("empty-answers = \"refuse\"\nloss-on-all = true", pairs),
        (
            "turns = \"last\"\nmax-new-tokens = 3\nmetric = \"exact\"",
            all,
        ),
    ] {
        assert_eq!(check(text, contents), None, "{text}");
    }
}
