#[cfg(feature = "cuda")]
use crate::cuda::{CudaBuffer, CudaQueue};
use crate::{
    DType, Device, Error, MappedFile, Result, Shape, View, ViewMut,
    sizes::Layout,
    storage::{DeviceMemory, Storage},
};
use std::fmt;

/// An immutable, contiguous tensor. Clones share its memory, which knows its device.
///
/// # Examples
/// ```
/// use xdit_kernels::{DType, Device, Tensor};
/// let x = Tensor::from_slice(&[1f32, 2., 3., 4.], [2, 2], &Device::cpu())?;
/// assert_eq!(x.narrow(0, 1, 1)?.to_vec_blocking::<f32>()?, [3., 4.]);
/// assert_eq!(x.to_dtype(DType::BF16)?.dtype(), DType::BF16);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor {
    storage: Storage,
    /// Of the first element, in bytes.
    offset: usize,
    /// Contiguous.
    layout: Layout,
}

impl Tensor {
    /// A tensor of zeros.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn zeros(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Self> {
        Ok(TensorMut::zeros(shape, dtype, device)?.freeze())
    }

    /// The elements that lie at `offset` in a mapped file. Shares the mapping; copies only if the offset is not aligned
    /// for the dtype, or to a device that does not read the host's memory.
    ///
    /// # Errors
    /// If the file ends before the last element, or there is no memory for a copy.
    pub fn from_mapped(
        file: &MappedFile,
        offset: usize,
        shape: impl Into<Shape>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let len = file.byte_len();
        let storage = Storage::mapped(file.clone(), device.or_cpu());
        Self::from_storage(storage, len, offset, shape.into(), dtype)?.to_device(device)
    }

    /// The elements that lie at `offset` in bytes that live as long as the program. Copies only if they are not
    /// aligned for the dtype, or to a device that does not read the host's memory.
    ///
    /// # Errors
    /// If the bytes end before the last element.
    pub fn from_static(
        bytes: &'static [u8],
        offset: usize,
        shape: impl Into<Shape>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let storage = Storage::of_static(bytes, device.or_cpu());
        Self::from_storage(storage, bytes.len(), offset, shape.into(), dtype)?.to_device(device)
    }

    /// The storage is the host's memory.
    fn from_storage(
        storage: Storage,
        storage_len: usize,
        offset: usize,
        shape: Shape,
        dtype: DType,
    ) -> Result<Self> {
        let layout = Layout::of_output("tensor", shape, dtype)?;
        let len = layout.byte_len();
        if offset.checked_add(len).is_none_or(|end| end > storage_len) {
            return Err(Error::shape(
                "tensor",
                format!("{len} bytes at offset {offset} for {shape:?} {dtype}"),
                storage_len,
            ));
        }
        // In bounds, as checked above (one past the end for an empty tensor).
        let start = storage.ptr().wrapping_add(offset);
        if !start.addr().is_multiple_of(dtype.size()) {
            let mut out = TensorMut::zeros(shape, dtype, storage.device())?;
            // SAFETY: `len` bytes lie at `start` (checked above) and `out` holds as many; they are different memory, and the host's.
            unsafe { std::ptr::copy_nonoverlapping(start, out.view_mut().ptr(), len) };
            return Ok(out.freeze());
        }
        Ok(Self {
            storage,
            offset,
            layout,
        })
    }

    /// Sizes of the dims, outermost first.
    pub fn shape(&self) -> &[usize] {
        self.layout.shape()
    }

    /// Size of one dim. Panics if there is no such dim.
    pub fn dim(&self, dim: usize) -> usize {
        self.shape()[dim]
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.layout.numel()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.layout.dtype()
    }

    /// The device whose memory holds it.
    pub fn device(&self) -> &Device {
        self.storage.device()
    }

    /// This tensor on another device. Shares memory if both devices reach it, as all devices of the processor do and a GPU's
    /// queue and its forks, and copies otherwise. A copy to the processor waits for the GPU, and counts as one of its
    /// [`Device::host_reads`].
    ///
    /// # Errors
    /// If there is no memory for a copy, or the device failed.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        if let Some(storage) = self.storage.shared_with(device) {
            return Ok(Self { storage, ..*self });
        }
        #[cfg(feature = "cuda")]
        return match (self.device().cuda_queue(), device.cuda_queue()) {
            (Some(queue), other) => self.leaving(queue, device, other),
            (None, Some(_)) => Self::uploaded(self.view(), device),
            (None, None) => unreachable!("devices of the processor share memory"),
        };
        #[cfg(not(feature = "cuda"))]
        unreachable!("devices of the processor share memory")
    }

    /// A copy on a GPU of a contiguous view of the host's memory.
    #[cfg(feature = "cuda")]
    pub(crate) fn uploaded(x: View<'_>, device: &Device) -> Result<Self> {
        let layout = *x.layout();
        // SAFETY: the view's bytes lie there, one after another.
        let buffer =
            unsafe { (device.expect_cuda()).upload_new(TO_DEVICE, x.ptr(), layout.byte_len())? };
        Ok(Self::of_upload(buffer, layout, device))
    }

    /// Memory of a GPU that holds the elements of a contiguous layout.
    #[cfg(feature = "cuda")]
    pub(crate) fn of_upload(buffer: CudaBuffer, layout: Layout, device: &Device) -> Self {
        debug_assert_eq!(buffer.len(), layout.byte_len());
        Self {
            storage: Storage::owned(DeviceMemory::Cuda(buffer), device.clone()),
            offset: 0,
            layout,
        }
    }

    /// A copy of this tensor of a GPU, whose queue is `queue`, on another device.
    #[cfg(feature = "cuda")]
    fn leaving(
        &self,
        queue: &CudaQueue,
        device: &Device,
        other: Option<&CudaQueue>,
    ) -> Result<Self> {
        let (from, bytes) = (self.view().ptr(), self.byte_len());
        // SAFETY: the copy below writes every element.
        let out = unsafe { TensorMut::uninit(TO_DEVICE, self.shape(), self.dtype(), device)? };
        let to = out.memory.ptr();
        match other {
            // SAFETY: `bytes` bytes lie at both places, in memory of the queue and of the other one.
            Some(other) => unsafe { queue.send(TO_DEVICE, from, other, to, bytes)? },
            None => {
                self.device().count_host_read();
                // SAFETY: as above; `out` is in the host's memory.
                unsafe { queue.download_blocking(TO_DEVICE, from, to, bytes)? };
            }
        }
        Ok(out.freeze())
    }

    /// A view of the whole tensor.
    pub fn view(&self) -> View<'_> {
        // SAFETY: the storage holds the layout's initialised elements of this dtype at the (aligned) offset, checked at
        // construction; it lives as long as `self` is borrowed and this process never writes it again. Where others may, the
        // view is unsteady.
        let view = unsafe {
            View::from_raw(
                self.storage.ptr().wrapping_add(self.offset),
                self.layout,
                self.storage.device(),
            )
        };
        match self.storage.is_steady() {
            true => view,
            false => view.unsteady(),
        }
    }

    /// A part of this tensor's [`view`](Self::view) as a tensor of the same memory, or `None` where it is not contiguous.
    pub(crate) fn sharing(&self, part: View<'_>) -> Option<Self> {
        part.is_contiguous().then(|| Self {
            // The part begins further on in the same storage.
            offset: self.offset + (part.ptr().addr() - self.view().ptr().addr()),
            layout: *part.layout(),
            ..self.clone()
        })
    }

    /// Another shape over the same memory.
    ///
    /// # Errors
    /// If the number of elements differs.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        let layout = *self.view().reshape(shape)?.layout();
        Ok(Self {
            layout,
            ..self.clone()
        })
    }

    /// Whether nobody changes the elements while they are borrowed.
    pub(crate) fn is_steady(&self) -> bool {
        self.storage.is_steady()
    }

    /// Bytes of all elements.
    pub fn byte_len(&self) -> usize {
        self.layout.byte_len()
    }

    /// Where the first element lies, for libraries that take addresses: in the host's memory, or an address of the GPU.
    /// [`byte_len`](Self::byte_len) bytes follow. The address is valid as long as a tensor of this memory exists.
    pub fn as_ptr(&self) -> *const u8 {
        self.view().ptr()
    }
}

impl<'a> From<&'a Tensor> for View<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        tensor.view()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Tensor {:?} {} on {}",
            self.shape(),
            self.dtype(),
            self.device()
        )
    }
}

/// A tensor that is being built. It alone owns its memory. Kernels fill it through views, and [`freeze`](Self::freeze) makes
/// it a [`Tensor`].
///
/// # Examples
/// ```
/// use xdit_kernels::{DType, Device, TensorMut};
/// let x = TensorMut::zeros([2, 3], DType::F32, &Device::cpu())?.freeze();
/// assert_eq!(x.to_vec_blocking::<f32>()?, [0.; 6]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
#[derive(Debug)]
pub struct TensorMut {
    memory: DeviceMemory,
    /// Contiguous.
    layout: Layout,
    device: Device,
}

impl TensorMut {
    /// A tensor of zeros, to be written into.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn zeros(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Self> {
        let layout = Layout::of_output("zeros", shape.into(), dtype)?;
        Ok(Self {
            memory: DeviceMemory::new("zeros", layout.byte_len(), true, device)?,
            layout,
            device: device.clone(),
        })
    }

    /// A tensor of memory that is not initialised.
    ///
    /// # Safety
    /// Every element is written before [`freeze`](Self::freeze).
    pub(crate) unsafe fn uninit(
        op: &'static str,
        shape: impl Into<Shape>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let layout = Layout::of_output(op, shape.into(), dtype)?;
        Ok(Self {
            memory: DeviceMemory::new(op, layout.byte_len(), false, device)?,
            layout,
            device: device.clone(),
        })
    }

    /// Number of elements.
    pub(crate) fn numel(&self) -> usize {
        self.layout.numel()
    }

    /// A view of the whole, to read what was written so far.
    pub fn view(&self) -> View<'_> {
        // SAFETY: the memory holds the layout's elements, aligned to 64 bytes, which nobody writes while `self` is borrowed.
        unsafe { View::from_raw(self.memory.ptr(), self.layout, &self.device) }
    }

    /// A view of the whole, to write into.
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        // SAFETY: the memory holds the layout's elements, aligned to 64 bytes, and `self` is borrowed exclusively.
        unsafe { ViewMut::from_raw(self.memory.ptr(), self.layout, &self.device) }
    }

    /// Where the first element lies, for libraries that write to addresses: in the host's memory, or an address of the GPU. The
    /// address stays valid until this tensor, or the one that [`freeze`](Self::freeze) makes of it, is dropped.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.memory.ptr()
    }

    /// The elements' bytes, little-endian as in memory, to be written, for example from a file or a socket.
    ///
    /// # Errors
    /// If they are not in the host's memory.
    ///
    /// # Examples
    /// ```
    /// use xdit_kernels::{DType, Device, TensorMut};
    /// let mut x = TensorMut::zeros([2], DType::F32, &Device::cpu())?;
    /// x.host_bytes_mut()?[4..].copy_from_slice(&1.5f32.to_le_bytes());
    /// assert_eq!(x.freeze().to_vec_blocking::<f32>()?, [0., 1.5]);
    /// # Ok::<(), xdit_kernels::Error>(())
    /// ```
    pub fn host_bytes_mut(&mut self) -> Result<&mut [u8]> {
        if !self.device.is_cpu() {
            return Err(Error::Device {
                op: "writing a tensor's bytes",
                reason: format!(
                    "they lie in memory of {}; make them on the processor",
                    self.device
                ),
            });
        }
        let len = self.layout.byte_len();
        // SAFETY: the memory holds `len` bytes, which `self` alone owns. Users get only tensors whose memory was set to zeros.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.memory.ptr(), len) })
    }

    /// The finished tensor.
    pub fn freeze(self) -> Tensor {
        Tensor {
            storage: Storage::owned(self.memory, self.device),
            offset: 0,
            layout: self.layout,
        }
    }
}

#[cfg(feature = "cuda")]
const TO_DEVICE: &str = "to_device";
