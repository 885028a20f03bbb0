//! Settings that are written and read again are the same settings, to the last bit.

use serde_json::Value;

use super::{Flags, Settings, defaults, given, toml};

/// xorshift64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A share from 0 to 1, a share with few decimals, or any positive number.
    fn number(&mut self) -> f64 {
        let share = self.bits() as f64 / u64::MAX as f64;
        match self.bits() % 3 {
            0 => share,
            1 => (share * 1e4).round() / 1e4,
            _ => f64::from_bits(self.bits() & (u64::MAX >> 1)),
        }
    }

    fn share(&mut self) -> f64 {
        self.bits() as f64 / u64::MAX as f64
    }
}

/// The names of the settings that are fractions.
fn fractions() -> Vec<String> {
    let Value::Object(map) = serde_json::to_value(defaults().to_flags()).unwrap() else {
        unreachable!();
    };
    let fractions = map.into_iter().filter(|(_, value)| value.is_f64());
    fractions.map(|(name, _)| name).collect()
}

fn with(flags: &Flags, name: &str, value: impl Into<Value>) -> Flags {
    let mut map = serde_json::to_value(flags).unwrap();
    map[name] = value.into();
    serde_json::from_value(map).unwrap()
}

#[test]
fn random_numbers_survive_json_toml_and_the_command_line() {
    let names = fractions();
    assert!(
        names.len() > 8 && names.contains(&"lr".to_owned()),
        "{names:?}"
    );
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let mut changed = vec![0; names.len()];
    for _ in 0..500 {
        let mut flags = with(&defaults().to_flags(), "seed", random.bits() >> 1);
        for (name, changed) in names.iter().zip(&mut changed) {
            // One of a few numbers is in the range of the setting.
            let numbers: Vec<f64> = (0..8).map(|_| random.number()).collect();
            let valid = numbers.into_iter().filter(|number| number.is_finite());
            let mut valid = valid.map(|number| (number, with(&flags, name, number)));
            let valid = valid.find(|(_, flags)| flags.clone().resolve(None).is_ok());
            if let Some((number, next)) = valid {
                for text in [number.to_string(), format!("{number:e}")] {
                    let line = given(&[format!("--{name}={text}")]);
                    let line = serde_json::to_value(&line).unwrap();
                    assert_eq!(
                        line[name.as_str()].as_f64(),
                        Some(number),
                        "--{name}={text}"
                    );
                }
                flags = next;
                *changed += 1;
            }
        }
        same(&flags.resolve(None).unwrap());
    }
    assert!(
        changed.iter().all(|times| *times > 400),
        "{names:?}: {changed:?}"
    );
}

#[test]
fn probabilities_and_the_largest_seed_survive() {
    let mut random = Random(7);
    for layers in 1..40 {
        let mut settings = defaults();
        settings.method.policy = super::Policy::Weighted;
        settings.method.probabilities = (0..layers).map(|_| random.share()).collect();
        settings.method.probabilities[0] = 2.0 / 22.0;
        settings.training.seed = i64::MAX as u64;
        same(&settings);
        let list = settings.method.probabilities.iter().map(f64::to_string);
        let list = list.collect::<Vec<_>>().join(",");
        let line = given(&["--probabilities".into(), list]);
        assert_eq!(
            line.method.probabilities.unwrap(),
            settings.method.probabilities
        );
    }
    // TOML has no larger integers.
    let mut settings = defaults();
    settings.training.seed = 1 << 63;
    let error = settings.to_flags().resolve(None).unwrap_err();
    assert_eq!(error.to_string(), "--seed is 9223372036854775808");
}

/// Written to the state of a checkpoint, and read.
fn json(settings: &Settings) -> Settings {
    let text = serde_json::to_string(&settings.to_flags()).unwrap();
    let flags: Flags = serde_json::from_str(&text).unwrap();
    flags.resolve(None).unwrap()
}

fn same(settings: &Settings) {
    let text = toml::to_string(&settings.to_flags()).unwrap();
    let file = toml(&text).unwrap().resolve(None).unwrap();
    for again in [json(settings), file] {
        assert_eq!(again.differs(settings), None);
        assert_eq!(again, *settings);
    }
}
