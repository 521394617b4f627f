//! The methods by which the host reads tensors. They and [`Device::synchronize`](crate::Device::synchronize) are the only
//! calls that wait for a device.

use crate::{DType, Device, Element, Error, Result, Tensor, vector::reserved};
use half::{bf16, f16};
use std::borrow::Cow;

impl Tensor {
    /// Copies the elements into a vector, row-major. `T` is their own type, or f32, to which any float is converted exactly.
    ///
    /// Blocks until the device has computed them, and counts as one of [`Device::host_reads`](crate::Device::host_reads).
    ///
    /// # Errors
    /// If the elements are not of this type, there is no memory, or the device failed.
    ///
    /// # Examples
    /// ```
    /// use xdit_kernels::{DType, Device, Tensor};
    /// let x = Tensor::from_slice(&[1f32, 2.], [2], &Device::cpu())?.to_dtype(DType::F16)?;
    /// assert_eq!(x.to_vec_blocking::<f32>()?, [1., 2.]);
    /// assert!(x.to_vec_blocking::<u32>().is_err());
    /// # Ok::<(), xdit_kernels::Error>(())
    /// ```
    pub fn to_vec_blocking<T: Element>(&self) -> Result<Vec<T>> {
        const OP: &str = "reading a tensor";
        if !self.device().is_cpu() {
            return self.to_device(&Device::cpu())?.to_vec_blocking();
        }
        self.device().count_host_read();
        let mut values = reserved(OP, self.numel())?;
        let dtype = self.dtype();
        if dtype == T::DTYPE {
            values.extend(self.elements::<T>());
            return Ok(values);
        }
        let wrong = || Error::DType {
            op: OP,
            expected: format!("{} as the type that is asked for", T::DTYPE),
            got: dtype,
        };
        // Only f32 can hold another float.
        let widened = |x: f32| T::widened(x).ok_or_else(wrong);
        match dtype {
            DType::BF16 => {
                for x in self.elements::<bf16>() {
                    values.push(widened(x.to_f32())?);
                }
            }
            DType::F16 => {
                for x in self.elements::<f16>() {
                    values.push(widened(x.to_f32())?);
                }
            }
            _ => return Err(wrong()),
        }
        Ok(values)
    }

    /// The elements, borrowed where they lie.
    ///
    /// Blocks until the device has computed them, and counts as one of [`Device::host_reads`](crate::Device::host_reads).
    ///
    /// # Errors
    /// If the elements are not of this type, not in the host's memory, or in a mapped file
    /// ([`MappedFile`](crate::MappedFile) says why); or the device failed. [`to_vec_blocking`](Self::to_vec_blocking) copies
    /// them from any memory.
    ///
    /// # Examples
    /// ```
    /// use xdit_kernels::{Device, Tensor};
    /// let x = Tensor::from_slice(&[1f32, 2.], [2], &Device::cpu())?;
    /// assert_eq!(x.host_slice_blocking::<f32>()?, [1., 2.]);
    /// # Ok::<(), xdit_kernels::Error>(())
    /// ```
    pub fn host_slice_blocking<T: Element>(&self) -> Result<&[T]> {
        const OP: &str = "borrowing a tensor's elements";
        if self.dtype() != T::DTYPE {
            return Err(Error::DType {
                op: OP,
                expected: T::DTYPE.to_string(),
                got: self.dtype(),
            });
        }
        let refused = |why: &str| Error::Device {
            op: OP,
            reason: format!("they lie in {why}; copy them by to_vec_blocking"),
        };
        if !self.device().is_cpu() {
            return Err(refused(&format!("memory of {}", self.device())));
        }
        self.device().count_host_read();
        self.slice()
            .ok_or_else(|| refused("a mapped file, which others may change"))
    }

    /// The elements' bytes, little-endian as in memory: borrowed, or copied if they lie in a mapped file
    /// ([`MappedFile`](crate::MappedFile) says why) or not in the host's memory.
    ///
    /// Blocks until the device has computed them, and counts as one of [`Device::host_reads`](crate::Device::host_reads).
    ///
    /// # Errors
    /// If there is no memory for a copy, or the device failed.
    pub fn host_bytes_blocking(&self) -> Result<Cow<'_, [u8]>> {
        if !self.device().is_cpu() {
            let host = self.to_device(&Device::cpu())?;
            return Ok(Cow::Owned(host.host_bytes_blocking()?.into_owned()));
        }
        self.device().count_host_read();
        let (first, len) = (self.view().ptr(), self.byte_len());
        if self.is_steady() {
            // SAFETY: the storage holds `len` initialised bytes there, which nobody changes.
            return Ok(Cow::Borrowed(unsafe {
                std::slice::from_raw_parts(first, len)
            }));
        }
        let mut bytes = crate::vector::filled("reading a tensor", 0, len)?;
        // SAFETY: `len` bytes lie at `first`, and `bytes` is as long and elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(first, bytes.as_mut_ptr(), len) };
        Ok(Cow::Owned(bytes))
    }

    /// Copies of the elements, one after another. Their dtype is `T`, and they lie in the host's memory.
    fn elements<T: Element>(&self) -> impl Iterator<Item = T> {
        assert_eq!(self.dtype(), T::DTYPE, "elements of another type");
        assert!(self.device().is_cpu(), "elements of another memory");
        let first = self.view().ptr().cast::<T>();
        // SAFETY: a tensor is contiguous, so its elements follow the pointer, and lives as long as the iterator, which borrows it.
        (0..self.numel()).map(move |i| unsafe { first.add(i).read() })
    }

    /// The elements for a kernel of the processor, if they are of this type and nobody may change them.
    pub(crate) fn slice<T: Element>(&self) -> Option<&[T]> {
        self.view().slice()
    }
}
