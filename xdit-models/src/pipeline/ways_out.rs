//! What a user can change when memory does not suffice, as errors about memory say it.

use xdit_kernels::DType;

use crate::error::{Error, Result};

/// Options with which the weights of a pipeline take less memory.
pub(crate) fn lighter_weights(dtype: DType, low_memory: bool) -> Vec<&'static str> {
    let ways = [
        ("`dtype` bf16", dtype == DType::F32),
        ("`low_memory`", !low_memory),
    ];
    ways.iter().filter(|way| way.1).map(|way| way.0).collect()
}

/// Returns what takes less memory on a GPU while weights are loaded, and also while images are drawn if `drawing` is given: the
/// number of images, and whether a rank decodes whole images without tiles.
pub(crate) fn on_gpu(
    dtype: DType,
    low_memory: bool,
    drawing: Option<(usize, bool)>,
) -> Vec<&'static str> {
    let (images, untiled) = drawing.unwrap_or((1, false));
    let mut all = lighter_weights(dtype, low_memory);
    let ways = [
        ("`vae_tiling`", untiled),
        ("fewer images", images > 1),
        ("a smaller size", drawing.is_some()),
    ];
    all.extend(ways.iter().filter(|way| way.1).map(|way| way.0));
    all
}

/// Returns `; try this, that or those`, or nothing without a way.
pub(crate) fn cure(ways: &[&str]) -> String {
    match ways {
        [] => String::new(),
        [one] => format!("; try {one}"),
        [first @ .., last] => format!("; try {} or {last}", first.join(", ")),
    }
}

/// `result`, whose error about memory, of the processor or of a GPU, names these ways out.
pub(crate) fn with_ways(mut result: Result<()>, ways: &[&str]) -> Result<()> {
    match &mut result {
        Err(Error::OutOfMemory { cure: told, .. }) => *told = cure(ways),
        Err(Error::DeviceOutOfMemory { cure: told, .. }) => *told = cure(ways).into(),
        _ => {}
    }
    result
}
