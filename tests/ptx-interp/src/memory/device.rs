//! Global memory, which the caller of a launch owns.

use crate::report::{Finding, Problem, Step};

/// Why an access to global memory is not possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MemoryFault {
    /// `OutOfBounds`, `NeverWritten`, or what else the memory found.
    pub finding: Finding,
    /// What is wrong, with the address.
    pub message: String,
}

/// Global memory. An implementation checks bounds, and whether bytes that are read were written.
///
/// The interpreter checks alignment itself, and races between the threads of a launch.
pub trait DeviceMemory {
    /// Reads the bytes from an address on.
    ///
    /// # Errors
    /// Bytes outside of an allocation, and bytes that nobody wrote.
    fn read(&mut self, address: u64, out: &mut [u8]) -> Result<(), MemoryFault>;

    /// Writes bytes from an address on.
    ///
    /// # Errors
    /// Bytes outside of an allocation.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault>;
}

/// A fault as a step's problem.
pub(crate) fn faulted<T>(result: Result<T, MemoryFault>) -> Step<T> {
    result.map_err(|MemoryFault { finding, message }| {
        Box::new(Problem {
            finding,
            lane: None,
            message,
        })
    })
}
