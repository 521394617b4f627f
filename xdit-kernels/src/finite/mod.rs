//! NaN and infinity in a tensor: where the first is, and how many there are.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod tests;

use crate::{DeviceKind, Result, Tensor};
pub(crate) use cpu::count_not_finite;
#[cfg(feature = "cuda")]
pub(crate) use cuda::add_not_finite;

impl Tensor {
    /// The index of the first NaN or infinity, row-major; `None` when all numbers are finite.
    ///
    /// Blocks until the device has found it, and counts as one of [`Device::host_reads`](crate::Device::host_reads).
    ///
    /// # Errors
    /// If the dtype is none that kernels compute with, or the device failed.
    ///
    /// # Examples
    /// ```
    /// use xdit_kernels::{Device, Tensor};
    /// let x = Tensor::from_slice(&[1f32, f32::NAN], [2], &Device::cpu())?;
    /// assert_eq!(x.first_not_finite_blocking()?, Some(1));
    /// # Ok::<(), xdit_kernels::Error>(())
    /// ```
    pub fn first_not_finite_blocking(&self) -> Result<Option<usize>> {
        self.device().synchronize()?;
        self.device().count_host_read();
        match self.device().kind() {
            DeviceKind::Cpu(_) => cpu::first_not_finite("first_not_finite", self.view()),
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda(_) => cuda::first_not_finite_blocking("first_not_finite", self.view()),
        }
    }
}
