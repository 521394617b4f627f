//! Pointers that callers pass: each type holds what the documentation of NCCL demands of the caller.

use crate::status::{INVALID_ARGUMENT, Res};

/// Where a call stores a result: null, or valid for a write until the call has ended, also where it ends later.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out<T>(*mut T);

// SAFETY: only an address, which is written as its type says.
unsafe impl<T> Send for Out<T> {}

impl<T> Out<T> {
    pub(crate) fn set(&self, value: T) -> Res {
        if self.0.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: the caller passes a pointer that is valid for a write, or null.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }
}

/// A value that a call reads: null, or valid for a read.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct In<T>(*const T);

impl<T: Copy> In<T> {
    pub(crate) fn get(&self) -> Res<T> {
        if self.0.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: the caller passes a pointer that is valid for a read, or null.
        Ok(unsafe { self.0.read_unaligned() })
    }
}

/// A `ncclUniqueId`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct UniqueId(pub(crate) [u8; 128]);

/// The first fields of a `ncclConfig_t`, which all versions have.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: i32,
}

impl Config {
    /// Why a communicator cannot be made with it.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let Self {
            size,
            magic,
            version,
            blocking,
        } = *self;
        if magic != 0xcafe_beef || size < size_of::<Self>() || version < 21_400 {
            return Some("the config is not initialised");
        }
        (blocking != 0).then_some("this double has non-blocking communicators only")
    }
}
