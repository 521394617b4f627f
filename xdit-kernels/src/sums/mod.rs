//! Sums that stay on a device while a run goes on: how far tensors have moved, their moments, what in them is not finite.
//!
//! Kernels add to a [`RunningSums`], call after call, and the host reads it once, when it needs the numbers.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod tests;

use crate::{
    Device, DeviceKind, Error, Result, View, dispatch::one_device, numbers::DeviceNumbers,
};
use std::ops::Range;

/// What errors call these kernels.
const OP: &str = "sums";

/// Numbers in a device's memory that kernels add to, in f64 and in an order that shapes alone decide: equal on every tier and for
/// any number of threads.
///
/// Methods name the first of the numbers that they add to, so that one `RunningSums` can hold those of several steps or tensors.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, Tensor, sums::RunningSums};
/// let cpu = Device::cpu();
/// let x = Tensor::from_slice(&[1f32, 2., 3., f32::NAN], [2, 2], &cpu)?;
/// let mut sums = RunningSums::zeros(2, &cpu)?;
/// sums.add_not_finite(0, &x)?;
/// sums.add_not_finite(0, &x)?;
/// assert_eq!(sums.to_vec_blocking(0..2)?, [0., 2.]);
/// assert_eq!(cpu.host_reads(), 1);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RunningSums {
    numbers: DeviceNumbers,
}

impl RunningSums {
    /// `len` zeros.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn zeros(len: usize, device: &Device) -> Result<Self> {
        Ok(Self {
            numbers: DeviceNumbers::zeros(OP, len, device)?,
        })
    }

    /// How many numbers there are.
    pub fn count(&self) -> usize {
        self.numbers.count()
    }

    /// The device whose memory holds them.
    pub fn device(&self) -> &Device {
        self.numbers.device()
    }

    /// Adds the numbers of another `RunningSums`, one by one.
    ///
    /// # Errors
    /// If there are not so many from `at` on, or they are on another device.
    pub fn add(&mut self, at: usize, other: &Self) -> Result<()> {
        let to = self.part(at, Some(other.count()))?;
        match one_device(OP, [self.device(), other.device()])? {
            DeviceKind::Cpu(_) => {
                cpu::add(&mut self.numbers.on_cpu_mut()[to], other.numbers.on_cpu());
                Ok(())
            }
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda(_) => {
                let (numbers, more) = (self.cuda_part(to)?, other.numbers.on_cuda());
                let queue = self.device().expect_cuda();
                // SAFETY: both are numbers of this GPU, as many from there on as `other` has.
                unsafe { cuda::add(OP, queue, numbers, more, other.count()) }
            }
        }
    }

    /// Adds Σ(fresh − stale)² and Σfresh² of every `every`-th row of dim 1 from row `first` on: how far they are from each other.
    ///
    /// # Shapes
    /// `fresh` and `stale` `[b, l, ..]`, alike, of any float dtype; two numbers from `at` on.
    ///
    /// # Errors
    /// If the shapes differ or have no dim 1, `every` is 0, there are not two numbers from `at` on, or there is no memory.
    ///
    /// # Examples
    /// ```
    /// use xdit_kernels::{Device, Tensor, sums::RunningSums};
    /// let cpu = Device::cpu();
    /// let fresh = Tensor::from_slice(&[3f32, 100., 4.], [1, 3], &cpu)?;
    /// let stale = Tensor::from_slice(&[3f32, 0., -1.], [1, 3], &cpu)?;
    /// let mut sums = RunningSums::zeros(2, &cpu)?;
    /// sums.add_distance(0, &fresh, &stale, 0, 2)?;
    /// assert_eq!(sums.to_vec_blocking(0..2)?, [25., 25.]);
    /// # Ok::<(), xdit_kernels::Error>(())
    /// ```
    pub fn add_distance<'a, 'b>(
        &mut self,
        at: usize,
        fresh: impl Into<View<'a>>,
        stale: impl Into<View<'b>>,
        first: usize,
        every: usize,
    ) -> Result<()> {
        let (fresh, stale) = (fresh.into(), stale.into());
        if fresh.shape() != stale.shape() || fresh.ndim() < 2 {
            return Err(Error::shape(
                OP,
                "two tensors of one shape [b, l, ..]",
                (fresh, stale),
            ));
        }
        if every == 0 {
            return Err(Error::shape(OP, "a distance of rows of at least 1", every));
        }
        let to = self.part(at, Some(2))?;
        let _span = tracing::trace_span!("distance", rows = fresh.dim(1), every).entered();
        let rows = (first..fresh.dim(1)).step_by(every);
        match one_device(OP, [self.device(), fresh.device(), stale.device()])? {
            DeviceKind::Cpu(_) => {
                cpu::distance(OP, fresh, stale, rows, &mut self.numbers.on_cpu_mut()[to])
            }
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda(_) => {
                let numbers = self.cuda_part(to)?;
                let (rows, device) = ((first, every), self.device());
                // SAFETY: two numbers from there on are of this GPU.
                unsafe { cuda::distance(OP, device, (fresh, stale), rows, numbers) }
            }
        }
    }

    /// Adds Σx and Σx² of each entry of dim 0, in turn.
    ///
    /// # Shapes
    /// `x` `[b, ..]` of any float dtype; 2·b numbers from `at` on.
    ///
    /// # Errors
    /// If there is no dim 0, there are not so many numbers from `at` on, or there is no memory.
    ///
    /// # Examples
    /// ```
    /// use xdit_kernels::{Device, Tensor, sums::RunningSums};
    /// let cpu = Device::cpu();
    /// let x = Tensor::from_slice(&[1f32, 2., 3., 4.], [2, 2], &cpu)?;
    /// let mut sums = RunningSums::zeros(4, &cpu)?;
    /// sums.add_moments(0, &x)?;
    /// assert_eq!(sums.to_vec_blocking(0..4)?, [3., 5., 7., 25.]);
    /// # Ok::<(), xdit_kernels::Error>(())
    /// ```
    pub fn add_moments<'a>(&mut self, at: usize, x: impl Into<View<'a>>) -> Result<()> {
        let x = x.into();
        let batch = entries(x)?;
        let to = self.part(at, batch.checked_mul(2))?;
        let _span = tracing::trace_span!("moments", n = x.numel()).entered();
        match one_device(OP, [self.device(), x.device()])? {
            DeviceKind::Cpu(_) => cpu::moments(OP, x, &mut self.numbers.on_cpu_mut()[to]),
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda(_) => {
                let numbers = self.cuda_part(to)?;
                // SAFETY: two numbers for each entry, from there on, are of this GPU.
                unsafe { cuda::moments(OP, self.device(), x, numbers) }
            }
        }
    }

    /// Adds how many elements of each entry of dim 0 are NaN or infinite.
    ///
    /// # Shapes
    /// `x` `[b, ..]` of any float dtype; b numbers from `at` on.
    ///
    /// # Errors
    /// If there is no dim 0, there are not so many numbers from `at` on, or there is no memory.
    pub fn add_not_finite<'a>(&mut self, at: usize, x: impl Into<View<'a>>) -> Result<()> {
        let x = x.into();
        let batch = entries(x)?;
        let to = self.part(at, Some(batch))?;
        let _span = tracing::trace_span!("not_finite", n = x.numel()).entered();
        match one_device(OP, [self.device(), x.device()])? {
            DeviceKind::Cpu(_) => cpu::not_finite(OP, x, &mut self.numbers.on_cpu_mut()[to]),
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda(_) => {
                let numbers = self.cuda_part(to)?;
                // SAFETY: a number for each entry, from there on, is of this GPU.
                unsafe { cuda::not_finite(OP, self.device(), x, numbers) }
            }
        }
    }

    /// A copy of some of the numbers.
    ///
    /// Blocks until the device has added them up, and counts as one of [`Device::host_reads`].
    ///
    /// # Errors
    /// If there are not so many, there is no memory, or the device failed.
    pub fn to_vec_blocking(&self, range: Range<usize>) -> Result<Vec<f64>> {
        let range = self.part(range.start, Some(range.len()))?;
        self.numbers.to_vec_blocking(OP, range)
    }

    /// The address of the first of these numbers, to be added to by a kernel of their GPU.
    #[cfg(feature = "cuda")]
    fn cuda_part(&mut self, part: Range<usize>) -> Result<*mut u8> {
        let numbers = self.numbers.on_cuda_mut(OP)?;
        Ok(numbers.wrapping_add(part.start * size_of::<f64>()))
    }

    /// `len` numbers from `at` on; no `len` is more than can be counted.
    fn part(&self, at: usize, len: Option<usize>) -> Result<Range<usize>> {
        let end = len.and_then(|len| at.checked_add(len));
        match end.filter(|end| *end <= self.count()) {
            Some(end) => Ok(at..end),
            None => Err(Error::shape(
                OP,
                format!("numbers within 0..{}", self.count()),
                (at, len),
            )),
        }
    }
}

/// How many entries dim 0 has.
fn entries(x: View<'_>) -> Result<usize> {
    let batch = x.shape().first().copied();
    batch.ok_or_else(|| Error::shape(OP, "a tensor [b, ..]", x))
}
