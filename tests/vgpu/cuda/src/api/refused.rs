//! Functions that cudarc can call and the double does not know. Without them cudarc would panic; so they are errors.

use crate::api::calls::api;
use crate::codes::{self, Res};
use crate::engine::engine;

fn unknown(name: &str) -> Res {
    let text = format!("{name}: the double does not know this function");
    engine()?.lock().refuse(codes::NOT_SUPPORTED, text)
}

macro_rules! refused {
    ($($name:ident)*) => { api! { $(fn $name() { unknown(stringify!($name)) })* } };
}

refused! {
    cuCtxCreate_v3
    cuCtxCreate_v4
    cuCtxDestroy_v2
    cuCtxGetCacheConfig
    cuCtxSetCacheConfig
    cuCtxGetLimit
    cuCtxSetLimit
    cuModuleLoad
    cuLaunchCooperativeKernel
    cuMemAllocManaged
    cuMemAdvise_v2
    cuMemPrefetchAsync_v2
    cuMemPoolCreate
    cuMemPoolDestroy
    cuStreamAttachMemAsync
    cuImportExternalMemory
    cuDestroyExternalMemory
    cuExternalMemoryGetMappedBuffer
    cuOccupancyMaxPotentialBlockSize
    cuOccupancyMaxPotentialBlockSizeWithFlags
    cuOccupancyMaxActiveClusters
    cuOccupancyMaxPotentialClusterSize
    cuProfilerStart
    cuProfilerStop
}
