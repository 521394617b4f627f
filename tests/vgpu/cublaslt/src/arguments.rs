//! Pointers that callers pass: each type holds what the documentation of cuBLASLt demands of the caller.

use crate::status::{INVALID_VALUE, Res};

/// Where a call stores a result: null, or valid for a write.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    pub(crate) fn set(&self, value: T) -> Res {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller passes a pointer that is valid for a write, or null.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }
}

/// A value that a call reads, whose type another argument may tell: null, or valid for a read of that type.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct In<T>(*const T);

impl<T: Copy> In<T> {
    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }

    pub(crate) fn get(&self) -> Res<T> {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller passes a pointer that is valid for a read, or null.
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// As a value of another type; `bytes` is the size that the caller gives.
    pub(crate) fn get_as<U: Copy>(&self, bytes: usize) -> Res<U> {
        if bytes != size_of::<U>() {
            return Err(INVALID_VALUE);
        }
        In(self.0.cast::<U>()).get()
    }
}
