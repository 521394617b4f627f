//! Borrowed tensors: a pointer, a shape and strides. Every kernel takes these, so memory of any owner can be handed in.

use crate::{DType, Device, Element, Error, Result, Shape, Tensor};
use std::{fmt, marker::PhantomData};

/// A tensor that borrows its elements; strides are in elements. Cheap to copy.
///
/// # Examples
/// ```
/// use xdit_kernels::View;
/// let data = [1f32, 2., 3., 4., 5., 6.];
/// let rows = View::from_slice(&data, [2, 3])?;
/// let columns = rows.transpose(0, 1)?;
/// assert_eq!(columns.to_tensor()?.to_f32_vec(), [1., 4., 2., 5., 3., 6.]);
/// # Ok::<(), xdit_kernels::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct View<'a> {
    ptr: *const u8,
    shape: Shape,
    strides: Shape,
    dtype: DType,
    device: Device,
    /// Whether nobody changes the elements for `'a`: false where they lie in a mapped file.
    steady: bool,
    owner: PhantomData<&'a [u8]>,
}

// SAFETY: a View is a shared borrow of plain numbers.
unsafe impl Send for View<'_> {}
// SAFETY: as above.
unsafe impl Sync for View<'_> {}

/// Highest element index that a view of this shape and strides touches, plus one; `None` on overflow.
fn extent(shape: &Shape, strides: &Shape) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    let mut last = 0usize;
    for (&n, &s) in shape.iter().zip(strides.iter()) {
        last = last.checked_add((n - 1).checked_mul(s)?)?;
    }
    last.checked_add(1)
}

fn check_extent(shape: &Shape, strides: &Shape, len: usize) -> Result<()> {
    if shape.len() != strides.len() {
        return Err(Error::shape(
            "view",
            format!("{} strides", shape.len()),
            strides,
        ));
    }
    match extent(shape, strides) {
        Some(n) if n <= len => Ok(()),
        _ => Err(Error::shape(
            "view",
            format!("a slice that holds shape {shape:?} with strides {strides:?}"),
            len,
        )),
    }
}

impl<'a> View<'a> {
    /// A view of a whole row-major slice, on the processor's widest tier.
    ///
    /// # Errors
    /// If the slice's length is not the product of the shape.
    pub fn from_slice<T: Element>(data: &'a [T], shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        if shape.checked_numel() != Some(data.len()) {
            return Err(Error::shape("view", format!("{shape:?}"), data.len()));
        }
        Self::from_slice_strided(data, shape, shape.contiguous_strides())
    }

    /// A view of a slice with strides in elements (0 repeats a row).
    ///
    /// # Errors
    /// If shape and strides reach beyond the slice.
    pub fn from_slice_strided<T: Element>(
        data: &'a [T],
        shape: impl Into<Shape>,
        strides: impl Into<Shape>,
    ) -> Result<Self> {
        let (shape, strides) = (shape.into(), strides.into());
        check_extent(&shape, &strides, data.len())?;
        Ok(Self {
            ptr: data.as_ptr().cast(),
            shape,
            strides,
            dtype: T::DTYPE,
            device: Device::cpu(),
            steady: true,
            owner: PhantomData,
        })
    }

    /// # Safety
    /// `ptr` points at initialised elements of `dtype`, aligned for it, for every index that shape and strides reach,
    /// and they stay unchanged for `'a` (or the view is then made [`unsteady`](Self::unsteady)).
    pub(crate) unsafe fn from_raw(
        ptr: *const u8,
        shape: Shape,
        strides: Shape,
        dtype: DType,
        device: Device,
    ) -> Self {
        Self {
            ptr,
            shape,
            strides,
            dtype,
            device,
            steady: true,
            owner: PhantomData,
        }
    }

    /// The same elements, of which somebody else may change the bits at any time (see [`MappedFile`](crate::MappedFile)).
    pub(crate) fn unsteady(self) -> Self {
        Self {
            steady: false,
            ..self
        }
    }

    /// The same elements, computed with on another tier of the processor.
    pub fn on(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Sizes of the dims, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Distances between neighbours along each dim, in elements.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// Size of one dim. Panics if there is no such dim.
    pub fn dim(&self, dim: usize) -> usize {
        self.shape[dim]
    }

    /// Number of dims.
    pub fn ndim(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.numel()
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
        let mut step = 1;
        for i in (0..self.ndim()).rev() {
            if self.shape[i] != 1 && self.strides[i] != step {
                return false;
            }
            step *= self.shape[i];
        }
        true
    }

    /// Rows `start..start + len` of `dim`. No copy.
    ///
    /// # Errors
    /// If the range leaves the dim.
    pub fn narrow(mut self, dim: usize, start: usize, len: usize) -> Result<Self> {
        if dim >= self.ndim()
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
            // SAFETY: start < shape[dim], so the offset element is one that the view reaches (or the view is empty and
            // the pointer is never read).
            self.ptr = self
                .ptr
                .wrapping_add(start * self.strides[dim] * self.dtype.size());
        }
        self.shape.as_mut()[dim] = len;
        Ok(self)
    }

    /// The view at one index of `dim`, without that dim. No copy.
    ///
    /// # Errors
    /// If the index is outside.
    pub fn select(self, dim: usize, index: usize) -> Result<Self> {
        let narrowed = self.narrow(dim, index, 1)?;
        let without = |s: &Shape| -> Shape {
            let mut v = [0; crate::shape::MAX_NDIM];
            let mut n = 0;
            for (i, &d) in s.iter().enumerate() {
                if i != dim {
                    v[n] = d;
                    n += 1;
                }
            }
            Shape::new(&v[..n])
        };
        Ok(Self {
            shape: without(&narrowed.shape),
            strides: without(&narrowed.strides),
            ..narrowed
        })
    }

    /// Two dims swapped. No copy.
    ///
    /// # Errors
    /// If a dim is not there.
    pub fn transpose(mut self, a: usize, b: usize) -> Result<Self> {
        if a >= self.ndim() || b >= self.ndim() {
            return Err(Error::shape(
                "transpose",
                format!("dims {a} and {b}"),
                self.shape,
            ));
        }
        self.shape.as_mut().swap(a, b);
        self.strides.as_mut().swap(a, b);
        Ok(self)
    }

    /// Dims in the order given: dim i of the result is dim `order[i]` of this. No copy.
    ///
    /// # Errors
    /// If `order` is not a permutation of the dims.
    pub fn permute(self, order: &[usize]) -> Result<Self> {
        let mut seen = [false; crate::shape::MAX_NDIM];
        let valid = order.len() == self.ndim()
            && order
                .iter()
                .all(|&d| d < self.ndim() && !std::mem::replace(&mut seen[d], true));
        if !valid {
            return Err(Error::shape(
                "permute",
                format!("a permutation of {} dims", self.ndim()),
                order,
            ));
        }
        let mut out = self;
        for (i, &d) in order.iter().enumerate() {
            out.shape.as_mut()[i] = self.shape[d];
            out.strides.as_mut()[i] = self.strides[d];
        }
        Ok(out)
    }

    /// The last dims split: `[.., n]` seen as `[.., tail..]` where the product of `tail` is n. No copy, any strides.
    ///
    /// # Errors
    /// If the product differs or there would be too many dims.
    pub fn split_last(self, tail: &[usize]) -> Result<Self> {
        let wrong = || {
            Error::shape(
                "split_last",
                format!("a last dim that is the product of {tail:?}"),
                self.shape,
            )
        };
        let (&n, head) = self.shape.split_last().ok_or_else(wrong)?;
        if Shape::new(tail).checked_numel() != Some(n)
            || head.len() + tail.len() > crate::shape::MAX_NDIM
        {
            return Err(wrong());
        }
        let last_stride = self.strides[head.len()];
        let inner = Shape::new(tail).contiguous_strides();
        let strides: Vec<usize> = self.strides[..head.len()]
            .iter()
            .copied()
            .chain(inner.iter().map(|s| s * last_stride))
            .collect();
        Ok(Self {
            shape: Shape::new(&[head, tail].concat()),
            strides: Shape::new(&strides),
            ..self
        })
    }

    /// Another shape over the same elements. No copy.
    ///
    /// # Errors
    /// If the number of elements differs or the view is not contiguous.
    pub fn reshape(self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        if shape.checked_numel() != Some(self.numel()) || !self.is_contiguous() {
            return Err(Error::shape(
                "reshape",
                format!(
                    "a contiguous view of {} elements for {shape:?}",
                    shape.iter().product::<usize>()
                ),
                self,
            ));
        }
        Ok(Self {
            strides: shape.contiguous_strides(),
            shape,
            ..self
        })
    }

    /// A contiguous copy.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn to_tensor(&self) -> Result<Tensor> {
        crate::layout::contiguous(*self)
    }

    /// The elements as a slice, if they are contiguous, of this type, and not in a mapped file
    /// ([`MappedFile`](crate::MappedFile) says why; [`to_tensor`](Self::to_tensor) copies those).
    pub fn as_slice<T: Element>(&self) -> Option<&'a [T]> {
        if self.dtype != T::DTYPE || !self.is_contiguous() || !self.steady {
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

    pub(crate) fn ptr(&self) -> *const u8 {
        self.ptr
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "View {:?} strides {:?} {}",
            self.shape, self.strides, self.dtype
        )
    }
}

impl<'a> From<&'a Tensor> for View<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        tensor.view()
    }
}

impl<'a> From<&Self> for View<'a> {
    fn from(view: &Self) -> Self {
        *view
    }
}
