//! The GPUs of this machine, as people are told of them.

use serde_json::{Value, json};

use crate::args::device::{self, DeviceSettings};

/// A GPU of this machine.
#[cfg_attr(
    not(feature = "cuda"),
    allow(dead_code, reason = "GPUs are listed with the feature cuda")
)]
#[derive(Debug)]
pub(crate) struct Gpu {
    /// Its place in the driver's list.
    pub ordinal: u32,
    pub name: String,
    /// The compute capability, such as 9.0.
    pub capability: String,
    pub memory: u64,
    pub free: Option<u64>,
    /// The version of CUDA that the driver supports.
    pub cuda: String,
    /// Why nothing can compute on it.
    pub unusable: Option<String>,
}

impl Gpu {
    /// The GPU as `--json` tells it.
    pub(crate) fn json(&self) -> Value {
        json!({
            "device": format!("cuda:{}", self.ordinal),
            "name": self.name,
            "capability": self.capability,
            "memory": self.memory,
            "available": self.free,
            "cuda_version": self.cuda,
            "unusable": self.unusable,
        })
    }
}

/// The GPUs that the driver shows, or one line that says why there is none.
#[cfg(feature = "cuda")]
pub(crate) fn list(settings: DeviceSettings<'_>) -> Result<Vec<Gpu>, String> {
    let found = device::gpus(settings)?;
    let gpus = found.into_iter().map(|gpu| Gpu {
        ordinal: gpu.ordinal,
        name: gpu.name,
        capability: format!("{}.{}", gpu.capability[0], gpu.capability[1]),
        memory: gpu.memory,
        free: gpu.free_memory,
        cuda: gpu.cuda_version,
        unusable: gpu.unusable,
    });
    Ok(gpus.collect())
}

#[cfg(not(feature = "cuda"))]
pub(crate) fn list(_: DeviceSettings<'_>) -> Result<Vec<Gpu>, String> {
    Err(device::WITHOUT.into())
}
