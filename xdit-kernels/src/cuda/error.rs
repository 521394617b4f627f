//! Status codes of CUDA's libraries as errors.

use crate::Error;

/// The codes that this crate tells apart. A driver may answer with others, so a status is a number here and never an `enum`.
pub(super) const SUCCESS: u32 = 0;
pub(super) const OUT_OF_MEMORY: u32 = 2;
pub(super) const STUB_LIBRARY: u32 = 34;
pub(super) const NO_DEVICE: u32 = 100;
/// An event has not happened.
pub(super) const NOT_READY: u32 = 600;
/// A context that is to reach another one's memory already does.
pub(super) const PEER_ACCESS_ALREADY_ENABLED: u32 = 704;

/// An error of this device.
pub(super) fn device_error(op: &'static str, reason: String) -> Error {
    Error::Device { op, reason }
}
