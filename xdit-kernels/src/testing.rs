//! What the kernels' tests share.

use crate::{DType, Device, Result, Tensor, Tier};
use proptest::test_runner::Config;

/// The dtypes that kernels compute with.
pub(crate) const FLOATS: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

/// Every device that this machine has: the processor with each of its tiers. Each kernel's tests run on all of them.
pub(crate) fn test_devices() -> Vec<Device> {
    Tier::available()
        .map(|tier| Device::cpu_with(tier).unwrap())
        .collect()
}

/// Tries `most` cases of a property, or fewer if `PROPTEST_CASES` asks for fewer, as on an emulated processor.
pub(crate) fn at_most(most: u32) -> Config {
    let config = Config::default();
    Config {
        cases: config.cases.min(most),
        ..config
    }
}

/// Numbers from −10 to 10 that a seed tells apart.
pub(crate) fn tensor(shape: &[usize], dtype: DType, seed: usize, device: &Device) -> Tensor {
    let n = shape.iter().product::<usize>();
    let data: Vec<f32> = (0..n)
        .map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 * 0.01 - 10.0)
        .collect();
    Tensor::from_slice(&data, shape, device)
        .unwrap()
        .to_dtype(dtype)
        .unwrap()
}

/// The elements as f32.
pub(crate) fn floats(x: &Tensor) -> Vec<f32> {
    x.to_vec_blocking().unwrap()
}

/// The first GPU. Tests that need one are ignored unless they are asked for.
#[cfg(feature = "cuda")]
pub(crate) fn gpu() -> Device {
    Device::cuda(0).unwrap_or_else(|error| panic!("this test needs a GPU: {error}"))
}

/// Asserts that `result` is the error of `op` for operands on these two devices, and that it names both. `case` tells the call.
pub(crate) fn assert_two_devices(op: &str, devices: [&Device; 2], result: Result<()>, case: &str) {
    let message = result.map_or_else(|e| e.to_string(), |()| "no error".to_owned());
    let refused = message.starts_with(&format!("{op}: all operands must be on one device"));
    let named = devices.map(|device| message.contains(&device.to_string()));
    assert!(refused && named == [true; 2], "{op}, {case}: {message}");
}
