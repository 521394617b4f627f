//! NVIDIA's driver library, opened at run time. Building needs nothing of CUDA, and a machine without it answers with one line.

use super::error::{NO_DEVICE, STUB_LIBRARY, SUCCESS};
use cudarc::driver::sys::{
    CUcontext, CUdevice, CUdevice_attribute as Attribute, CUdeviceptr, CUevent, CUfunction,
    CUmodule, CUstream,
};
use libloading::Library;
use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    mem::ManuallyDrop,
};

/// The oldest driver that reads the kernels' PTX 8.0: CUDA 12.0, that is 525.
const OLDEST: i32 = 12_000;

#[cfg(windows)]
const LIBRARY: &str = "nvcuda.dll";
#[cfg(not(windows))]
const LIBRARY: &str = "libcuda.so.1";

/// Declares the functions that are called: a field each, read from the library when it is opened. A status is returned as a
/// number: a newer driver may have codes that no list has.
macro_rules! functions {
    (
        required { $($name:ident($($of:ty),*);)* }
        optional { $($maybe:ident($($maybe_of:ty),*);)* }
    ) => {
        /// The driver's functions. It is never unloaded: it has threads of its own.
        #[derive(Clone)]
        #[allow(non_snake_case, reason = "the functions have the driver's names")]
        pub(crate) struct CudaDriver {
            $(pub(super) $name: unsafe extern "C" fn($($of),*) -> u32,)*
            $(pub(super) $maybe: Option<unsafe extern "C" fn($($maybe_of),*) -> u32>,)*
            /// As `cuDriverGetVersion` counts: 12040 is CUDA 12.4.
            pub(super) version: i32,
        }

        impl CudaDriver {
            /// Reads all functions; the error is the name of one that is missing.
            fn read(library: &Library) -> Result<Self, &'static str> {
                Ok(Self {
                    $($name: {
                        // SAFETY: the driver's function of this name has this signature (cuda.h).
                        let symbol = unsafe {
                            library.get::<unsafe extern "C" fn($($of),*) -> u32>(
                                concat!(stringify!($name), "\0").as_bytes(),
                            )
                        };
                        *symbol.map_err(|_| stringify!($name))?
                    },)*
                    $($maybe: {
                        // SAFETY: as above.
                        let symbol = unsafe {
                            library.get::<unsafe extern "C" fn($($maybe_of),*) -> u32>(
                                concat!(stringify!($maybe), "\0").as_bytes(),
                            )
                        };
                        symbol.ok().map(|symbol| *symbol)
                    },)*
                    version: 0,
                })
            }
        }
    };
}

functions! {
    required {
        cuInit(c_uint);
        cuDriverGetVersion(*mut c_int);
        cuDeviceGetCount(*mut c_int);
        cuDeviceGet(*mut CUdevice, c_int);
        cuDeviceGetName(*mut c_char, c_int, CUdevice);
        cuDeviceGetUuid_v2(*mut [u8; 16], CUdevice);
        cuDeviceTotalMem_v2(*mut usize, CUdevice);
        cuDeviceGetAttribute(*mut c_int, u32, CUdevice);
        cuDeviceCanAccessPeer(*mut c_int, CUdevice, CUdevice);
        cuDevicePrimaryCtxRetain(*mut CUcontext, CUdevice);
        cuDevicePrimaryCtxRelease_v2(CUdevice);
        cuCtxSetCurrent(CUcontext);
        cuCtxSynchronize();
        cuCtxEnablePeerAccess(CUcontext, c_uint);
        cuMemGetInfo_v2(*mut usize, *mut usize);
        cuMemAlloc_v2(*mut CUdeviceptr, usize);
        cuMemFree_v2(CUdeviceptr);
        cuMemHostAlloc(*mut *mut c_void, usize, c_uint);
        cuMemFreeHost(*mut c_void);
        cuMemsetD8Async(CUdeviceptr, u8, usize, CUstream);
        cuMemcpyHtoDAsync_v2(CUdeviceptr, *const c_void, usize, CUstream);
        cuMemcpyDtoHAsync_v2(*mut c_void, CUdeviceptr, usize, CUstream);
        cuMemcpyDtoDAsync_v2(CUdeviceptr, CUdeviceptr, usize, CUstream);
        cuMemcpyPeerAsync(CUdeviceptr, CUcontext, CUdeviceptr, CUcontext, usize, CUstream);
        cuStreamCreate(*mut CUstream, c_uint);
        cuStreamDestroy_v2(CUstream);
        cuStreamSynchronize(CUstream);
        cuStreamWaitEvent(CUstream, CUevent, c_uint);
        cuEventCreate(*mut CUevent, c_uint);
        cuEventDestroy_v2(CUevent);
        cuEventRecord(CUevent, CUstream);
        cuEventQuery(CUevent);
        cuEventSynchronize(CUevent);
        cuEventElapsedTime(*mut f32, CUevent, CUevent);
        cuModuleLoadDataEx(*mut CUmodule, *const c_void, c_uint, *const u32, *const *mut c_void);
        cuModuleUnload(CUmodule);
        cuModuleGetFunction(*mut CUfunction, CUmodule, *const c_char);
        cuFuncSetAttribute(CUfunction, u32, c_int);
        cuLaunchKernel(
            CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream,
            *const *mut c_void, *const *mut c_void
        );
    }
    optional {
        cuGetErrorName(u32, *mut *const c_char);
        cuGetErrorString(u32, *mut *const c_char);
        cuFuncGetParamInfo(CUfunction, usize, *mut usize, *mut usize);
        cuTensorMapEncodeTiled(
            *mut u64, u32, u32, u64, *const u64, *const u64, *const u32, *const u32, u32, u32, u32, u32
        );
    }
}

impl std::fmt::Debug for CudaDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CudaDriver {}", self.version)
    }
}

impl CudaDriver {
    /// The driver of this machine, ready to be called.
    ///
    /// # Errors
    /// One line that says why there is none that can be used.
    pub(crate) fn open() -> Result<Self, String> {
        Self::open_library(LIBRARY)
    }

    /// As [`open`](Self::open), from a library of this name or path.
    pub(super) fn open_library(name: &str) -> Result<Self, String> {
        // SAFETY: the name is the system's for NVIDIA's driver, whose initialisers any program may run.
        let library = unsafe { Library::new(name) }.map_err(|error| {
            // What the system's loader says, where the library keeps it apart.
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let error = source.unwrap_or_else(|| error.to_string());
            let error = error.split_whitespace().collect::<Vec<_>>().join(" ");
            format!("NVIDIA's driver is not installed: {name} does not open ({error})")
        })?;
        let library = ManuallyDrop::new(library);
        let mut driver = Self::read(&library).map_err(|symbol| {
            format!("the driver {name} has no {symbol}; install driver 525 (CUDA 12.0) or newer")
        })?;
        // SAFETY: takes no pointer.
        match unsafe { (driver.cuInit)(0) } {
            SUCCESS => {}
            STUB_LIBRARY => {
                return Err(format!(
                    "{name} is the CUDA toolkit's stub and no driver; install NVIDIA's driver, or remove the stub from the \
                     library path"
                ));
            }
            NO_DEVICE => return Err("NVIDIA's driver finds no GPU".into()),
            status => {
                let why = driver.explain(status);
                return Err(format!("NVIDIA's driver does not start: {why}"));
            }
        }
        // SAFETY: the pointer is to an int.
        let status = unsafe { (driver.cuDriverGetVersion)(&mut driver.version) };
        if status != SUCCESS {
            let why = driver.explain(status);
            return Err(format!("NVIDIA's driver does not tell its version: {why}"));
        }
        if driver.version < OLDEST {
            let found = version_text(driver.version);
            return Err(format!(
                "NVIDIA's driver supports CUDA {found}; install driver 525 (CUDA 12.0) or newer"
            ));
        }
        match driver.device_count()? {
            0 => Err("NVIDIA's driver finds no GPU".into()),
            _ => Ok(driver),
        }
    }

    /// How many GPUs the driver shows to this process.
    pub(crate) fn device_count(&self) -> Result<u32, String> {
        let mut count = 0;
        // SAFETY: the pointer is to an int.
        match unsafe { (self.cuDeviceGetCount)(&mut count) } {
            SUCCESS => Ok(u32::try_from(count).unwrap_or(0)),
            status => Err(format!(
                "NVIDIA's driver does not count its GPUs: {}",
                self.explain(status)
            )),
        }
    }

    /// A device, by its place in the driver's list.
    pub(super) fn device(&self, ordinal: u32) -> Result<CUdevice, String> {
        let mut device = 0;
        let place = i32::try_from(ordinal).unwrap_or(i32::MAX);
        // SAFETY: the pointer is to a device.
        let status = unsafe { (self.cuDeviceGet)(&mut device, place) };
        self.answered(status, "give its GPU").map(|()| device)
    }

    /// Major and minor number of a device's compute capability.
    pub(super) fn capability(&self, device: CUdevice) -> Result<[u32; 2], String> {
        let part = |attribute| self.attribute(device, attribute);
        Ok([
            part(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            part(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ])
    }

    /// How many multiprocessors a device has.
    pub(super) fn multiprocessors(&self, device: CUdevice) -> Result<u32, String> {
        self.attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
    }

    fn attribute(&self, device: CUdevice, attribute: Attribute) -> Result<u32, String> {
        let mut value = 0;
        let ask = self.cuDeviceGetAttribute;
        // SAFETY: the pointer is to an int.
        let status = unsafe { ask(&mut value, attribute as u32, device) };
        self.answered(status, "describe its GPU")?;
        Ok(u32::try_from(value).unwrap_or(0))
    }

    /// Bytes of a device's memory.
    pub(super) fn total_memory(&self, device: CUdevice) -> Result<u64, String> {
        let mut bytes = 0;
        // SAFETY: the pointer is to a number.
        let status = unsafe { (self.cuDeviceTotalMem_v2)(&mut bytes, device) };
        self.answered(status, "measure its GPU")
            .map(|()| bytes as u64)
    }

    /// `Ok` for success; otherwise a line that says what the driver does not do, and why.
    fn answered(&self, status: u32, what: &str) -> Result<(), String> {
        match status {
            SUCCESS => Ok(()),
            _ => {
                let why = self.explain(status);
                Err(format!("NVIDIA's driver does not {what}: {why}"))
            }
        }
    }

    /// The name of a device.
    pub(super) fn name(&self, device: CUdevice) -> Result<String, String> {
        let mut name = [0 as c_char; 256];
        // SAFETY: the driver writes at most 255 characters and a zero.
        match unsafe { (self.cuDeviceGetName)(name.as_mut_ptr(), 255, device) } {
            // SAFETY: the last character is 0 whatever the driver wrote.
            SUCCESS => Ok(unsafe { CStr::from_ptr(name.as_ptr()) }
                .to_string_lossy()
                .into_owned()),
            status => Err(format!(
                "NVIDIA's driver does not name its GPU: {}",
                self.explain(status)
            )),
        }
    }

    /// The identity of a device, which no other device has, as `nvidia-smi -L` prints it.
    pub(super) fn uuid(&self, device: CUdevice) -> Result<String, String> {
        let mut bytes = [0; 16];
        // SAFETY: the driver writes 16 bytes.
        let status = unsafe { (self.cuDeviceGetUuid_v2)(&mut bytes, device) };
        self.answered(status, "identify its GPU")?;
        let hex = |part: &[u8]| part.iter().map(|byte| format!("{byte:02x}")).collect();
        let parts: [String; 5] = [0..4, 4..6, 6..8, 8..10, 10..16].map(|part| hex(&bytes[part]));
        Ok(format!("GPU-{}", parts.join("-")))
    }

    /// What the driver says about a status, in one line: its name, its meaning, its number.
    pub(super) fn explain(&self, status: u32) -> String {
        let text = |ask: Option<unsafe extern "C" fn(u32, *mut *const c_char) -> u32>| {
            let mut text = std::ptr::null();
            // SAFETY: the function writes a pointer to a string of the library, which is never unloaded, or null.
            let known = ask.is_some_and(|ask| unsafe { ask(status, &mut text) } == SUCCESS);
            if !known || text.is_null() {
                return None;
            }
            // SAFETY: as above.
            let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
            Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        let name = text(self.cuGetErrorName).unwrap_or_else(|| "an unknown error".into());
        match text(self.cuGetErrorString) {
            Some(meaning) => format!("{name} ({meaning}, code {status})"),
            None => format!("{name} (code {status})"),
        }
    }
}

/// A version of CUDA as people write it: 12040 is 12.4.
pub(crate) fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}
