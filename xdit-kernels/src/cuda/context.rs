//! One GPU: its primary context, and what the driver tells about it.

use super::{
    driver::CudaDriver,
    error::{PEER_ACCESS_ALREADY_ENABLED, SUCCESS, device_error},
};
use crate::Result;
use cudarc::driver::sys::{CUcontext, CUdevice};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Which GPU: its place in the driver's list, from 0 on. `CUDA_VISIBLE_DEVICES` chooses and orders that list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CudaOrdinal(pub u32);

impl fmt::Display for CudaOrdinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuda:{}", self.0)
    }
}

/// The primary context of one GPU, retained.
pub(crate) struct CudaContext {
    pub(super) driver: CudaDriver,
    pub(crate) ordinal: CudaOrdinal,
    /// 90 for compute capability 9.0.
    pub(crate) capability: u32,
    pub(crate) multiprocessors: u32,
    pub(crate) name: String,
    device: CUdevice,
    pub(super) raw: CUcontext,
    /// Whether it reaches the memory of other GPUs, of those that were asked for.
    peers: Mutex<BTreeMap<CudaOrdinal, bool>>,
}

// SAFETY: a context may be current on several threads, and the driver locks what it shares.
unsafe impl Send for CudaContext {}
// SAFETY: as above.
unsafe impl Sync for CudaContext {}

impl fmt::Debug for CudaContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CudaContext {} ({})", self.ordinal, self.name)
    }
}

/// The least compute capability that the kernels are compiled for.
pub(super) const LEAST_CAPABILITY: u32 = 80;

impl CudaContext {
    /// The context of a GPU.
    ///
    /// # Errors
    /// One line that says why this GPU cannot be used.
    pub(crate) fn retain(driver: CudaDriver, ordinal: CudaOrdinal) -> Result<Arc<Self>, String> {
        let count = driver.device_count()?;
        if ordinal.0 >= count {
            return Err(format!(
                "there is no GPU {}; NVIDIA's driver finds {count}, counted from 0",
                ordinal.0
            ));
        }
        let device = driver.device(ordinal.0)?;
        let name = driver.name(device)?;
        let [major, minor] = driver.capability(device)?;
        let capability = major * 10 + minor;
        if capability < LEAST_CAPABILITY {
            return Err(format!(
                "GPU {} ({name}) has compute capability {major}.{minor}; the kernels need 8.0 or more",
                ordinal.0
            ));
        }
        let multiprocessors = driver.multiprocessors(device)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the pointer is to a context.
        let status = unsafe { (driver.cuDevicePrimaryCtxRetain)(&mut raw, device) };
        if status != SUCCESS {
            let why = driver.explain(status);
            return Err(format!(
                "GPU {} ({name}) gives no context: {why}",
                ordinal.0
            ));
        }
        Ok(Arc::new(Self {
            driver,
            ordinal,
            capability,
            multiprocessors,
            name,
            device,
            raw,
            peers: Mutex::default(),
        }))
    }

    /// Makes this context the calling thread's, as each call of the driver needs.
    pub(super) fn bind(&self, op: &'static str) -> Result<()> {
        // SAFETY: the context is retained as long as `self` lives.
        let status = unsafe { (self.driver.cuCtxSetCurrent)(self.raw) };
        self.check(op, "cuCtxSetCurrent", status)
    }

    /// The identity of this GPU, which no other GPU has.
    pub(crate) fn uuid(&self, op: &'static str) -> Result<String> {
        let uuid = self.driver.uuid(self.device);
        uuid.map_err(|reason| device_error(op, reason))
    }

    /// Whether this GPU reads and writes the memory of another one by itself. Lets it do so if the driver allows it.
    pub(super) fn reaches(&self, other: &Self, op: &'static str) -> Result<bool> {
        if self.ordinal == other.ordinal {
            return Ok(true);
        }
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = peers.get(&other.ordinal) {
            return Ok(*known);
        }
        let mut can = 0;
        // SAFETY: the pointer is to a number.
        let status =
            unsafe { (self.driver.cuDeviceCanAccessPeer)(&mut can, self.device, other.device) };
        self.check(op, "cuDeviceCanAccessPeer", status)?;
        self.bind(op)?;
        let reaches = can != 0 && {
            // SAFETY: the other context is retained, and this one is current.
            let status = unsafe { (self.driver.cuCtxEnablePeerAccess)(other.raw, 0) };
            let enabled = matches!(status, SUCCESS | PEER_ACCESS_ALREADY_ENABLED);
            if !enabled {
                // It may have no more room for peers.
                let reason = self.driver.explain(status);
                tracing::warn!(
                    "{} cannot reach the memory of {} ({reason}): copies go through the host",
                    self.ordinal,
                    other.ordinal
                );
            }
            enabled
        };
        peers.insert(other.ordinal, reaches);
        Ok(reaches)
    }

    /// `Ok` for success; otherwise an error of `op` that names this GPU and the driver's function.
    pub(super) fn check(&self, op: &'static str, function: &str, status: u32) -> Result<()> {
        match status {
            SUCCESS => Ok(()),
            _ => Err(device_error(
                op,
                format!(
                    "{function} failed on {}: {}",
                    self.ordinal,
                    self.driver.explain(status)
                ),
            )),
        }
    }

    /// Bytes that the driver has free on this GPU, and bytes that it has in all.
    pub(crate) fn memory(&self, op: &'static str) -> Result<(usize, usize)> {
        self.bind(op)?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the pointers are to numbers, and the context is current.
        let status = unsafe { (self.driver.cuMemGetInfo_v2)(&mut free, &mut total) };
        self.check(op, "cuMemGetInfo", status)?;
        Ok((free, total))
    }
}

impl Drop for CudaContext {
    fn drop(&mut self) {
        // SAFETY: retained in `retain`, once. A failure has nobody to be told to.
        unsafe { (self.driver.cuDevicePrimaryCtxRelease_v2)(self.device) };
    }
}
