//! The probe without a driver, and with drivers that do not work: libraries that `cc` builds here.

use super::{context::CudaContext, context::CudaOrdinal, driver::CudaDriver};
use std::{path::PathBuf, process::Command};

/// Functions that the driver must have, besides those that a test writes itself.
const OTHERS: &[&str] = &[
    "cuDeviceGet",
    "cuDeviceGetUuid_v2",
    "cuDeviceTotalMem_v2",
    "cuDeviceCanAccessPeer",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuCtxEnablePeerAccess",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuMemsetD8Async",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyPeerAsync",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventQuery",
    "cuEventSynchronize",
    "cuEventElapsedTime",
    "cuModuleLoadDataEx",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuFuncSetAttribute",
    "cuLaunchKernel",
];

/// What a driver for tests answers.
struct Fake {
    init: u32,
    version: i32,
    gpus: i32,
    /// 75 for 7.5.
    capability: i32,
    /// What it answers to all other calls.
    others: u32,
    /// A function that it lacks.
    lacks: &'static str,
}

const GOOD: Fake = Fake {
    init: 0,
    version: 12_040,
    gpus: 1,
    capability: 80,
    others: 0,
    lacks: "",
};

impl Fake {
    /// Builds the library, and opens it as the driver.
    fn open(&self, name: &str) -> Result<CudaDriver, String> {
        let Self {
            init,
            version,
            gpus,
            capability,
            others,
            ..
        } = self;
        let (major, minor) = (capability / 10, capability % 10);
        let mut code = format!(
            "#include <string.h>\n\
             int cuInit(unsigned flags) {{ return {init}; }}\n\
             int cuDriverGetVersion(int *v) {{ *v = {version}; return 0; }}\n\
             int cuDeviceGetCount(int *n) {{ *n = {gpus}; return 0; }}\n\
             int cuDeviceGetName(char *to, int n, int d) {{ strncpy(to, \"Test GPU\", n); return 0; }}\n\
             int cuDeviceGetAttribute(int *to, int what, int d) {{ *to = what == 75 ? {major} : {minor}; return 0; }}\n\
             int cuGetErrorName(int code, const char **to) {{ *to = \"CUDA_ERROR_OF_TEST\"; return 0; }}\n\
             int cuGetErrorString(int code, const char **to) {{ *to = \"two\\nlines\"; return 0; }}\n"
        );
        for function in OTHERS.iter().filter(|function| **function != self.lacks) {
            code += &format!("int {function}() {{ return {others}; }}\n");
        }
        let folder = build_library(name, "libdriver.so", &code);
        let library = folder.join("libdriver.so");
        let opened = CudaDriver::open_library(library.to_str().unwrap());
        std::fs::remove_dir_all(folder).unwrap();
        opened
    }
}

/// A new folder with a library of this name, compiled from C.
pub(super) fn build_library(test: &str, name: &str, code: &str) -> PathBuf {
    let folder = tempfolder(test);
    let source = folder.join("library.c");
    std::fs::write(&source, code).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-w", "-o"])
        .args([&folder.join(name), &source])
        .status()
        .expect("these tests need cc");
    assert!(built.success());
    folder
}

fn tempfolder(name: &str) -> PathBuf {
    let name = format!("xdit-kernels-driver-{}-{name}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The reason why there is no device, which is one line.
fn reason<T>(result: Result<T, String>) -> String {
    let reason = result.err().expect("a reason why there is no GPU");
    assert!(!reason.contains('\n'), "{reason:?}");
    reason
}

#[test]
fn without_a_driver_the_reason_names_the_library() {
    let reason = reason(CudaDriver::open_library("libxdit-no-such-driver.so.1"));
    let start = "NVIDIA's driver is not installed: libxdit-no-such-driver.so.1 does not open (";
    assert!(reason.starts_with(start), "{reason}");
}

#[test]
fn a_file_that_is_no_library_is_a_reason() {
    let folder = tempfolder("text");
    let file = folder.join("libcuda.so.1");
    std::fs::write(&file, "no library").unwrap();
    let reason = reason(CudaDriver::open_library(file.to_str().unwrap()));
    std::fs::remove_dir_all(folder).unwrap();
    assert!(
        reason.starts_with("NVIDIA's driver is not installed:"),
        "{reason}"
    );
}

#[test]
fn a_driver_that_lacks_a_function_is_a_reason_that_names_it() {
    let fake = Fake {
        lacks: "cuMemHostAlloc",
        ..GOOD
    };
    let reason = reason(fake.open("lacks"));
    let end = "has no cuMemHostAlloc; install driver 525 (CUDA 12.0) or newer";
    assert!(reason.ends_with(end), "{reason}");
}

#[test]
fn drivers_that_do_not_start_say_why() {
    for (init, expected) in [
        (34, "is the CUDA toolkit's stub and no driver"),
        (100, "NVIDIA's driver finds no GPU"),
        (
            999,
            "NVIDIA's driver does not start: CUDA_ERROR_OF_TEST (two lines, code 999)",
        ),
        // A code that no list has.
        (123_456, "CUDA_ERROR_OF_TEST (two lines, code 123456)"),
    ] {
        let fake = Fake { init, ..GOOD };
        let reason = reason(fake.open(&format!("init-{init}")));
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn a_driver_that_is_too_old_or_has_no_gpu_is_a_reason() {
    let old = Fake {
        version: 11_080,
        ..GOOD
    };
    let expected = "NVIDIA's driver supports CUDA 11.8; install driver 525 (CUDA 12.0) or newer";
    assert_eq!(reason(old.open("old")), expected);
    let none = Fake { gpus: 0, ..GOOD };
    assert_eq!(reason(none.open("none")), "NVIDIA's driver finds no GPU");
}

#[test]
fn gpus_that_cannot_be_used_say_why() {
    let context = |fake: Fake, name, gpu| {
        reason(
            fake.open(name)
                .and_then(|d| CudaContext::retain(d, CudaOrdinal(gpu))),
        )
    };
    let expected = "there is no GPU 1; NVIDIA's driver finds 1, counted from 0";
    assert_eq!(context(GOOD, "ordinal", 1), expected);
    let turing = Fake {
        capability: 75,
        ..GOOD
    };
    let expected = "GPU 0 (Test GPU) has compute capability 7.5; the kernels need 8.0 or more";
    assert_eq!(context(turing, "turing", 0), expected);
    let failing = Fake { others: 2, ..GOOD };
    let expected = "NVIDIA's driver does not give its GPU: CUDA_ERROR_OF_TEST (two lines, code 2)";
    assert_eq!(context(failing, "failing", 0), expected);
}

#[test]
fn a_driver_that_works_is_opened() {
    let driver = GOOD.open("good").unwrap();
    assert_eq!((driver.version, driver.device_count()), (12_040, Ok(1)));
    let context = CudaContext::retain(driver, CudaOrdinal(0)).unwrap();
    assert_eq!((context.capability, &*context.name), (80, "Test GPU"));
}
