//! Borrowed tensors: a pointer, a shape and strides. Every kernel takes views, so callers can pass memory that they own.

use crate::{DType, Device, Element, Error, MAX_NDIM, Result, Shape, sizes::Layout};
use std::{fmt, marker::PhantomData};

/// A tensor that borrows its elements; strides are in elements. Cheap to copy.
///
/// # Examples
/// ```
/// use xdit_kernels::{Device, View};
/// let (data, device) = ([1f32, 2., 3., 4., 5., 6.], Device::cpu());
/// let rows = View::from_slice(&data, [2, 3], &device)?;
/// let columns = rows.transpose(0, 1)?.to_tensor()?;
/// assert_eq!(columns.to_vec_blocking::<f32>()?, [1., 4., 2., 5., 3., 6.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct View<'a> {
    ptr: *const u8,
    layout: Layout,
    device: &'a Device,
    /// Whether nobody changes the elements for `'a`: false where they lie in a mapped file.
    steady: bool,
    owner: PhantomData<&'a [u8]>,
}

// SAFETY: a View is a shared borrow of plain numbers.
unsafe impl Send for View<'_> {}
// SAFETY: as above.
unsafe impl Sync for View<'_> {}

impl<'a> View<'a> {
    /// A view of a whole row-major slice of the host's memory, for kernels of `device`.
    ///
    /// # Errors
    /// If the slice's length is not the product of the shape, or the device does not read the host's memory.
    pub fn from_slice<T: Element>(
        data: &'a [T],
        shape: impl Into<Shape>,
        device: &'a Device,
    ) -> Result<Self> {
        let shape = shape.into();
        match Layout::contiguous(shape, T::DTYPE) {
            Some(layout) if layout.numel() == data.len() => Self::over(data, layout, device),
            _ => Err(Error::shape("view", format!("{shape:?}"), data.len())),
        }
    }

    /// A view of a slice with strides in elements (0 repeats a row). A dim of one entry, along which nobody steps, gets the
    /// stride of row-major order.
    ///
    /// # Errors
    /// If shape and strides reach beyond the slice, they are larger than memory can be (also beside a dim of 0), or the view
    /// repeats elements and has more than 2^36 of them; or the device does not read the host's memory.
    pub fn from_slice_strided<T: Element>(
        data: &'a [T],
        shape: impl Into<Shape>,
        strides: impl Into<Shape>,
        device: &'a Device,
    ) -> Result<Self> {
        let (shape, strides) = (shape.into(), strides.into());
        match Layout::strided(shape, strides, T::DTYPE) {
            Some(layout) if layout.extent() <= data.len() => Self::over(data, layout, device),
            _ => Err(Error::shape(
                "view",
                format!("a slice that holds shape {shape:?} with strides {strides:?}"),
                data.len(),
            )),
        }
    }

    /// The layout's extent is inside the slice.
    fn over<T: Element>(data: &'a [T], layout: Layout, device: &'a Device) -> Result<Self> {
        host_memory("view", device)?;
        // SAFETY: the slice's elements are initialised, of this dtype and borrowed for 'a; the caller checked the extent.
        Ok(unsafe { Self::from_raw(data.as_ptr().cast(), layout, device) })
    }

    /// # Safety
    /// `ptr` points at initialised elements of the layout's dtype, aligned for it, for every index that the layout reaches,
    /// and they stay unchanged for `'a` (or the view is then made [`unsteady`](Self::unsteady)).
    pub(crate) unsafe fn from_raw(ptr: *const u8, layout: Layout, device: &'a Device) -> Self {
        Self {
            ptr,
            layout,
            device,
            steady: true,
            owner: PhantomData,
        }
    }

    /// This view, marked as one whose bits other processes may change at any time (see [`MappedFile`](crate::MappedFile)).
    pub(crate) fn unsteady(self) -> Self {
        Self {
            steady: false,
            ..self
        }
    }

    /// Sizes of the dims, outermost first.
    pub fn shape(&self) -> &[usize] {
        self.layout.shape()
    }

    /// Distances between neighbours along each dim, in elements.
    pub fn strides(&self) -> &[usize] {
        self.layout.strides()
    }

    /// Size of one dim. Panics if there is no such dim.
    pub fn dim(&self, dim: usize) -> usize {
        self.shape()[dim]
    }

    /// Number of dims.
    pub fn ndim(&self) -> usize {
        self.shape().len()
    }

    /// Number of elements, repeated ones counted each time.
    pub fn numel(&self) -> usize {
        self.layout.numel()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.layout.dtype()
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The device whose memory holds the elements.
    pub fn device(&self) -> &'a Device {
        self.device
    }

    /// Whether the elements lie one after another in row-major order.
    pub fn is_contiguous(&self) -> bool {
        self.layout.is_contiguous()
    }

    /// This view for a kernel of `device`, which is equal to its own: where such a kernel needs a copy of it, the copy is made on
    /// the same queue.
    #[cfg(feature = "cuda")]
    pub(crate) fn on<'b>(self, device: &'b Device) -> View<'b>
    where
        'a: 'b,
    {
        View { device, ..self }
    }

    /// Rows `start..start + len` of `dim`. No copy.
    ///
    /// # Errors
    /// If the range leaves the dim.
    pub fn narrow(self, dim: usize, start: usize, len: usize) -> Result<Self> {
        let narrowed = self.layout.narrow(dim, start, len);
        let (layout, offset) = narrowed.ok_or_else(|| {
            Error::shape(
                "narrow",
                format!("dim {dim} to hold {start}..{start}+{len}"),
                self.shape(),
            )
        })?;
        Ok(Self {
            // An element that this view reaches, or the first where the result has none.
            ptr: self.ptr.wrapping_add(offset),
            layout,
            ..self
        })
    }

    /// The view at one index of `dim`, without that dim. No copy.
    ///
    /// # Errors
    /// If the index is outside.
    pub fn select(self, dim: usize, index: usize) -> Result<Self> {
        let narrowed = self.narrow(dim, index, 1)?;
        Ok(Self {
            layout: narrowed.layout.without(dim),
            ..narrowed
        })
    }

    /// Two dims swapped. No copy.
    ///
    /// # Errors
    /// If a dim is not there.
    pub fn transpose(self, a: usize, b: usize) -> Result<Self> {
        let mut order: [usize; MAX_NDIM] = std::array::from_fn(|d| d);
        if a < self.ndim() && b < self.ndim() {
            order.swap(a, b);
            return self.permute(&order[..self.ndim()]);
        }
        Err(Error::shape(
            "transpose",
            format!("dims {a} and {b}"),
            self.shape(),
        ))
    }

    /// Dims in the order given: dim i of the result is dim `order[i]` of this. No copy.
    ///
    /// # Errors
    /// If `order` is not a permutation of the dims.
    pub fn permute(self, order: &[usize]) -> Result<Self> {
        let layout = self.layout.permute(order).ok_or_else(|| {
            Error::shape(
                "permute",
                format!("a permutation of {} dims", self.ndim()),
                order,
            )
        })?;
        Ok(Self { layout, ..self })
    }

    /// The last dims split: `[.., n]` seen as `[.., tail..]` where the product of `tail` is n. No copy, any strides.
    ///
    /// # Errors
    /// If the product differs or there would be too many dims.
    pub fn split_last(self, tail: &[usize]) -> Result<Self> {
        let layout = split_last(self.layout, tail)?;
        Ok(Self { layout, ..self })
    }

    /// Another shape over the same elements. No copy.
    ///
    /// # Errors
    /// If the number of elements differs or the view is not contiguous.
    pub fn reshape(self, shape: impl Into<Shape>) -> Result<Self> {
        let layout = reshape(self.layout, shape.into())?;
        Ok(Self { layout, ..self })
    }

    /// The elements for a kernel of the processor, if they are contiguous in the host's memory, of this type, and nobody may
    /// change them.
    pub(crate) fn slice<T: Element>(&self) -> Option<&'a [T]> {
        if self.dtype() != T::DTYPE
            || !self.is_contiguous()
            || !self.steady
            || !self.device.is_cpu()
        {
            return None;
        }
        if self.numel() == 0 {
            return Some(&[]);
        }
        // SAFETY: the view's constructor saw that the elements are initialised, of this dtype, aligned and live for 'a, in
        // which nobody changes them;
        // contiguous means that numel elements follow the pointer.
        Some(unsafe { std::slice::from_raw_parts(self.ptr.cast(), self.numel()) })
    }

    /// Where the first element lies: in the host's memory, or an address of the GPU, which the host does not dereference.
    pub(crate) fn ptr(&self) -> *const u8 {
        self.ptr
    }
}

/// Checks that kernels of this device read the host's memory.
///
/// # Errors
/// [`Error::Device`].
pub(crate) fn host_memory(op: &'static str, device: &Device) -> Result<()> {
    match device.is_cpu() {
        true => Ok(()),
        false => Err(Error::Device {
            op,
            reason: format!(
                "{device} does not read the host's memory; copy to it by Tensor::from_slice or Tensor::to_device"
            ),
        }),
    }
}

/// [`View::split_last`] and [`ViewMut::split_last`](crate::ViewMut::split_last).
pub(crate) fn split_last(layout: Layout, tail: &[usize]) -> Result<Layout> {
    layout.split_last(tail).ok_or_else(|| {
        Error::shape(
            "split_last",
            format!("a last dim that is the product of {tail:?}"),
            layout.shape(),
        )
    })
}

/// [`View::reshape`] and [`ViewMut::reshape`](crate::ViewMut::reshape).
pub(crate) fn reshape(layout: Layout, shape: Shape) -> Result<Layout> {
    layout.reshape(shape).ok_or_else(|| {
        Error::shape(
            "reshape",
            format!("a contiguous view of as many elements as {shape:?}"),
            layout,
        )
    })
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View {:?}", self.layout)
    }
}

impl<'a> From<&Self> for View<'a> {
    fn from(view: &Self) -> Self {
        *view
    }
}
