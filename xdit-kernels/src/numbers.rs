//! A few f64 in a device's memory: what the kernels of `sums` and `group_norm` add up.

use crate::{Device, DeviceKind, Result, vector::filled};
use std::ops::Range;

/// Numbers that stay on a device until the host reads them.
#[derive(Debug, Clone)]
pub(crate) struct DeviceNumbers {
    values: Vec<f64>,
    device: Device,
}

impl DeviceNumbers {
    /// `len` zeros. Errors name `op`.
    pub(crate) fn zeros(op: &'static str, len: usize, device: &Device) -> Result<Self> {
        Ok(Self {
            values: filled(op, 0.0, len)?,
            device: device.clone(),
        })
    }

    /// Replaces the numbers by as many from the host.
    pub(crate) fn write(&mut self, values: &[f64]) {
        self.on_cpu_mut().copy_from_slice(values);
    }

    pub(crate) fn count(&self) -> usize {
        self.values.len()
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
        self.device.synchronize()?;
        self.device.count_host_read();
        let mut values = filled(op, 0.0, range.len())?;
        values.copy_from_slice(&self.on_cpu()[range]);
        Ok(values)
    }

    /// The numbers, for kernels of the processor.
    pub(crate) fn on_cpu(&self) -> &[f64] {
        // Of all devices this one alone has its numbers in the host's memory.
        let DeviceKind::Cpu(_) = self.device.kind();
        &self.values
    }

    /// As [`on_cpu`](Self::on_cpu), to write.
    pub(crate) fn on_cpu_mut(&mut self) -> &mut [f64] {
        let DeviceKind::Cpu(_) = self.device.kind();
        &mut self.values
    }
}
