//! Borrowed tensors that a kernel writes into.

use crate::{
    DType, Device, Element, Error, Result, Shape, View, entries::EntryBox, sizes::Layout, view,
};
use std::{
    fmt,
    marker::PhantomData,
    sync::atomic::{AtomicBool, Ordering},
};

/// A tensor that borrows its elements to write them; strides are in elements, and no two indices share an element.
pub struct ViewMut<'a> {
    ptr: *mut u8,
    layout: Layout,
    device: &'a Device,
    /// The flag that a kernel sets when it has written all elements.
    written: Option<&'a AtomicBool>,
    /// Whether the elements are initialised: those of an [`Unfilled`](crate::Unfilled) are not.
    initialised: bool,
    owner: PhantomData<&'a mut [u8]>,
}

// SAFETY: a ViewMut is an exclusive borrow of plain numbers.
unsafe impl Send for ViewMut<'_> {}
// SAFETY: as above.
unsafe impl Sync for ViewMut<'_> {}

impl<'a> ViewMut<'a> {
    /// A view of a whole row-major slice of the host's memory, for kernels of `device`.
    ///
    /// # Errors
    /// If the slice's length is not the product of the shape.
    pub fn from_slice<T: Element>(
        data: &'a mut [T],
        shape: impl Into<Shape>,
        device: &'a Device,
    ) -> Result<Self> {
        // The read-only constructor checks the length.
        let layout = *View::from_slice(data, shape, device)?.layout();
        // SAFETY: the slice is exclusively borrowed for 'a and the view just checked covers it exactly.
        Ok(unsafe { Self::from_raw(data.as_mut_ptr().cast(), layout, device) })
    }

    /// # Safety
    /// No two indices of `layout` share an element, and `ptr` points at its elements, aligned for its dtype, that nobody else
    /// reads or writes for `'a`. They may be uninitialised if the kernel that receives the view writes all of them.
    pub(crate) unsafe fn from_raw(ptr: *mut u8, layout: Layout, device: &'a Device) -> Self {
        Self {
            ptr,
            layout,
            device,
            written: None,
            initialised: true,
            owner: PhantomData,
        }
    }

    /// This view of elements that are not initialised, with a flag that a kernel sets when it has written all of them.
    pub(crate) fn unfilled(self, note: &'a AtomicBool) -> Self {
        Self {
            initialised: false,
            written: Some(note),
            ..self
        }
    }

    /// Checks that the view has numbers to read, for kernels that add to them.
    ///
    /// # Errors
    /// If it is a part of an [`Unfilled`](crate::Unfilled).
    #[cfg(feature = "ops")]
    pub(crate) fn expect_initialised(&self, op: &'static str) -> Result<()> {
        match self.initialised {
            true => Ok(()),
            false => Err(Error::Shape {
                op,
                expected: "an output that holds numbers".into(),
                got: "a part of an unfilled output".into(),
            }),
        }
    }

    /// This view with a flag that a kernel sets when it has written all elements.
    pub(crate) fn noting(self, note: Option<&'a AtomicBool>) -> Self {
        Self {
            written: note,
            ..self
        }
    }

    /// Runs a kernel that writes every element unless it fails, and notes that it has.
    pub(crate) fn written_by(self, kernel: impl FnOnce(Self) -> Result<()>) -> Result<()> {
        let note = self.written;
        kernel(self.noting(None))?;
        if let Some(note) = note {
            note.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// As [`written_by`](Self::written_by), for a kernel that writes several outputs.
    #[cfg(feature = "cuda")]
    pub(crate) fn each_written_by(
        outs: Vec<Self>,
        kernel: impl FnOnce(Vec<Self>) -> Result<()>,
    ) -> Result<()> {
        let notes: Vec<_> = outs.iter().map(|out| out.written).collect();
        kernel(outs.into_iter().map(|out| out.noting(None)).collect())?;
        for note in notes.into_iter().flatten() {
            note.store(true, Ordering::Relaxed);
        }
        Ok(())
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
            // A kernel that writes this part does not write the whole.
            written: None,
            ..self
        })
    }

    /// Several parts that share no element, for kernels that write all of them at once. Each part holds `len` entries of `dim` from
    /// `start` on, for each `(dim, start, len)`; without any, it is the whole.
    ///
    /// # Errors
    /// If a dim has no such entries, or two parts share an element.
    ///
    /// # Examples
    /// ```
    /// use xdit_kernels::{DType, Device, TensorMut};
    /// let mut x = TensorMut::zeros([3, 2], DType::F32, &Device::cpu())?;
    /// let rows = x.view_mut().parts([[(0, 0, 1)], [(0, 1, 2)]])?;
    /// assert_eq!(rows[1].shape(), [2, 2]);
    /// assert!(x.view_mut().parts([[(0, 0, 2)], [(0, 1, 2)]]).is_err());
    /// # Ok::<(), xdit_kernels::Error>(())
    /// ```
    pub fn parts<R: AsRef<[(usize, usize, usize)]>>(
        self,
        ranges: impl IntoIterator<Item = R>,
    ) -> Result<Vec<Self>> {
        let parts = self.boxes(ranges)?;
        Ok(parts.into_iter().map(|(part, _)| part).collect())
    }

    /// As [`parts`](Self::parts), with the box of entries that each part is.
    pub(crate) fn boxes<R: AsRef<[(usize, usize, usize)]>>(
        self,
        ranges: impl IntoIterator<Item = R>,
    ) -> Result<Vec<(Self, EntryBox)>> {
        let mut parts: Vec<(Self, EntryBox)> = Vec::new();
        for ranges in ranges {
            let mut entries = EntryBox::all(self.shape());
            // SAFETY: this view's own pointer and layout; it ends with the call, and the parts that it leaves share no element,
            // as checked below.
            let mut part = unsafe { Self::from_raw(self.ptr, self.layout, self.device) };
            part.initialised = self.initialised;
            for &(dim, start, len) in ranges.as_ref() {
                part = part.narrow(dim, start, len)?;
                entries.narrow(dim, start, len);
            }
            if parts.iter().any(|(_, other)| !entries.is_apart(other)) {
                let expected = "parts that share no element";
                return Err(Error::shape("parts", expected, self.shape()));
            }
            parts.push((part, entries));
        }
        Ok(parts)
    }

    /// Another shape over the same elements.
    ///
    /// # Errors
    /// If the number of elements differs or the view is not contiguous.
    pub fn reshape(self, shape: impl Into<Shape>) -> Result<Self> {
        let layout = view::reshape(self.layout, shape.into())?;
        Ok(Self { layout, ..self })
    }

    /// The last dim split: `[.., n]` seen as `[.., tail..]` where the product of `tail` is n.
    ///
    /// # Errors
    /// If the product differs.
    pub fn split_last(self, tail: &[usize]) -> Result<Self> {
        let layout = view::split_last(self.layout, tail)?;
        Ok(Self { layout, ..self })
    }

    /// Sizes of the dims, outermost first.
    pub fn shape(&self) -> &[usize] {
        self.layout.shape()
    }

    /// Distances between neighbours along each dim, in elements.
    pub fn strides(&self) -> &[usize] {
        self.layout.strides()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.layout.dtype()
    }

    /// The device whose memory holds the elements.
    pub fn device(&self) -> &'a Device {
        self.device
    }

    /// Whether the elements lie one after another in row-major order.
    pub fn is_contiguous(&self) -> bool {
        self.layout.is_contiguous()
    }

    pub(crate) fn ptr(&mut self) -> *mut u8 {
        self.ptr
    }

    /// The same elements, for a kernel that reads them and writes its results in their place.
    ///
    /// # Safety
    /// They are initialised, and the kernel reads each of them before it writes it. It makes no slice of them.
    #[cfg(feature = "ops")]
    pub(crate) unsafe fn as_input(&mut self) -> View<'a> {
        // SAFETY: this view's elements lie there for 'a; the rest is the caller's promise.
        unsafe { View::from_raw(self.ptr, self.layout, self.device) }
    }

    /// Checks that the view has this shape and dtype.
    pub(crate) fn expect(&self, op: &'static str, shape: &[usize], dtype: DType) -> Result<()> {
        if self.shape() != shape {
            return Err(Error::shape(
                op,
                format!("an output of shape {shape:?}"),
                self.shape(),
            ));
        }
        if self.dtype() != dtype {
            return Err(Error::DType {
                op,
                expected: format!("{dtype} output"),
                got: self.dtype(),
            });
        }
        Ok(())
    }
}

impl fmt::Debug for ViewMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ViewMut {:?}", self.layout)
    }
}
