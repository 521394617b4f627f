//! `--seed`: a number, or one that is drawn.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;

use serde::{Serialize, Serializer};
use xdit_models::noise::Generator;

/// A value of `--seed`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeedChoice {
    /// The seed.
    pub value: i128,
    /// Whether it was drawn, because the flag says `random`.
    pub is_drawn: bool,
}

impl FromStr for SeedChoice {
    type Err = String;

    /// What `torch.Generator.manual_seed` takes, or `random`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "random" {
            return Ok(Self {
                value: drawn().into(),
                is_drawn: true,
            });
        }
        let value = text.parse().ok();
        let value = value.filter(|value| Generator::from_seed(*value).is_ok());
        let value = value.ok_or("expected an integer from -2^63 to 2^64-1, or random")?;
        Ok(Self {
            value,
            is_drawn: false,
        })
    }
}

/// A seed of 32 bits, which every tool and JSON reader takes: the standard library keys its hash tables at random.
fn drawn() -> u32 {
    (RandomState::new().build_hasher().finish() >> 32) as u32
}

impl PartialEq<i128> for SeedChoice {
    fn eq(&self, value: &i128) -> bool {
        self.value == *value
    }
}

impl Serialize for SeedChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // serde_json holds no 128 bits in a value; each seed fits one of these.
        match u64::try_from(self.value) {
            Ok(value) => serializer.serialize_u64(value),
            Err(_) => serializer.serialize_i64(self.value as i64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_seeds_differ_and_can_be_given_again() {
        let draw = || "random".parse::<SeedChoice>().unwrap();
        let (first, second) = (draw(), draw());
        assert!(first.is_drawn && second.is_drawn);
        // Once in 2^64 runs three are equal.
        assert!(first.value != second.value || draw().value != first.value);
        let again: SeedChoice = first.value.to_string().parse().unwrap();
        assert!(again == first.value && !again.is_drawn);
    }

    #[test]
    fn seeds_are_torchs() {
        for seed in ["-1", "0", "18446744073709551615", "-9223372036854775808"] {
            let parsed: SeedChoice = seed.parse().unwrap();
            assert_eq!(serde_json::to_string(&parsed).unwrap(), seed);
        }
        for wrong in [
            "",
            "1.5",
            "Random",
            "18446744073709551616",
            "-9223372036854775809",
        ] {
            assert!(wrong.parse::<SeedChoice>().is_err(), "{wrong}");
        }
    }
}
