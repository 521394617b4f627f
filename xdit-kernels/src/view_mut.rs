//! Borrowed tensors that a kernel writes into.

use crate::{DType, Device, Element, Error, Result, Shape, View};
use std::{fmt, marker::PhantomData};

/// A tensor that borrows its elements to write them; strides are in elements, and no two indices share an element.
pub struct ViewMut<'a> {
    ptr: *mut u8,
    shape: Shape,
    strides: Shape,
    dtype: DType,
    device: Device,
    owner: PhantomData<&'a mut [u8]>,
}

// SAFETY: a ViewMut is an exclusive borrow of plain numbers.
unsafe impl Send for ViewMut<'_> {}
// SAFETY: as above.
unsafe impl Sync for ViewMut<'_> {}

impl<'a> ViewMut<'a> {
    /// A view of a whole row-major slice.
    ///
    /// # Errors
    /// If the slice's length is not the product of the shape.
    pub fn from_slice<T: Element>(data: &'a mut [T], shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        // The read-only constructor checks the length.
        View::from_slice(data, shape)?;
        // SAFETY: the slice is exclusively borrowed for 'a and the view just checked covers it exactly.
        Ok(unsafe { Self::from_raw(data.as_mut_ptr().cast(), shape, T::DTYPE, Device::cpu()) })
    }

    /// # Safety
    /// `ptr` points at `shape.numel()` elements of `dtype`, aligned for it, that nobody else reads or writes for `'a`.
    /// They may be uninitialised if the kernel that receives the view writes all of them.
    pub(crate) unsafe fn from_raw(
        ptr: *mut u8,
        shape: Shape,
        dtype: DType,
        device: Device,
    ) -> Self {
        Self {
            ptr,
            shape,
            strides: shape.contiguous_strides(),
            dtype,
            device,
            owner: PhantomData,
        }
    }

    /// A shorter borrow of the same elements.
    pub fn reborrow(&mut self) -> ViewMut<'_> {
        ViewMut {
            owner: PhantomData,
            ..*self
        }
    }

    /// Rows `start..start + len` of `dim`. No copy.
    ///
    /// # Errors
    /// If the range leaves the dim.
    pub fn narrow(mut self, dim: usize, start: usize, len: usize) -> Result<Self> {
        if dim >= self.shape.len()
            || start
                .checked_add(len)
                .is_none_or(|end| end > self.shape[dim])
        {
            return Err(Error::shape(
                "narrow",
                format!("dim {dim} to hold {start}..{start}+{len}"),
                self.shape,
            ));
        }
        if len > 0 {
            self.ptr = self
                .ptr
                .wrapping_add(start * self.strides[dim] * self.dtype.size());
        }
        self.shape.as_mut()[dim] = len;
        Ok(self)
    }

    /// Another shape over the same elements.
    ///
    /// # Errors
    /// If the number of elements differs or the view is not contiguous.
    pub fn reshape(self, shape: impl Into<Shape>) -> Result<Self> {
        let like = self.as_view().reshape(shape)?;
        let (shape, strides) = (Shape::new(like.shape()), Shape::new(like.strides()));
        Ok(Self {
            shape,
            strides,
            ..self
        })
    }

    /// The last dim split: `[.., n]` seen as `[.., tail..]` where the product of `tail` is n.
    ///
    /// # Errors
    /// If the product differs.
    pub fn split_last(self, tail: &[usize]) -> Result<Self> {
        let like = self.as_view().split_last(tail)?;
        let (shape, strides) = (Shape::new(like.shape()), Shape::new(like.strides()));
        Ok(Self {
            shape,
            strides,
            ..self
        })
    }

    /// Sizes of the dims, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Distances between neighbours along each dim, in elements.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the elements lie.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Whether the elements lie one after another in row-major order.
    pub fn is_contiguous(&self) -> bool {
        self.as_view().is_contiguous()
    }

    /// For shape arithmetic only: the elements may not be initialised yet.
    fn as_view(&self) -> View<'_> {
        // SAFETY: no element is read through this private view; the callers above use its shape and strides.
        unsafe { View::from_raw(self.ptr, self.shape, self.strides, self.dtype, self.device) }
    }

    pub(crate) fn ptr(&mut self) -> *mut u8 {
        self.ptr
    }

    /// Checks that the view has this shape and dtype.
    pub(crate) fn expect(&self, op: &'static str, shape: &[usize], dtype: DType) -> Result<()> {
        if self.shape() != shape {
            return Err(Error::shape(
                op,
                format!("an output of shape {shape:?}"),
                self.shape,
            ));
        }
        if self.dtype != dtype {
            return Err(Error::DType {
                op,
                expected: format!("{dtype} output"),
                got: self.dtype,
            });
        }
        Ok(())
    }
}

impl fmt::Debug for ViewMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ViewMut {:?} strides {:?} {}",
            self.shape, self.strides, self.dtype
        )
    }
}
