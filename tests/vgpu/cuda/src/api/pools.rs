//! The memory pool of each device: one, whose attributes programs set and read.

use std::ffi::c_int;

use crate::api::calls::api;
use crate::api::current::{current_device, device_index};
use crate::api::memory::allocate_async;
use crate::arguments::Out;
use crate::codes::{self, Res};
use crate::engine::engine;
use crate::handles::{POOL, handle, index};

fn pool(pool: &Out<u64>, device: c_int) -> Res {
    pool.set(handle(POOL, device_index(device)?))
}

/// `CU_MEMPOOL_ATTR_RELEASE_THRESHOLD`
const THRESHOLD: c_int = 4;

api! {
    fn cuDeviceGetDefaultMemPool(out: Out<u64>, device: c_int) {
        pool(&out, device)
    }

    fn cuDeviceGetMemPool(out: Out<u64>, device: c_int) {
        pool(&out, device)
    }

    fn cuDeviceSetMemPool(_device: c_int, pool: u64) {
        index(POOL, pool, engine()?.config.devices).map(|_| ())
    }

    fn cuMemPoolTrimTo(pool: u64, _keep: usize) {
        index(POOL, pool, engine()?.config.devices).map(|_| ())
    }

    fn cuMemPoolSetAttribute(pool: u64, attribute: c_int, value: Out<u64>) {
        let mut state = engine()?.lock();
        let device = index(POOL, pool, state.devices.len())?;
        let value = value.as_in().at(0)?;
        match attribute {
            // Whether memory is reused across streams: it never is here.
            1..=3 => {}
            THRESHOLD => state.devices[device].pool_threshold = value,
            // The peaks, which can be reset only.
            6 | 8 if value == 0 => state.devices[device].peak = state.live_bytes(device),
            _ => return Err(codes::INVALID_VALUE),
        }
        Ok(())
    }

    fn cuMemPoolGetAttribute(pool: u64, attribute: c_int, value: Out<u64>) {
        let state = engine()?.lock();
        let device = index(POOL, pool, state.devices.len())?;
        match attribute {
            1..=3 => value.cast::<c_int>().set(0),
            THRESHOLD => value.set(state.devices[device].pool_threshold),
            // Reserved and used bytes, now and at most.
            5 | 7 => value.set(state.live_bytes(device) as u64),
            6 | 8 => value.set(state.devices[device].peak as u64),
            _ => Err(codes::INVALID_VALUE),
        }
    }

    fn cuMemAllocFromPoolAsync(pointer: Out<u64>, size: usize, pool: u64, stream: u64) {
        current_device()?;
        index(POOL, pool, engine()?.config.devices)?;
        allocate_async(&pointer, size, stream)
    }
}
