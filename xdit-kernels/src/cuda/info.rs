//! What the driver tells about its GPUs, for people who choose one.

use super::{
    blas_library::BlasLibrary,
    context::{CudaContext, CudaOrdinal, LEAST_CAPABILITY},
    driver::{CudaDriver, version_text},
    error::device_error,
    options::CudaOptions,
};
use crate::Result;

/// An NVIDIA GPU as the driver describes it. Requires the feature `cuda`.
///
/// # Examples
/// ```
/// use xdit_kernels::CudaDeviceInfo;
/// match CudaDeviceInfo::list() {
///     Ok(gpus) => assert!(gpus.iter().zip(0..).all(|(gpu, number)| gpu.ordinal == number)),
///     // No driver, or none that works: one line says why.
///     Err(error) => assert!(!error.to_string().contains('\n')),
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CudaDeviceInfo {
    /// Its place in the driver's list: what [`Device::cuda`](crate::Device::cuda) takes.
    pub ordinal: u32,
    /// Its name.
    pub name: String,
    /// Major and minor number of the compute capability.
    pub capability: [u32; 2],
    /// Bytes of its memory.
    pub memory: u64,
    /// Bytes of its memory that are free now.
    pub free_memory: Option<u64>,
    /// The version of CUDA that the driver supports, such as 12.4.
    pub cuda_version: String,
    /// Why a [`Device`](crate::Device) cannot compute on it, if it cannot.
    pub unusable: Option<String>,
}

impl CudaDeviceInfo {
    /// How many GPUs the driver shows to this process. Opens none of them.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) says in one line why there is no GPU.
    pub fn count() -> Result<u32> {
        let count = CudaDriver::open().and_then(|driver| driver.device_count());
        count.map_err(|reason| device_error("devices", reason))
    }

    /// All GPUs that the driver shows to this process, as [`list_with`](Self::list_with) with the default options.
    ///
    /// # Errors
    /// As [`list_with`](Self::list_with).
    pub fn list() -> Result<Vec<Self>> {
        Self::list_with(&CudaOptions::default())
    }

    /// All GPUs that the driver shows to this process, and whether they can be used with these options. Opens each of them for a
    /// moment, to ask for its free memory, and opens cuBLASLt.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) says in one line why there is no GPU.
    pub fn list_with(options: &CudaOptions) -> Result<Vec<Self>> {
        const OP: &str = "devices";
        let all = || {
            let driver = CudaDriver::open()?;
            let mut found = (0..driver.device_count()?)
                .map(|ordinal| Self::of(&driver, ordinal))
                .collect::<Result<Vec<_>, String>>()?;
            // The library is looked for only if there is a GPU for it.
            if found.iter().any(|gpu| gpu.unusable.is_none())
                && let Err(reason) = BlasLibrary::find(&options.library_folders)
            {
                for gpu in found.iter_mut().filter(|gpu| gpu.unusable.is_none()) {
                    gpu.unusable = Some(reason.clone());
                }
            }
            Ok(found)
        };
        all().map_err(|reason| device_error(OP, reason))
    }

    fn of(driver: &CudaDriver, ordinal: u32) -> Result<Self, String> {
        let device = driver.device(ordinal)?;
        let [major, minor] = driver.capability(device)?;
        let mut info = Self {
            ordinal,
            name: driver.name(device)?,
            capability: [major, minor],
            memory: driver.total_memory(device)?,
            free_memory: None,
            cuda_version: version_text(driver.version),
            unusable: None,
        };
        if major * 10 + minor < LEAST_CAPABILITY {
            info.unusable = Some("the kernels need compute capability 8.0 or more".into());
            return Ok(info);
        }
        match CudaContext::retain(driver.clone(), CudaOrdinal(ordinal)) {
            Ok(context) => {
                let memory = context.memory("devices");
                info.free_memory = memory.ok().map(|(free, _)| free as u64);
            }
            Err(reason) => info.unusable = Some(reason),
        }
        Ok(info)
    }
}
