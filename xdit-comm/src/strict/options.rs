//! The options of the strict backend.

use std::time::Duration;
use xdit_kernels::Device;

/// The behaviour of the backend where NCCL does not specify it.
#[derive(Debug, Clone)]
pub struct StrictOptions {
    /// Determines the delays, and the order in which reductions add ranks.
    pub seed: u64,
    /// The longest pause of a rank or a queue. Zero for no pauses.
    pub delay: Duration,
    /// The device of all tensors.
    pub device: Device,
    /// As [`threads::Options::deadline`](crate::threads::Options::deadline).
    pub deadline: Duration,
}

impl Default for StrictOptions {
    /// Seed 0, pauses up to 0.3 ms, the processor, a deadline of 60 s.
    fn default() -> Self {
        Self {
            seed: 0,
            delay: Duration::from_micros(300),
            device: Device::cpu(),
            deadline: crate::DEADLINE,
        }
    }
}

impl StrictOptions {
    /// Returns the default options with this seed.
    pub fn seed(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }
}
