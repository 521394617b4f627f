//! `--device`, `--cpu-tier` and `--allow-tf32`.

use std::str::FromStr;

use xdit_kernels::{DType, Device, Tier};
use xdit_models::Parallel;

use crate::report::failure::{Failure, WITHOUT_GPU};
use crate::run::environment::Environment;

/// The value of `--device`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum DeviceChoice {
    /// The first GPU that can be used, otherwise the processor.
    Auto,
    /// The processor.
    Cpu,
    /// The GPU with the number that this process has among those of its host, or the only one that it sees.
    CudaOfRank,
    /// GPUs by their numbers. Ranks are spread over them.
    Cuda(Vec<u32>),
}

/// What else determines a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceSettings<'a> {
    /// The instructions of the processor, if a flag says.
    pub tier: Option<Tier>,
    /// Whether a GPU may round the operands of products in f32 to TF32.
    pub allow_tf32: bool,
    /// The number of this process among those of its host, if it is one of several.
    pub local_rank: Option<usize>,
    /// Names the folders that have the libraries of GPUs.
    #[cfg_attr(
        not(feature = "cuda"),
        allow(dead_code, reason = "GPUs are opened with the feature cuda")
    )]
    pub environment: &'a Environment,
}

impl DeviceSettings<'_> {
    /// The number of the GPU of this process, if it is one of several of its host: its own number, or 0 where its launcher lets it see
    /// one GPU.
    fn gpu_of_rank(self) -> Option<u32> {
        let number = self.local_rank?;
        match cuda::count() {
            Some(1) => Some(0),
            _ => Some(u32::try_from(number).unwrap_or(u32::MAX)),
        }
    }
}

/// A device, and why it is this one.
#[derive(Clone, Debug)]
pub(crate) struct ChosenDevice {
    pub device: Device,
    /// All of several GPUs, `device` first; empty where there is one device.
    pub several: Vec<Device>,
    /// One line for `-v`, if the choice was left to the program.
    pub note: Option<String>,
    /// Whether the program chose a GPU. Its failures then name the flag that chooses the processor.
    pub is_automatic_gpu: bool,
}

impl ChosenDevice {
    /// Devices that a flag or a record named, at least one.
    pub(crate) fn of(devices: Vec<Device>) -> Self {
        Self {
            device: devices[0].clone(),
            several: match devices.len() {
                1 => Vec::new(),
                _ => devices,
            },
            note: None,
            is_automatic_gpu: false,
        }
    }

    /// The devices as `--device` names them: `cuda:0,1`.
    pub(crate) fn names(&self) -> String {
        let others = self.several.iter().skip(1).map(Device::to_string);
        others.fold(self.device.to_string(), |all, name| {
            let number = name.strip_prefix("cuda:").unwrap_or(&name);
            format!("{all},{number}")
        })
    }

    /// Which GPU it is, whatever its number in this process; none of the processor.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the driver does not say.
    pub(crate) fn gpu_identity(&self) -> Result<Option<String>, Failure> {
        cuda::identity(&self.device)
            .map_err(|reason| Failure::usage(format!("--device {}: {reason}", self.device)))
    }

    /// Spreads ranks over the devices, if there are several.
    pub(crate) fn spread(&self, parallel: Parallel) -> Parallel {
        match self.several.is_empty() {
            true => parallel,
            false => parallel.on(self.several.clone()),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::CudaOfRank),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|numbers| numbers.split(',').map(|n| n.parse().ok()).collect())
                .filter(|numbers: &Vec<u32>| all_differ(numbers))
                .map(Self::Cuda)
                .ok_or_else(|| {
                    "expected auto, cpu, cuda, cuda:N or cuda:N,M,…, each number once".into()
                }),
        }
    }
}

/// Whether no number occurs twice.
fn all_differ(numbers: &[u32]) -> bool {
    let mut all = numbers.iter().enumerate();
    all.all(|(i, number)| !numbers[..i].contains(number))
}

impl DeviceChoice {
    /// Opens the device: a GPU, or the processor.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a GPU that cannot be used, with the reason, or for a tier that the processor does not have.
    pub(crate) fn open(self, settings: DeviceSettings<'_>) -> Result<ChosenDevice, Failure> {
        let device = match self {
            Self::Auto => return automatic(settings),
            Self::Cpu => processor(settings.tier)?,
            Self::CudaOfRank => {
                let number = settings.gpu_of_rank();
                return Self::Cuda(vec![number.unwrap_or_default()]).open(settings);
            }
            Self::Cuda(numbers) if numbers.len() > 1 && settings.local_rank.is_some() => {
                return Err(Failure::usage(
                    "--device cuda:N,M: each process has one GPU: --device cuda gives the n-th process of a host GPU n",
                ));
            }
            Self::Cuda(numbers) => {
                let open = |number| {
                    cuda::open(number, settings).map_err(|reason| {
                        Failure::usage(format!("--device cuda:{number}: {reason}"))
                    })
                };
                let gpus = numbers.into_iter().map(open);
                let several = gpus.collect::<Result<Vec<_>, _>>()?;
                return Ok(ChosenDevice::of(several));
            }
        };
        Ok(ChosenDevice::of(vec![device]))
    }
}

/// The first GPU that can be used. Where there is none, or a flag names instructions of the processor, the processor.
fn automatic(settings: DeviceSettings<'_>) -> Result<ChosenDevice, Failure> {
    let found = match settings.tier {
        Some(_) => Err("--cpu-tier is of the processor".into()),
        None => cuda::first_usable(settings),
    };
    match found {
        Ok((first, name)) => {
            let number = settings.gpu_of_rank().unwrap_or(first);
            let device = cuda::open(number, settings).map_err(|reason| {
                Failure::usage(format!(
                    "--device auto: cuda:{number}: {reason}{WITHOUT_GPU}"
                ))
            })?;
            Ok(ChosenDevice {
                several: Vec::new(),
                device,
                note: Some(match number == first {
                    true => format!("--device auto is cuda:{number} ({name})"),
                    false => format!("--device auto is cuda:{number}"),
                }),
                is_automatic_gpu: true,
            })
        }
        Err(reason) => Ok(ChosenDevice {
            device: processor(settings.tier)?,
            several: Vec::new(),
            note: Some(format!("--device auto is the processor: {reason}")),
            is_automatic_gpu: false,
        }),
    }
}

/// The processor.
pub(crate) fn processor(tier: Option<Tier>) -> Result<Device, Failure> {
    match tier {
        Some(tier) => Device::cpu_with(tier).map_err(|error| Failure::usage(error.to_string())),
        None => Ok(Device::cpu()),
    }
}

/// A warning for each setting that changes nothing on this device.
pub(crate) fn unused_settings(
    device: &Device,
    dtype: DType,
    settings: DeviceSettings<'_>,
) -> Vec<String> {
    let on_processor = matches!(device.kind(), xdit_kernels::DeviceKind::Cpu(_));
    let tf32 = match (on_processor, dtype) {
        (true, _) => Some("the processor has no TF32".to_owned()),
        (false, DType::F32) => None,
        (false, other) => Some(format!("products of {other} do not use TF32")),
    };
    let tf32 = tf32.filter(|_| settings.allow_tf32);
    let tf32 = tf32.map(|why| format!("--allow-tf32 has no effect: {why}"));
    let tier = (settings.tier.is_some() && !on_processor)
        .then(|| format!("--cpu-tier has no effect: {device} computes"));
    tf32.into_iter().chain(tier).collect()
}

#[cfg(feature = "cuda")]
mod cuda {
    use xdit_kernels::{CudaDeviceInfo, CudaOptions, Device, Error};

    use super::DeviceSettings;

    fn options(settings: DeviceSettings<'_>) -> CudaOptions {
        let folders = settings.environment.var("XDIT_CUDA_LIB_DIR");
        CudaOptions::default()
            .with_tf32(settings.allow_tf32)
            .with_library_folders(std::env::split_paths(folders.unwrap_or_default()))
    }

    /// How many GPUs this process sees, if there is a driver.
    pub(super) fn count() -> Option<u32> {
        CudaDeviceInfo::count().ok()
    }

    /// Which GPU a device is; none of the processor.
    pub(super) fn identity(device: &Device) -> Result<Option<String>, String> {
        device.cuda_uuid().map_err(reason)
    }

    /// A GPU, or the reason why it cannot be used.
    pub(super) fn open(number: u32, settings: DeviceSettings<'_>) -> Result<Device, String> {
        Device::cuda_with(number, &options(settings)).map_err(reason)
    }

    /// The number and the name of the first GPU that can be used, or the reason why there is none.
    pub(super) fn first_usable(settings: DeviceSettings<'_>) -> Result<(u32, String), String> {
        let found = list(settings)?;
        match found.iter().find(|gpu| gpu.unusable.is_none()) {
            Some(gpu) => Ok((gpu.ordinal, gpu.name.clone())),
            None => {
                let reason = found.into_iter().find_map(|gpu| gpu.unusable);
                Err(reason.unwrap_or_else(|| "the driver finds no GPU".into()))
            }
        }
    }

    /// The GPUs that the driver shows, or one line that says why there is none.
    pub(crate) fn list(settings: DeviceSettings<'_>) -> Result<Vec<CudaDeviceInfo>, String> {
        CudaDeviceInfo::list_with(&options(settings)).map_err(reason)
    }

    fn reason(error: Error) -> String {
        match error {
            Error::Device { reason, .. } => reason,
            other => other.to_string(),
        }
    }
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use xdit_kernels::Device;

    use super::DeviceSettings;

    pub(crate) const WITHOUT: &str = "this xdit-cli was built without the feature cuda";

    pub(super) fn count() -> Option<u32> {
        None
    }

    #[allow(clippy::unnecessary_wraps, reason = "a driver may not say")]
    pub(super) fn identity(_: &Device) -> Result<Option<String>, String> {
        Ok(None)
    }

    pub(super) fn open(_: u32, _: DeviceSettings<'_>) -> Result<Device, String> {
        Err(WITHOUT.into())
    }

    pub(super) fn first_usable(_: DeviceSettings<'_>) -> Result<(u32, String), String> {
        Err(WITHOUT.into())
    }
}

#[cfg(not(feature = "cuda"))]
pub(crate) use cuda::WITHOUT;
#[cfg(feature = "cuda")]
pub(crate) use cuda::list as gpus;

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(environment: &Environment) -> DeviceSettings<'_> {
        DeviceSettings {
            tier: None,
            allow_tf32: false,
            local_rank: None,
            environment,
        }
    }

    #[test]
    fn names() {
        assert_eq!("cuda".parse(), Ok(DeviceChoice::CudaOfRank));
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(vec![3])));
        assert_eq!("cuda:1,0".parse(), Ok(DeviceChoice::Cuda(vec![1, 0])));
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        for wrong in [
            "", "gpu", "cuda:", "cuda:-1", "cuda0", "CPU", "cuda:0,", "cuda:1,1",
        ] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_gpu_that_is_not_there_is_a_wrong_argument() {
        let environment = Environment::with(|_| None);
        // No machine has so many.
        let failure = DeviceChoice::Cuda(vec![4_000_000])
            .open(settings(&environment))
            .unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        let text = failure.to_string();
        assert!(text.starts_with("--device cuda:4000000: "), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }

    #[test]
    fn a_tier_of_the_processor_makes_auto_the_processor() {
        let environment = Environment::with(|_| None);
        let settings = DeviceSettings {
            tier: Some(Tier::Portable),
            allow_tf32: true,
            ..settings(&environment)
        };
        let chosen = DeviceChoice::Auto.open(settings).unwrap();
        assert_eq!(chosen.device.tier(), Tier::Portable);
        let note = "--device auto is the processor: --cpu-tier is of the processor";
        assert_eq!(chosen.note.as_deref(), Some(note));
        assert!(!chosen.is_automatic_gpu);
        let unused = unused_settings(&chosen.device, DType::F32, settings);
        assert_eq!(
            unused,
            ["--allow-tf32 has no effect: the processor has no TF32"]
        );
    }
}
