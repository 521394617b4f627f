//! Status codes of CUDA's libraries as errors.

use super::driver::CudaDriver;
use crate::Error;
use std::ffi::CStr;

/// The codes that this crate tells apart. A driver may answer with others, so a status is a number here and never an `enum`.
pub(super) const SUCCESS: u32 = 0;
pub(super) const OUT_OF_MEMORY: u32 = 2;
pub(super) const STUB_LIBRARY: u32 = 34;
pub(super) const NO_DEVICE: u32 = 100;

/// An error of this device.
pub(super) fn device_error(op: &'static str, reason: String) -> Error {
    Error::Device { op, reason }
}

impl CudaDriver {
    /// What the driver says about a status, in one line: its name, its meaning, its number.
    pub(super) fn explain(&self, status: u32) -> String {
        let text = |ask: Option<unsafe extern "C" fn(u32, *mut *const std::ffi::c_char) -> u32>| {
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
