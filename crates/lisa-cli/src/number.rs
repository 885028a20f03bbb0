//! Numbers in JSON files. JSON has no infinity, so an infinite loss is written as the text `inf`; a
//! plain `f64` would be written as `null`, and could not be read.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(f64),
    Text(String),
}

/// Writes a number; for `#[serde(with = "number")]`.
// Serde passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    written(*value).serialize(serializer)
}

/// Reads a number that [`serialize`] wrote.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    read(Written::deserialize(deserializer)?)
}

fn written(value: f64) -> Written {
    if value.is_finite() {
        Written::Number(value)
    } else {
        Written::Text(value.to_string())
    }
}

fn read<E: serde::de::Error>(written: Written) -> Result<f64, E> {
    match written {
        Written::Number(value) => Ok(value),
        Written::Text(text) => text
            .parse()
            .map_err(|_| E::custom(format!("`{text}` is not a number"))),
    }
}

/// The same for a number that may be absent.
pub(crate) mod option {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Written, read, written};

    // Serde passes a reference.
    #[allow(clippy::ref_option)]
    pub(crate) fn serialize<S: Serializer>(
        value: &Option<f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(written).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<f64>, D::Error> {
        Option::<Written>::deserialize(deserializer)?
            .map(read)
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Loss(#[serde(with = "super")] f64);

    #[test]
    fn every_bit_pattern_of_a_number_is_read_as_it_was_written() {
        let mut bits = 0x9E37_79B9_7F4A_7C15_u64;
        let random = (0..20_000).map(|_| {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            f64::from_bits(bits)
        });
        let special = [
            0.0,
            -0.0,
            5e-324,
            f64::MAX,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
        ];
        for value in random.chain(special).chain([0.1 + 0.2, 1.0 / 11.0, 1.0]) {
            let text = serde_json::to_string(&Loss(value)).unwrap();
            let Loss(again) = serde_json::from_str(&text).unwrap();
            let same = again.to_bits() == value.to_bits() || (again.is_nan() && value.is_nan());
            assert!(same, "{value:e} is written as {text}");
        }
        let text = |value| serde_json::to_string(&Loss(value)).unwrap();
        assert_eq!(
            (text(f64::INFINITY).as_str(), text(0.5).as_str()),
            ("\"inf\"", "0.5")
        );
        assert!(serde_json::from_str::<Loss>("\"many\"").is_err());
    }
}
