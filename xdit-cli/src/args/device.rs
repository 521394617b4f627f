//! `--device` and `--cpu-tier`.

use std::str::FromStr;

use xdit_kernels::{Device, Tier};

use crate::report::failure::Failure;

/// The value of `--device`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum DeviceChoice {
    /// The best device: the CPU, in this version.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU by its number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| "expected auto, cpu, cuda or cuda:N".into()),
        }
    }
}

impl DeviceChoice {
    /// Returns the device, with the instructions of `tier` if it is given.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a GPU, which this version does not support, or for a tier that the processor does not have.
    pub(crate) fn open(self, tier: Option<Tier>) -> Result<Device, Failure> {
        match self {
            Self::Auto | Self::Cpu => match tier {
                Some(tier) => {
                    Device::cpu_with(tier).map_err(|error| Failure::usage(error.to_string()))
                }
                None => Ok(Device::cpu()),
            },
            Self::Cuda(number) => Err(Failure::usage(format!(
                "--device cuda:{number}: not built yet, this version computes on the CPU only; use --device cpu"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cuda0", "CPU"] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_gpu_yet() {
        let failure = DeviceChoice::Cuda(1).open(None).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        assert!(failure.to_string().contains("cuda:1: not built yet"));
        let device = DeviceChoice::Auto.open(Some(Tier::Portable)).unwrap();
        assert_eq!(device.tier(), Tier::Portable);
    }
}
