//! What the kernels' tests share.

use crate::{Device, Tensor, Tier};

/// Every device that this machine has: the processor with each of its tiers.
pub(crate) fn test_devices() -> Vec<Device> {
    Tier::available()
        .map(|tier| Device::cpu_with(tier).unwrap())
        .collect()
}

/// The elements as f32.
pub(crate) fn floats(x: &Tensor) -> Vec<f32> {
    x.to_vec_blocking().unwrap()
}
