//! Values that are refused.

use std::path::Path;

use super::{Dtype, Flags, toml};
use crate::user_error::UserError;

#[test]
fn a_value_of_a_file_that_is_out_of_range_has_its_line() {
    let error = toml("seed = 1\n\nlr = -1.0\n")
        .unwrap()
        .resolve(None)
        .unwrap_err();
    let error = error.downcast_ref::<UserError>().unwrap();
    assert_eq!(error.to_string(), "--lr is -1");
    assert_eq!(error.place(), Some((Path::new("run.toml"), Some(3))));
    assert_eq!(error.help(), Some("give a learning rate above 0"));
    // The value of a flag has no line.
    let mut flags = Flags::default();
    flags.training.lr = Some(-2.0);
    let error = flags
        .or(toml("lr = -1.0").unwrap())
        .resolve(None)
        .unwrap_err();
    assert_eq!(error.downcast_ref::<UserError>().unwrap().place(), None);
    for text in [
        "eval-fraction = 1.0",
        "share = 0.0",
        "lora-alpha = nan",
        "lora-dropout = 1.0",
        "lora-target-modules = [\"all\", \"q_proj\"]",
        "max-seq-length = 1",
        "period = 0",
        "active-layers = 0",
        "memory = -1.0",
        "weight-decay = inf",
        "lora-rank = 0",
        "lora-rank = 65537",
        "batch-size = 65537",
        "gradient-accumulation-steps = 65537",
        "min-lr = -0.5",
    ] {
        assert!(toml(text).unwrap().resolve(None).is_err(), "{text}");
    }
}

#[test]
fn settings_that_would_destroy_the_weights_are_refused() {
    let refused = |text: &str| {
        let error = toml(text).unwrap().resolve(None).unwrap_err();
        let error = error.downcast::<UserError>().unwrap();
        (error.to_string(), error.help().unwrap().to_owned())
    };
    let (message, help) = refused("dtype = \"f16\"\nno-master-weights = true");
    assert!(
        message.starts_with("--no-master-weights makes weights of --dtype f16 infinite"),
        "{message}"
    );
    assert_eq!(help, "leave --no-master-weights out, or use --dtype bf16");
    // The dtype of the model's files.
    let flags = toml("model = \"m\"\ndata = [\"d\"]\nno-master-weights = true").unwrap();
    assert!(flags.clone().resolve(Some(Dtype::F16)).is_err());
    flags.resolve(Some(Dtype::Bf16)).unwrap();

    let in_backward = "recompute = 1\nupdate-in-backward = true\nmax-grad-norm = 0.0\n";
    let clipped = in_backward.replace("0.0", "0.5");
    let (message, _) = refused(&clipped);
    assert!(
        message.contains("--max-grad-norm 0.5 needs the gradients of all"),
        "{message}"
    );
    let (message, help) = refused(&format!("{in_backward}skip-bad-steps = true"));
    assert!(
        message.starts_with("--update-in-backward updates layers before the gradients of all"),
        "{message}"
    );
    assert_eq!(help, "leave one of them out");
    toml(in_backward).unwrap().resolve(None).unwrap();
}
