//! Methods of tensors and views that may copy elements. They call the kernels of `layout`, which take tensors and views, so
//! they are not in the files of these types.

use crate::{DType, Device, Element, Result, Shape, Tensor, View, layout};
#[cfg(feature = "cuda")]
use crate::{TensorMut, sizes::Layout};

impl View<'_> {
    /// A contiguous copy.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn to_tensor(&self) -> Result<Tensor> {
        layout::contiguous(*self)
    }
}

impl Tensor {
    /// A copy of a row-major slice in the device's memory.
    ///
    /// # Errors
    /// If the slice's length is not the product of the shape, or there is no memory.
    pub fn from_slice<T: Element>(
        data: &[T],
        shape: impl Into<Shape>,
        device: &Device,
    ) -> Result<Self> {
        let host = device.or_cpu();
        let view = View::from_slice(data, shape, &host)?;
        #[cfg(feature = "cuda")]
        if !device.is_cpu() {
            return Self::uploaded(view, device);
        }
        view.to_tensor()
    }

    /// A copy on a GPU, in this dtype, of a contiguous view of the host's memory. The processor converts a piece while the GPU
    /// copies the one before.
    #[cfg(feature = "cuda")]
    #[cfg_attr(
        not(feature = "ops"),
        allow(dead_code, reason = "linear layers use it, with the feature ops")
    )]
    pub(crate) fn uploaded_as(x: View<'_>, dtype: DType, device: &Device) -> Result<Self> {
        const OP: &str = "to_device";
        if x.dtype() == dtype {
            return Self::uploaded(x, device);
        }
        let layout = Layout::of_output(OP, Shape::from(x.shape()), dtype)?;
        let count = x.numel();
        let (flat, queue) = (x.reshape([count])?, device.expect_cuda());
        let mut upload = queue.begin_upload(OP, layout.byte_len())?;
        let most = (crate::cuda::UPLOAD_PIECE / dtype.size()).min(count);
        let mut piece = TensorMut::zeros([most], dtype, x.device())?;
        for start in (0..count).step_by(most.max(1)) {
            let len = most.min(count - start);
            let mut part = piece.view_mut().narrow(0, 0, len)?;
            let from = part.ptr().cast_const();
            layout::copy_into(flat.narrow(0, start, len)?, part)?;
            // SAFETY: `len` elements lie there one after another.
            unsafe { queue.append_upload(OP, &mut upload, from, len * dtype.size())? };
        }
        Ok(Self::of_upload(
            queue.finish_upload(OP, upload)?,
            layout,
            device,
        ))
    }

    /// Rows `start..start + len` of `dim`: shares memory if `dim` is the first, otherwise copies.
    ///
    /// # Errors
    /// If the range leaves the dim.
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Self> {
        let view = self.view().narrow(dim, start, len)?;
        match self.sharing(view) {
            Some(part) => Ok(part),
            None => view.to_tensor(),
        }
    }

    /// The parts one after another along `dim`.
    ///
    /// # Errors
    /// If there is no part, or they differ in another dim or in dtype.
    pub fn cat(parts: &[View<'_>], dim: usize) -> Result<Self> {
        layout::cat(parts, dim)
    }

    /// The elements in another dtype, rounded to nearest even; itself if it has it already.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        layout::cast(self.view(), dtype)
    }

    /// Itself, or a copy if others may change the elements.
    pub(crate) fn steady(&self) -> Result<Self> {
        match self.is_steady() {
            true => Ok(self.clone()),
            false => self.view().to_tensor(),
        }
    }
}
