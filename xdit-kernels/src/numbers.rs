//! A few f64 in a device's memory: what the kernels of `sums` and `group_norm` add up.

#[cfg(feature = "cuda")]
use crate::cuda::CudaBuffer;
use crate::{Device, DeviceKind, Result, vector::filled};
use std::ops::Range;
#[cfg(feature = "cuda")]
use std::sync::Arc;

/// Numbers that stay on a device until the host reads them.
#[derive(Debug, Clone)]
pub(crate) struct DeviceNumbers {
    values: Values,
    count: usize,
    device: Device,
}

/// Where the numbers lie.
#[derive(Debug, Clone)]
enum Values {
    Host(Vec<f64>),
    /// Copied before they are written if clones share them.
    #[cfg(feature = "cuda")]
    Cuda(Arc<CudaBuffer>),
}

impl DeviceNumbers {
    /// `len` zeros. Errors name `op`.
    pub(crate) fn zeros(op: &'static str, len: usize, device: &Device) -> Result<Self> {
        let values = match device.kind() {
            DeviceKind::Cpu(_) => Values::Host(filled(op, 0.0, len)?),
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda(_) => {
                let (queue, bytes) = (device.expect_cuda(), len.saturating_mul(size_of::<f64>()));
                let buffer = queue.alloc(op, bytes)?;
                // SAFETY: the buffer is of this queue and has as many bytes.
                unsafe { queue.fill(op, buffer.ptr(), 0, bytes)? };
                Values::Cuda(Arc::new(buffer))
            }
        };
        Ok(Self {
            values,
            count: len,
            device: device.clone(),
        })
    }

    /// Replaces the numbers by as many from the host.
    pub(crate) fn write(&mut self, op: &'static str, values: &[f64]) -> Result<()> {
        assert_eq!(values.len(), self.count, "as many numbers as there are");
        match &mut self.values {
            Values::Host(numbers) => numbers.copy_from_slice(values),
            #[cfg(feature = "cuda")]
            Values::Cuda(buffer) => {
                let (queue, from) = (self.device.expect_cuda(), values.as_ptr().cast());
                // SAFETY: so many bytes lie there.
                *buffer = Arc::new(unsafe { queue.upload_new(op, from, size_of_val(values))? });
            }
        }
        let _ = op;
        Ok(())
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Copies the numbers of the range, which the caller has checked, to the host. Waits for the device and counts as a read
    /// by the host.
    pub(crate) fn to_vec_blocking(
        &self,
        op: &'static str,
        range: Range<usize>,
    ) -> Result<Vec<f64>> {
        self.device.count_host_read();
        let mut copy = filled(op, 0.0, range.len())?;
        match &self.values {
            Values::Host(numbers) => copy.copy_from_slice(&numbers[range]),
            #[cfg(feature = "cuda")]
            Values::Cuda(buffer) => {
                let from = buffer.ptr().wrapping_add(range.start * size_of::<f64>());
                let (to, bytes) = (copy.as_mut_ptr().cast(), size_of_val(&copy[..]));
                // SAFETY: the caller's promise about the range; the copy has as many bytes.
                unsafe { (self.device.expect_cuda()).download_blocking(op, from, to, bytes)? };
            }
        }
        Ok(copy)
    }

    /// The numbers, for kernels of the processor. The caller has dispatched by device.
    pub(crate) fn on_cpu(&self) -> &[f64] {
        match &self.values {
            Values::Host(numbers) => numbers,
            #[cfg(feature = "cuda")]
            Values::Cuda(_) => unreachable!("numbers of a GPU for a kernel of the processor"),
        }
    }

    /// As [`on_cpu`](Self::on_cpu), to write.
    pub(crate) fn on_cpu_mut(&mut self) -> &mut [f64] {
        match &mut self.values {
            Values::Host(numbers) => numbers,
            #[cfg(feature = "cuda")]
            Values::Cuda(_) => unreachable!("numbers of a GPU for a kernel of the processor"),
        }
    }

    /// Where the numbers lie, for kernels of a GPU. The caller has dispatched by device.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_cuda(&self) -> *const u8 {
        match &self.values {
            Values::Host(_) => unreachable!("numbers of the processor for a kernel of a GPU"),
            Values::Cuda(buffer) => buffer.ptr(),
        }
    }

    /// As [`on_cuda`](Self::on_cuda), to write.
    ///
    /// # Errors
    /// If clones share the numbers, and there is no memory for a copy.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_cuda_mut(&mut self, op: &'static str) -> Result<*mut u8> {
        let Values::Cuda(buffer) = &mut self.values else {
            unreachable!("numbers of the processor for a kernel of a GPU")
        };
        if Arc::get_mut(buffer).is_none() {
            let queue = self.device.expect_cuda();
            let copy = queue.alloc(op, buffer.len())?;
            // SAFETY: both are memory of the queue, of as many bytes.
            unsafe { queue.copy(op, buffer.ptr(), copy.ptr(), buffer.len())? };
            *buffer = Arc::new(copy);
        }
        Ok(buffer.ptr())
    }
}
