//! `--device` and `--cpu-tier`.

use std::str::FromStr;

use xdit_kernels::{Device, Tier};

use crate::report::failure::Failure;
use crate::run::environment::Environment;

/// The value of `--device`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum DeviceChoice {
    /// The CPU, until a real GPU has run this program.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU by its number.
    Cuda(u32),
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
    /// What `-v` says of the choice, if it is left to the program.
    pub(crate) fn note(self) -> Option<&'static str> {
        (self == Self::Auto).then_some(
            "--device auto is the processor: no real GPU has run this version yet; --device cuda uses one",
        )
    }

    /// Returns the device: a GPU, or the processor with the instructions of `tier` if it is given. GPU libraries are looked for
    /// in the folders of `XDIT_CUDA_LIB_DIR` first.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a GPU that cannot be used, with the reason, or for a tier that the processor does not have.
    pub(crate) fn open(
        self,
        tier: Option<Tier>,
        environment: &Environment,
    ) -> Result<Device, Failure> {
        match self {
            Self::Cuda(number) => open_cuda(number, environment),
            Self::Auto | Self::Cpu => processor(tier),
        }
    }
}

/// The processor.
pub(crate) fn processor(tier: Option<Tier>) -> Result<Device, Failure> {
    match tier {
        Some(tier) => Device::cpu_with(tier).map_err(|error| Failure::usage(error.to_string())),
        None => Ok(Device::cpu()),
    }
}

#[cfg(feature = "cuda")]
fn open_cuda(number: u32, environment: &Environment) -> Result<Device, Failure> {
    let folders = environment.var("XDIT_CUDA_LIB_DIR").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(folders).collect();
    let options = xdit_kernels::CudaOptions::default().with_library_folders(folders);
    Device::cuda_with(number, &options).map_err(|error| {
        let reason = match error {
            xdit_kernels::Error::Device { reason, .. } => reason,
            other => other.to_string(),
        };
        Failure::usage(format!("--device cuda:{number}: {reason}"))
    })
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(number: u32, _: &Environment) -> Result<Device, Failure> {
    Err(Failure::usage(format!(
        "--device cuda:{number}: this xdit-cli was built without the feature cuda"
    )))
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
    fn a_gpu_that_is_not_there_is_a_wrong_argument() {
        let environment = Environment::with(|_| None);
        // No machine has so many.
        let failure = DeviceChoice::Cuda(4_000_000)
            .open(None, &environment)
            .unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        let text = failure.to_string();
        assert!(text.starts_with("--device cuda:4000000: "), "{text}");
        assert!(!text.contains('\n'), "{text}");
        let device = DeviceChoice::Auto
            .open(Some(Tier::Portable), &environment)
            .unwrap();
        assert_eq!(device.tier(), Tier::Portable);
    }
}
